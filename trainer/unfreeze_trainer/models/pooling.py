"""Which pooling a text's head reads, from the spec and from what the base was trained to give."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import pooled_layers as layers
from unfreeze_trainer.sources.closed import Closed

MODES = {"Mean": "mean", "CLS": "cls", "LastToken": "lasttoken", "Max": "max", "Attention": layers.ATTENTION}
"""Modes of pooled_layers, by the spec's names."""
_OF_BASE = f"{layers.POOLING}/config.json"
MODULES = "modules.json"
"""What sentence-transformers lists a model's parts in."""
SCRIPT = "pooled.py"
"""What pooled_layers is called in an export."""


def chosen(pooling: str | None, path: str, where: str, *, of_base: bool) -> tuple[str, ...] | None:
    """Return the modes that a head reads; None for what the architecture's own classifier reads.

    Parameters
    ----------
    pooling
        The spec's word; None as Auto.
    path, where
        The base's folder, and what messages start with.
    of_base
        Whether Auto looks at the folder.

    Raises
    ------
    JobError
        InvalidModel: a file of the folder that says it leads elsewhere.
    """
    if pooling in MODES:
        return (MODES[pooling],)
    return _of_base(Closed(path, where, "InvalidModel")) if of_base else None


def _of_base(closed: Closed) -> tuple[str, ...] | None:
    """Return what a folder says of its pooling: an export of ours, or a sentence encoder.

    Since sentence-transformers 6 the file names the modes; before, it has a flag for each. Whatever it says that is not
    known is passed over.
    """
    if found := _known(_read(closed, layers.CONFIG).get("pooling")):
        return found
    config = _read(closed, _OF_BASE)
    named = config.get("pooling_mode")
    if named is None:
        named = [mode for mode, flag in layers.FLAGS.items() if config.get(f"pooling_mode_{flag}") is True]
    return _known([named] if isinstance(named, str) else named)


def _known(modes: Any) -> tuple[str, ...] | None:
    if not isinstance(modes, list) or not modes or not set(map(str, modes)) <= {*layers.FLAGS, layers.ATTENTION}:
        return None
    return tuple(mode for mode in (*layers.FLAGS, layers.ATTENTION) if mode in modes)


def _read(closed: Closed, name: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(closed.path(name)).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def files(path: str, where: str) -> list[str]:
    """Return the names of the files in a base's folder that say which pooling it has, and of a head that goes on."""
    closed = Closed(path, where, "InvalidModel")
    names = (layers.CONFIG, _OF_BASE, f"{layers.HEAD}/{layers.WEIGHTS}", layers.ATTENTION_WEIGHTS)
    return [name for name in names if closed.exists(name)]


def encoder_files(path: str, where: str) -> list[str]:
    """Return the names of the files in a base's folder that say how a sentence encoder makes one vector of a text."""
    closed = Closed(path, where, "InvalidModel")
    return [name for name in (layers.CONFIG, _OF_BASE, MODULES) if closed.exists(name)]


def normalizes(path: str, where: str) -> bool:
    """Return whether a sentence encoder's folder makes each vector as long as 1.

    Raises
    ------
    JobError
        InvalidModel: it has parts beside encoder, pooling and that, which would be lost.
    """
    closed = Closed(path, where, "InvalidModel")
    try:
        listed = json.loads(Path(closed.path(MODULES)).read_text())
        kinds = [str(part["type"]).rpartition(".")[2] for part in listed]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return False
    own_head = "labels" in _read(closed, layers.CONFIG)  # a classifier of ours, whose head is none of the encoder's
    known = {"Transformer", "Pooling", "Normalize", *(["Dense"] if own_head else [])}
    if others := [kind for kind in kinds if kind not in known]:
        raise JobError(
            "InvalidModel",
            f"{where}: {MODULES} names {' and '.join(others)} beside Transformer, Pooling and Normalize, and nothing else is"
            " trained or exported: choose another sentence encoder, or remove it there if its vectors may lack it",
        )
    return "Normalize" in kinds


def trained_head(path: str, where: str, modes: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Return the weights of a base's own head, if it is an export with this pooling for exactly these labels; else none."""
    described = _read(Closed(path, where, "InvalidModel"), layers.CONFIG)
    same = described.get("pooling") == list(modes) and described.get("labels") == list(labels)
    return layers.head_of(path) if same and set(files(path, where)) >= _needed(modes) else {}


def _needed(modes: Collection[str]) -> set[str]:
    head = {f"{layers.HEAD}/{layers.WEIGHTS}"}
    return head | {layers.ATTENTION_WEIGHTS} if layers.ATTENTION in modes else head


def write_script(folder: Path) -> None:
    """Write the file that loads an export."""
    shutil.copyfile(layers.__file__, folder / SCRIPT)


def pooled_class(config: Any, modes: Sequence[str], where: str) -> Any:
    """Return the class of a classifier with this pooling; JobError InvalidModel where the architecture has none."""
    try:
        return layers.pooled_class(config, modes)
    except ValueError as error:
        raise JobError(
            "InvalidModel",
            f"{where}: no pooling of {' and '.join(modes)} for this model: {error}. Set pooling to Auto, or choose an encoder",
        ) from error
