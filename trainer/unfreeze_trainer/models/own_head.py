"""The head that a base brings along, for masked words or for classes of its own: put back onto the body as it is trained.

What it says then, beside what it said of the base, is what is left of what the base could.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze_trainer.errors import one_line

log = logging.getLogger(__name__)

_MAPPINGS = (
    "MODEL_FOR_MASKED_LM_MAPPING",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING",
)
"""transformers' tables of models whose heads can be put back; the first of masked words."""


class OwnHead:
    """A head with the base's weights, on its own.

    Parameters
    ----------
    head
        What gives outputs of what the body gives; of transformers a whole model whose body is a stand-in.
    body
        Class of the body whose outputs the head reads; None where it reads what the job's head reads.
    masks
        Whether it says which word stands at a masked place.
    """

    def __init__(self, head: Any, body: type[nn.Module] | None = None, *, masks: bool = False) -> None:
        self._head, self._body, self.masks = head.eval().requires_grad_(False), body, masks
        self._seen: Any = None

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        self._head.to(device)

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Take note, in each forward pass of a model, of what its body gives."""
        body = self._body
        if body is None:
            yield
            return
        part = next((part for part in module.modules() if isinstance(part, body)), None)
        if part is None:
            raise ValueError(f"the model has no {body.__name__}")

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._seen = output

        handle = part.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()
            self._seen = None

    def outputs(self, read: Tensor | None, inputs: Mapping[str, Tensor], places: Tensor | None) -> Tensor:
        """Return what the head says of the newest forward pass, (samples, places, outputs).

        Parameters
        ----------
        read
            What the job's head has read.
        inputs
            Of the forward pass.
        places
            Of masked words, int64 of shape (samples, places), where it is of such.
        """
        if self._body is None:
            assert read is not None
            found: Tensor = self._head(read)
            return found[:, None]
        stand_in = getattr(self._head, self._head.base_model_prefix)
        if places is None:
            stand_in.gives = self._seen
            # Padding is not pooled.
            mask = {"attention_mask": inputs["attention_mask"]} if "attention_mask" in inputs else {}
            logits: Tensor = self._head(next(iter(inputs.values())), **mask).logits
            return logits[:, None]
        from transformers.modeling_outputs import BaseModelOutput

        hidden = self._seen[0][:, -inputs["input_ids"].shape[1] :]  # a prompt stands before the text
        hidden = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))
        stand_in.gives = BaseModelOutput(last_hidden_state=hidden)
        words: Tensor = self._head(input_ids=torch.zeros_like(places)).logits
        return words


class _StandIn(nn.Module):
    """Stands for a body that has computed already."""

    gives: Any = None

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.gives


def transformers_own_head(path: str, where: str) -> OwnHead | None:
    """Return the head that a folder of transformers has for masked words or classes, None where it has none.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    """
    from transformers.models.auto import modeling_auto

    from unfreeze_trainer.models.loading import be_quiet, from_folder, open_config

    be_quiet()
    config = open_config(path, where)
    wanted = (config.architectures or [""])[0]
    for mapping in _MAPPINGS:
        kind: Any = getattr(modeling_auto, mapping).get(type(config), None)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        found = next((one for one in kinds if one is not None and one.__name__ == wanted), None)
        if found is None:
            continue
        try:
            module, fresh = from_folder(found, path, config)
        except Exception as error:  # noqa: BLE001 - the base is measured without it
            log.warning("%s: its %s is left out of what is measured: %s", where, wanted, one_line(error))
            return None
        body = module.base_model
        if body is module or fresh & {name for name, _ in module.named_parameters()}:
            return None
        setattr(module, module.base_model_prefix, _StandIn())
        return OwnHead(module, type(body), masks=mapping == _MAPPINGS[0])
    return None


def timm_own_head(path: str, head: frozenset[str], **options: Any) -> OwnHead | None:
    """Return the classifier that a folder of timm has, None where it has none or the job's head is more than a classifier.

    Parameters
    ----------
    path
        The folder.
    head
        Parameters of the job's head.
    options
        That the job's model was made with.
    """
    import timm

    module = timm.create_model(f"local-dir:{path}", pretrained=True, **options).float()
    classifier = module.get_classifier()
    place = next((name for name, part in module.named_modules() if part is classifier), None)
    if not isinstance(classifier, nn.Linear) or place is None:
        return None
    if head != {f"{place}.{name}" for name, _ in classifier.named_parameters()}:
        return None
    return OwnHead(classifier)
