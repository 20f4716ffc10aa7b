"""A captioner: a frozen encoder, a projector, and a language model that reads what the projector gives before a text."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.blocks import EMBEDDINGS, HEAD, Block
from unfreeze_trainer.models.captioner_layers import Projector
from unfreeze_trainer.models.remembering import Remembering

IDS, MASK = "input_ids", "attention_mask"
ENCODER, LANGUAGE = "encoder.", "language."
"""What names of parameters begin with."""


class Reader(Remembering):
    """An encoder that never trains: it gives the same of a sample each time, and has no dropout.

    Parameters
    ----------
    model
        The encoder.
    features
        How it is run: (samples, places, width) of its inputs.
    """

    def __init__(self, model: nn.Module, features: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]) -> None:
        super().__init__()
        self.model, self._features = model, features
        self.train(False)

    def train(self, mode: bool = True) -> Reader:  # noqa: ARG002 - torch's own
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, float32 of shape (samples, places, width)."""
        features = partial(self._features, self.model)
        return (self._of_new("", features, inputs) if self._keys else features(inputs)).float()


class CaptionerModel(nn.Module):
    """Encoder, projector and language model.

    Parameters
    ----------
    encoder, projector, language
        The parts.
    key
        What names of the encoder's inputs begin with.
    lead
        Tokens that stand before everything, as the tokenizer puts them.
    stops
        Tokens that end a text.
    padding
        The token that fills up.
    """

    def __init__(
        self,
        encoder: Reader,
        projector: Projector,
        language: Any,
        *,
        key: str,
        lead: Sequence[int],
        stops: Sequence[int],
        padding: int,
    ) -> None:
        super().__init__()
        self.encoder, self.projector, self.language = encoder, projector, language
        self._key, self._lead, self._stops, self._padding = f"{key}.", list(lead), list(stops), padding
        bare = language.get_base_model() if hasattr(language, "get_base_model") else language
        takes = inspect.signature(bare.forward).parameters
        self._options = {"use_cache": False} if "use_cache" in takes else {}
        self._keeps = "logits_to_keep" in takes

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each token's next one, from the one before the texts on: (samples, 1 and length, tokens of the vocabulary).

        Of a language model that cannot leave any out there are those of all before them too.

        Parameters
        ----------
        inputs
            Of the encoder, with their key; input_ids and attention_mask of prompts and texts, int64 of shape (samples, length),
            padded at their end.
        """
        length = inputs[IDS].shape[1]
        read, mask = self._read(inputs)
        options = self._options | ({"logits_to_keep": length + 1} if self._keeps else {})
        logits: Tensor = self.language(inputs_embeds=read, attention_mask=mask, **options).logits
        return logits

    def _read(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what the language model reads, (samples, lead, prefix and length, width), and which of it is no padding."""
        own = {name.removeprefix(self._key): value for name, value in inputs.items() if name.startswith(self._key)}
        prefix, ids = self.projector(self.encoder(own)), inputs[IDS]
        embed = self.language.get_input_embeddings()
        text = embed(ids)
        lead = embed(ids.new_tensor(self._lead)).expand(len(ids), -1, -1)
        read = torch.cat([lead, prefix.to(text.dtype), text], dim=1)
        before = read.shape[1] - ids.shape[1]
        return read, torch.cat([inputs[MASK].new_ones(len(ids), before), inputs[MASK]], dim=1)

    def activation_checkpointing_enable(self, options: Mapping[str, Any]) -> None:
        """Have the language model's layers compute again in the backward pass; the encoder has none."""
        self.language.activation_checkpointing_enable(options)

    def disable_input_require_grads(self) -> None:
        """Take back that the embeddings of words ask for gradients."""
        self.language.disable_input_require_grads()

    @property
    def generation_config(self) -> Any:
        """How the language model generates by its own files, but that it stops where texts end here."""
        options = copy.deepcopy(self.language.generation_config)
        options.update(eos_token_id=self._stops, pad_token_id=self._padding)
        return options

    def generate(self, *, generation_config: Any, synced_gpus: bool = False, **given: Any) -> Tensor:
        """Return the tokens that the language model writes of each sample, int64 of shape (samples, tokens).

        Inputs as of `forward`; what else is given is transformers' own.
        """
        options: dict[str, Any] = {"generation_config": generation_config, "synced_gpus": synced_gpus}
        options |= {name: given.pop(name) for name in ("stopping_criteria", "tokenizer") if name in given}
        read, mask = self._read(given)
        said: Tensor = self.language.generate(inputs_embeds=read, attention_mask=mask, **options)
        return said


def captioner_blocks(model: CaptionerModel, language: LoadedModel) -> LoadedModel:
    """Return a captioner with its blocks: those of its language model, and above them all, as the head, the projector.

    What the language model reads, its embeddings and the encoder, is the lowest block; of the encoder nothing ever trains.

    Parameters
    ----------
    model
        The whole.
    language
        Its language model alone, with or without an adapter; its head has no parameters.
    """
    encoder, head = (
        tuple(name for name, _ in model.named_parameters() if name.startswith(part)) for part in (ENCODER, "projector.")
    )
    blocks = [Block(one.name, tuple(f"{LANGUAGE}{name}" for name in one.parameters)) for one in language.blocks[:-1]]
    below = [one for one in blocks if one.name == EMBEDDINGS]
    lowest = Block(EMBEDDINGS, (*encoder, *(name for one in below for name in one.parameters)))
    adapter = frozenset(f"{LANGUAGE}{name}" for name in language.adapter_parameters)
    return LoadedModel(
        model.train(),
        [lowest, *(one for one in blocks if one.name != EMBEDDINGS), Block(HEAD, head)],
        adapter | frozenset(head) if adapter else frozenset(),
        {f"{LANGUAGE}{name}": factor for name, factor in language.rate_factors.items()},
        language.hook,
        locked=frozenset(encoder),
    )
