"""A language model that writes of what an encoder sees or hears, and how an exported one is loaded.

This file is written beside every export of such a model as captioner.py, with bridge.py: the two need torch, safetensors and the
libraries of encoder and language model, nothing of Unfreeze.

    from runpy import run_path
    captioner = run_path("FOLDER/captioner.py")["load"]("FOLDER")
    print(captioner.write([Image.open("picture.png")]))

Where it hears, clips have one channel, float32, at the rate captioner.rate.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from runpy import run_path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CONFIG, WEIGHTS = "captioner.json", "projector.safetensors"
BRIDGE = "bridge.py"
_AXES = 4
"""Of features that lie in a grid."""


class Projector(nn.Module):
    """From what an encoder gives to embeddings that a language model reads.

    Parameters
    ----------
    kind
        Linear or MLP.
    inputs, outputs
        How many numbers each vector of the encoder has, and each embedding.
    spread
        Embeddings that are made of each vector.
    dropout
        Share of the inputs that training leaves out.
    size
        What embeddings are multiplied by: the root mean square of those of words. Were it part of the weights, these would be small,
        and a step of a usual learning rate would be larger than they are.
    """

    def __init__(self, kind: str, inputs: int, outputs: int, *, spread: int, dropout: float, size: float = 1.0) -> None:
        super().__init__()
        self._outputs, self.dropout, self.size = outputs, nn.Dropout(dropout), size
        layers: list[nn.Module] = [nn.Linear(inputs, outputs * spread)]
        if kind == "MLP":
            layers = [nn.Linear(inputs, outputs), nn.GELU(), nn.Linear(outputs, outputs * spread)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Return the embeddings, (samples, places x spread, outputs), of features of shape (samples, places, inputs).

        Each vector is brought to mean 0 and variance 1 first.
        """
        alike = functional.layer_norm(features, features.shape[-1:])
        made: Tensor = self.layers(self.dropout(alike)) * self.size
        return made.reshape(len(features), -1, self._outputs)


def places_of(model: Any, inputs: Any) -> Tensor:
    """Return the vector of each place or moment, (samples, places, width).

    Parameters
    ----------
    model
        Of timm without a classifier, a base model of transformers, or one of its audio classifiers.
    inputs
        Pictures, (samples, channels, height, width), or what a feature extractor makes of clips, by name.
    """
    if not isinstance(inputs, Tensor):
        encoder = model.encoder if model.config.model_type == "whisper" else getattr(model, model.base_model_prefix)
        heard: Tensor = encoder(**inputs).last_hidden_state
        return heard
    if hasattr(model, "pretrained_cfg"):
        found = model.forward_features(inputs)
        last = str(getattr(model, "output_fmt", "NCHW")).endswith("C")
    else:
        found, last = model(pixel_values=inputs).last_hidden_state, False
    if found.ndim == _AXES:
        found = found.flatten(1, 2) if last else found.flatten(2).transpose(1, 2)
    return found


def fewer(features: Tensor, most: int) -> Tensor:
    """Return features of so many places at most: means of neighbours, in reading order, where there are more."""
    if features.shape[1] <= most:
        return features
    return functional.adaptive_avg_pool1d(features.transpose(1, 2), most).transpose(1, 2)


class Captioner:
    """An exported model, ready to write.

    Parameters
    ----------
    folder
        The export.
    """

    def __init__(self, folder: str) -> None:
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM, AutoTokenizer

        own = json.loads(Path(folder, CONFIG).read_text())
        bridge, self._own, encoder = run_path(str(Path(folder, BRIDGE))), own, own["encoder"]
        opened = bridge["seeing" if encoder["modality"] == "image" else "hearing"]
        self._encoder, self._read = opened(f"{folder}/{encoder['modality']}", encoder)
        self._pool: Callable[..., Tensor] = bridge["of_pictures" if encoder["modality"] == "image" else "of_clips"]
        self.rate: int | None = encoder.get("rate")
        place = f"{folder}/text"
        self.language: Any = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        ).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        self._projector = Projector(**own["projector"], dropout=0.0).eval()
        self._projector.load_state_dict(load_file(Path(folder, WEIGHTS)))

    @torch.no_grad()
    def embeddings(self, sample: Any, ids: Sequence[int]) -> Tensor:
        """Return what the language model reads, (1, length, width): what stands for a picture or clip, then tokens of text."""
        inputs, most = self._read(sample), self._own["features"]
        features = (
            self._pool(self._encoder, inputs)[:, None]
            if most is None
            else fewer(places_of(self._encoder, inputs), most)
        )
        embed = self.language.get_input_embeddings()
        before, after = (embed(torch.tensor([list(tokens)], dtype=torch.int64)) for tokens in (self._own["lead"], ids))
        return torch.cat([before, self._projector(features.float()), after], dim=1)

    @torch.no_grad()
    def logits(self, sample: Any, ids: Sequence[int]) -> Tensor:
        """Return the logits by which each of some tokens is chosen after a picture or clip, (tokens, vocabulary)."""
        found: Tensor = self.language(inputs_embeds=self.embeddings(sample, ids)).logits
        return found[0, -len(ids) - 1 : -1]

    def write(self, samples: Sequence[Any], prompt: str | None = None, tokens: int = 64) -> list[str]:
        """Return a text of each picture of Pillow, or clip: the most probable token each time.

        Parameters
        ----------
        samples
            Pictures or clips.
        prompt
            What stands before the text: what is asked, or None for what it was trained with.
        tokens
            That it may write of each.
        """
        prompt = self._own["prompt"] if prompt is None else prompt
        ids = self.tokenizer(prompt.strip(), add_special_tokens=False)["input_ids"] if prompt else []
        options = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
        options |= {"num_return_sequences": 1, "return_dict_in_generate": False}  # as in the training's own figures
        options |= {"eos_token_id": self._own["stops"], "pad_token_id": self._own["padding"], "max_new_tokens": tokens}
        texts = []
        for sample in samples:
            read = self.embeddings(sample, ids)
            mask = torch.ones(read.shape[:2], dtype=torch.int64)
            said = self.language.generate(inputs_embeds=read, attention_mask=mask, **options)
            text = self.tokenizer.decode(said[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            texts.append(text.strip())
        return texts


def load(folder: str) -> Captioner:
    """Load an export."""
    return Captioner(folder)
