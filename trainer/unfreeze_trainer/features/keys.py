"""What the outputs of frozen blocks depend on, as hashes: of a cut, and of the inputs of each sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze_trainer.features.cut import MASK, Batch, Cut
from unfreeze_trainer.features.kept import DIGEST
from unfreeze_trainer.features.memory import bytes_of
from unfreeze_trainer.objectives.base import LEARNED, SAMPLES, TARGETS
from unfreeze_trainer.versions import library_versions

_FORMAT = 1
"""Changes with what is computed of the same weights and inputs by this version's own code."""
_OF_HEAD = (
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "architectures",
    "_name_or_path",
    "name_or_path",
    "num_classes",
)
"""Of a model's configuration, what says nothing of its blocks."""
_OF_TRAINING = ("training", "gradient_checkpointing", "grad_checkpointing")
"""Of a module's attributes, what changes nothing of what it computes for a cache."""


def cut_key(module: nn.Module, cut: Cut, *, trained: Collection[str], computed: str, known: dict[str, str]) -> str:
    """Return the hash of what a cut's values depend on beside a sample's inputs, 64 hexadecimal digits.

    The weights themselves count, as they were loaded, and not the files that they come from: so do those that were drawn, converted or
    quantised, whatever has led to them.

    Parameters
    ----------
    module
        Whole, before an engine takes it over.
    trained
        Parameters that have trained by the end of the cut's phase.
    computed
        As of `computes`.
    known
        Hashes of tensors by name, filled in.
    """
    weights: dict[str, Tensor] = {
        name: parameter for name, parameter in module.named_parameters() if name not in trained
    }
    changed = {name.rpartition(".")[0] for name in trained}
    weights |= {name: buffer for name, buffer in module.named_buffers() if name.rpartition(".")[0] not in changed}
    for name in weights.keys() - known.keys():
        known[name] = _tensor_hash(weights[name])
    to_dict = getattr(getattr(module, "config", None), "to_dict", dict)
    config: dict[str, Any] = to_dict()
    said = {
        "format": _FORMAT,
        "versions": library_versions(),
        "computes": computed,
        "class": f"{type(module).__module__}.{type(module).__qualname__}",
        "config": {name: value for name, value in config.items() if name not in _OF_HEAD},
        "parts": {path: repr(module.get_submodule(path)) for path in sorted(cut.outputs)},
        "attributes": _attributes(module, cut),
        "cut": [cut.path, list(cut.needed), [[list(shape.sizes), str(shape.dtype)] for shape in cut.shapes]],
        "weights": {name: known[name] for name in sorted(weights)},
    }
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=DIGEST).hexdigest()


def _attributes(module: nn.Module, cut: Cut) -> dict[str, dict[str, Any]]:
    """Return the plain attributes of all modules that a cut's values come through, by path: repr does not tell of each of them."""
    parts: dict[str, nn.Module] = {"": module}
    for path in cut.outputs:
        names = path.split(".")
        above = [".".join(names[:count]) for count in range(1, len(names))]
        parts |= {name: module.get_submodule(name) for name in above}
        parts |= dict(module.get_submodule(path).named_modules(prefix=path))
    return {
        path: {
            name: value
            for name, value in vars(part).items()
            if _is_plain(value) and not name.startswith("_") and name not in (*_OF_HEAD, *_OF_TRAINING)
        }
        for path, part in parts.items()
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def computes(device: torch.device, dtype: torch.dtype) -> str:
    """Return what is computed on, and in which type; others give other numbers."""
    return f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type} {dtype}"


def row_keys(batch: Batch) -> list[bytes]:
    """Return the hash of each sample's inputs in a batch on the CPU, without padding and without what is to be learned of it."""
    mask = batch[MASK].bool() if MASK in batch else None
    inputs = [(name, batch[name]) for name in sorted(batch) if name not in (TARGETS, SAMPLES, LEARNED)]
    found = []
    for row in range(len(next(iter(batch.values())))):
        state = hashlib.blake2b(digest_size=DIGEST)
        for name, tensor in inputs:
            value = tensor[row]
            if mask is not None and tensor.shape[:2] == mask.shape:
                value = value[mask[row]]
            state.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            state.update(bytes_of(value))
        found.append(state.digest())
    return found


def lengths(batch: Mapping[str, Tensor], samples: int) -> list[int]:
    """Return how many tokens each sample of a batch has without padding; 0 where there are none."""
    found: list[int] = batch[MASK].bool().sum(dim=1).tolist() if MASK in batch else [0] * samples
    return found


def _tensor_hash(tensor: Tensor) -> str:
    state = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)} ".encode(), digest_size=DIGEST)
    state.update(bytes_of(tensor.detach().cpu()))
    return state.hexdigest()
