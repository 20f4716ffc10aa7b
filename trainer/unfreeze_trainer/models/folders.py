"""Model folders before any library opens them: what kind they are, what is missing, what they hash to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from unfreeze_api.tasks import TASKS
from unfreeze_trainer.errors import JobError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that hold weights, or list the files that do, best first."""
_LISTED = 20
"""Files of a folder that a message names."""
_COMMIT = re.compile("[0-9a-f]{40}")


def check_folder(path: str, source: str, *, library: str, weights: bool) -> dict[str, Any]:
    """Return config.json of a model folder after checking that `library` can load what lies there.

    Parameters
    ----------
    path, source
        The folder, and the manifest's text for it.
    library
        `transformers` or `timm`.
    weights
        Whether weights are needed; a model that starts from random weights needs none.

    Raises
    ------
    JobError
        InvalidModel, with what is missing or what kind of folder it is instead.
    """
    where = f"spec.model.source {source}"
    folder = Path(path)
    if not folder.is_dir():
        kind = (
            "is a file; name the folder that it lies in" if folder.exists() else "does not exist; check claim and path"
        )
        raise JobError("InvalidModel", f"{where}: the model folder {path} {kind}")
    present = {item.name for item in folder.iterdir()}
    content = listing(path)
    config = _read_config(folder, where, content)
    kind = "timm" if "architecture" in config else "transformers" if "model_type" in config else "unknown"
    if kind == "unknown":
        names = "neither model_type (transformers) nor architecture (timm)"
        raise JobError("InvalidModel", f"{where}: config.json has {names}; {content}")
    if kind != library:
        others = " or ".join(task.name for task in TASKS if task.library == kind)
        raise JobError(
            "InvalidModel",
            f"{where}: this is a {kind} model, and spec.task.type needs a {library} model: name another model, or set"
            f" spec.task.type to {others}",
        )
    if weights and not any(name in present for name in WEIGHTS):
        raise JobError(
            "InvalidModel",
            f"{where}: no weights (model.safetensors, its shards, or pytorch_model.bin); {content}. Copy the weights"
            " there, or set spec.model.initialization to Random to train from scratch",
        )
    return config


def listing(path: str) -> str:
    """Return what lies in a folder, for messages."""
    present = sorted(item.name for item in Path(path).iterdir())
    more = f" and {len(present) - _LISTED} more" if len(present) > _LISTED else ""
    return f"the folder holds {', '.join(present[:_LISTED]) or 'nothing'}{more}"


def _read_config(folder: Path, where: str, content: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise JobError("InvalidModel", f"{where}: no config.json in {folder}; {content}") from None
    except (ValueError, OSError) as error:
        raise JobError("InvalidModel", f"{where}: config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise JobError("InvalidModel", f"{where}: config.json holds no JSON object")
    return config


def hash_folder(path: str) -> dict[str, str]:
    """Return the SHA-256 of each file of a model folder that can matter: configuration, tokenizer, weights.

    Of several formats of the weights only the one that is loaded counts.
    """
    folder = Path(path)
    weights = next((name for name in WEIGHTS if (folder / name).is_file()), "")
    kind = ".bin" if ".bin" in weights else ".safetensors"
    small = {".json", ".txt", ".model"}
    files = sorted(item for item in folder.iterdir() if item.is_file())
    return {item.name: hash_file(item) for item in files if item.suffix == kind or item.suffix in small}


def revision(path: str) -> str | None:
    """Return the hub's commit that a model folder was downloaded at, None when nothing there tells.

    A snapshot of huggingface_hub's cache is named after its commit; a download into a folder of one's own notes it down
    beside the files.
    """
    folder = Path(path).resolve()
    if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
        return folder.name
    notes = folder / ".cache" / "huggingface" / "download"
    for note in sorted(notes.glob("*.metadata")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            first = note.read_text().partition("\n")[0].strip()
            if _COMMIT.fullmatch(first):
                return first
    return None


def hash_file(path: str | Path) -> str:
    """Return a file's SHA-256, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
