"""Encoders of several modalities with heads that bring what they read into one space, and how an exported bridge is loaded.

This file is written beside every export of such a model as bridge.py: it needs torch, safetensors and the libraries of its
encoders, nothing of Unfreeze.

    from runpy import run_path
    bridge = run_path("FOLDER/bridge.py")["load"]("FOLDER")
    print(bridge.embed_text(["some text"]) @ bridge.embed_image([Image.open("picture.png")]).T)

embed_audio takes clips of one channel, float32, at the rate bridge.audio_rate.

The products are cosines, between -1 and 1.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CONFIG, WEIGHTS = "bridge.json", "heads.safetensors"


class Alike(nn.Module):
    """LayerNorm without weights of what each of several encoders gives, side by side in the last dimension.

    Parameters
    ----------
    widths
        How many numbers each gives.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(widths)

    def forward(self, values: Tensor) -> Tensor:
        """Return them, each with mean 0 and variance 1."""
        parts = torch.split(values, self.widths, dim=-1)
        return torch.cat([functional.layer_norm(part, part.shape[-1:]) for part in parts], dim=-1)


class Named(nn.Module):
    """Puts behind what encoders give what their classifiers say of it, in the words of encoders of texts.

    Of each classifier it is the mean of the vectors of its classes' names, weighted by their probabilities (ConSE, Norouzi et al.
    2014, arXiv 1312.5650).

    Parameters
    ----------
    widths
        How many numbers each encoder gives.
    told
        Of each classifier which encoder it stands on, how many classes it has, and how wide the vectors of their names are.
    """

    def __init__(self, widths: Sequence[int], told: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.widths, self.told = list(widths), [tuple(one) for one in told]
        for number, (encoder, classes, width) in enumerate(self.told):
            self.register_buffer(f"weight{number}", torch.zeros(classes, widths[encoder]))
            self.register_buffer(f"bias{number}", torch.zeros(classes))
            self.register_buffer(f"names{number}", torch.zeros(classes, width))

    def forward(self, values: Tensor) -> Tensor:
        """Return them side by side in the last dimension."""
        parts, found = torch.split(values, self.widths, dim=-1), [values]
        for number, (encoder, *_) in enumerate(self.told):
            weight, bias, names = (getattr(self, f"{name}{number}") for name in ("weight", "bias", "names"))
            found.append(functional.linear(parts[encoder], weight, bias).softmax(dim=-1) @ names)
        return torch.cat(found, dim=-1)


def projection(
    kind: str, widths: Sequence[int], width: int, dropout: float, told: Sequence[Sequence[int]] = ()
) -> nn.Module:
    """Return a head: from what encoders of a modality give, made alike in mean and variance, to the common space.

    Parameters
    ----------
    kind
        Linear or MLP.
    widths, width
        How many numbers each encoder gives, and how many come out.
    dropout
        Share of the inputs that training leaves out.
    told
        As of Named.
    """
    read = [*widths, *(one[2] for one in told)]
    inputs = sum(read)
    first = [*([Named(widths, told)] if told else []), Alike(read), nn.Dropout(dropout)]
    if kind == "Linear":
        return nn.Sequential(*first, nn.Linear(inputs, width))
    hidden = [nn.Linear(inputs, 2 * width), nn.GELU(), nn.Dropout(dropout)]
    return nn.Sequential(*first, *hidden, nn.Linear(2 * width, width))


def of_pictures(model: Any, pixels: Tensor) -> Tensor:
    """Return a vector of each picture, (pictures, width), of timm's models without a classifier or transformers' base models.

    What transformers pools is taken, else the mean over what the last layer gives.
    """
    if hasattr(model, "pretrained_cfg"):
        return model(pixels).flatten(1)
    outputs = model(pixel_values=pixels)
    pooled = getattr(outputs, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    hidden: Tensor = outputs.last_hidden_state
    return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.flatten(2).mean(dim=2)  # noqa: PLR2004 - places, width


def without_head(model: Any) -> int:
    """Have one of transformers' audio classifiers give what its head reads; return how many numbers that is."""
    inputs = model.projector.in_features if hasattr(model, "projector") else model.config.hidden_size
    model.projector = model.classifier = nn.Identity()
    return int(inputs)


def of_clips(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return a vector of each clip, (clips, width), of one of transformers' audio classifiers without its head."""
    vectors: Tensor = model(**inputs).logits
    return vectors


def load(folder: str) -> Any:
    """Load an export.

    Returns
    -------
    Any
        For each modality that it has a function: embed_image of pictures of Pillow, embed_text of texts, embed_audio of clips at
        the rate audio_rate. Each gives float32 of shape (samples, width), every row as long as 1. read_image, read_text and
        read_audio give what the encoders alone make of the same, side by side.
    """
    described = json.loads(Path(folder, CONFIG).read_text())
    found = SimpleNamespace()
    towers = described["towers"]
    for modality in dict.fromkeys(tower["modality"] for tower in towers.values()):
        own = {name: tower for name, tower in towers.items() if tower["modality"] == modality}
        encoders = [_ENCODERS[modality](f"{folder}/{name}", tower) for name, tower in own.items()]
        read = _reader(encoders)
        setattr(found, f"read_{modality}", read)
        setattr(found, f"embed_{modality}", _embedder(read, load_head(folder, described, modality)))
        if modality == "audio":
            found.audio_rate = own[modality]["rate"]
    return found


def load_head(folder: str, described: Mapping[str, Any], modality: str) -> nn.Module:
    """Return the head of a modality, ready to be asked; `described` is what bridge.json says."""
    from safetensors.torch import load_file

    widths = [tower["width"] for tower in described["towers"].values() if tower["modality"] == modality]
    told = described.get("told", {}).get(modality, ())
    head = projection(described["projection"], widths, described["width"], 0.0, told)
    prefix, weights = f"{modality}.", load_file(Path(folder, WEIGHTS))
    head.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return head.eval()


def _reader(encoders: Sequence[Callable[[Any], Tensor]]) -> Callable[[Any], Tensor]:
    @torch.no_grad()
    def read(samples: Any) -> Tensor:
        return torch.cat([encode(samples).float() for encode in encoders], dim=1)

    return read


def _embedder(read: Callable[[Any], Tensor], head: nn.Module) -> Callable[[Any], Tensor]:
    @torch.no_grad()
    def embed(samples: Any) -> Tensor:
        return functional.normalize(head(read(samples)), dim=-1)

    return embed


def seeing(folder: str, tower: Mapping[str, Any]) -> tuple[Any, Callable[[Any], Tensor]]:
    """Return an encoder of pictures, and what makes its input of one picture of Pillow, (1, channels, height, width)."""
    if tower["library"] == "timm":
        import timm

        model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    else:
        from transformers import AutoImageProcessor, AutoModel

        model = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False).eval()
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

        def transform(image: Any) -> Tensor:
            pixels: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
            return pixels

    return model, lambda image: transform(shown(image, tower["mode"]))[None]


def _pictures(folder: str, tower: Mapping[str, Any]) -> Callable[[Sequence[Any]], Tensor]:
    """Return what makes vectors of pictures, one after the other."""
    model, read = seeing(folder, tower)
    return lambda images: torch.cat([of_pictures(model, read(image)) for image in images])


def shown(image: Any, mode: str) -> Any:
    """Return a picture as a viewer shows it, in the colours that a model reads.

    What is transparent lies on white, or on black where all of it is white. Numbers of 12 or 16 bits, and floats, are scaled to 8 bits.
    """
    from PIL import Image, ImageOps

    tags = dict(getattr(image, "tag_v2", {}))  # of TIFF
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _in_eight_bits(image, tags)
    elif image.has_transparency_data:
        clear = image.convert("RGBA")
        low, high = clear.getchannel("A").getextrema()
        for ground in ("white", "black"):
            image = Image.alpha_composite(Image.new("RGBA", clear.size, ground), clear).convert("RGB")
            if low == high or any(band != (255, 255) for band in image.getextrema()):
                break
    return image.convert(mode)


def _in_eight_bits(image: Any, tags: Mapping[int, Any]) -> Any:
    """Return a grey picture; its floats are of the least of the ranges to 1, to 255 and to 65,535 that holds them."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    top = (1 << max(tags.get(258, (16,)))) - 1
    if image.mode == "F":
        top = next((top for top in (1, 255) if values.max() <= top), 65_535)
    if isinstance(clear := image.info.get("transparency"), int):
        values[values == clear] = top
    if tags.get(262) == 0:  # is white
        values = top - values
    return Image.fromarray(np.rint(values * (255 / top)).clip(0, 255).astype(np.uint8))


def _texts(folder: str, tower: Mapping[str, Any]) -> Callable[[Sequence[str]], Tensor]:  # noqa: ARG001 - as the others
    pooled = run_path(f"{folder}/pooled.py")
    embed: Callable[[Sequence[str]], Tensor] = pooled["embedder"](pooled["load_encoder"](folder), folder)
    return embed


def hearing(folder: str, tower: Mapping[str, Any]) -> tuple[Any, Callable[[Any], Mapping[str, Tensor]]]:
    """Return an encoder of sound, and what makes its inputs of one clip, by name."""
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
    from transformers.utils import logging

    said = logging.get_verbosity()
    logging.set_verbosity_error()  # it says that the head is new
    model = AutoModelForAudioClassification.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model.eval()
    logging.set_verbosity(said)
    without_head(model)
    extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def read(clip: Any) -> Mapping[str, Tensor]:
        made: Mapping[str, Tensor] = extractor(
            clip[: tower["longest"]], sampling_rate=tower["rate"], return_tensors="pt"
        )
        return made

    return model, read


def _clips(folder: str, tower: Mapping[str, Any]) -> Callable[[Sequence[Any]], Tensor]:
    """Return what makes vectors of clips, one after the other."""
    model, read = hearing(folder, tower)
    return lambda clips: torch.cat([of_clips(model, read(clip)) for clip in clips])


_ENCODERS: dict[str, Callable[[str, Mapping[str, Any]], Callable[[Any], Tensor]]] = {
    "image": _pictures,
    "text": _texts,
    "audio": _clips,
}
