"""Model folders before any library opens them: what kind they are, what is missing, what they hash to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from unfreeze_api.commands import explained
from unfreeze_api.tasks import TASKS
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.sources.closed import Closed, refuse_code
from unfreeze_trainer.sources.pointers import stand_in_at

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that hold weights, or list the files that do, best first."""
CHANNELS = (1, 3)
"""Of the pictures that a model may take."""
_LISTED = 20
"""Files of a folder that a message names."""
_COMMIT = re.compile("[0-9a-f]{40}")
_BELOW = ("*/config.json", "snapshots/*/config.json")
"""Where a model lies in a folder that is none: of an older sentence-transformers (0_Transformer), or of a hub's cache."""


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
        InvalidModel, with what is missing or what kind of folder it is instead; or what leads out of it, or is code.
    """
    where = f"spec.model.source {source}"
    try:
        return _checked(Path(path), where, library=library, weights=weights)
    except OSError as error:
        raise JobError("InvalidModel", f"{where}: the model folder cannot be read: {explained(error)}") from error


def library_of(path: str, source: str, libraries: Sequence[str]) -> str:
    """Return which of some libraries' models a folder holds, by its config.json; the first one where that does not tell."""
    if len(libraries) == 1:
        return libraries[0]
    kind = _kind(_read_object(Closed(path, f"spec.model.source {source}", "InvalidModel"), "config.json"))
    return kind if kind in libraries else libraries[0]


def _kind(config: dict[str, Any]) -> str:
    return "timm" if "architecture" in config else "transformers" if "model_type" in config else "unknown"


def _checked(folder: Path, where: str, *, library: str, weights: bool) -> dict[str, Any]:
    if not folder.is_dir():
        kind = (
            "is a file; name the folder that it lies in" if folder.exists() else "does not exist; check claim and path"
        )
        raise JobError("InvalidModel", f"{where}: the model folder {folder} {kind}")
    present, content = {item.name for item in folder.iterdir()}, listing(str(folder))
    _check_files(folder, where)
    config = _read_config(folder, where, content)
    refuse_code(config, "config.json", where)
    _check_library(config, where, content, library)
    if weights and not any(name in present for name in WEIGHTS):
        raise JobError(
            "InvalidModel",
            f"{where}: no weights (model.safetensors, its shards, or pytorch_model.bin); {content}. Copy the weights"
            " there, or set spec.model.initialization to Random to train from scratch",
        )
    if weights:
        weight_files(str(folder), where, library=library)
    if "adapter_config.json" in present:
        raise JobError(
            "InvalidModel",
            f"{where}: an adapter lies beside the model (adapter_config.json), and transformers would load both: merge it"
            " into the model first (PEFT's merge_and_unload), or remove it",
        )
    if library == "timm":
        if config.get("model_type") == "timm_wrapper" and config.get("model_args", {}) is None:
            raise of_wrapper(where)
        _require_channels(config, where)
    return config


def _check_files(folder: Path, where: str) -> None:
    """Raise JobError for files that lead out of a folder, are no regular ones, or stand in for others."""
    closed = Closed(folder, where, "InvalidModel")
    for item in folder.iterdir():
        if not item.is_dir() and (item.exists() or not item.is_symlink()):
            closed.path(item.name)
    for name in _used(folder):
        if instead := stand_in_at(folder / name):
            raise JobError("InvalidModel", f"{where}: {name} {instead}")


def _check_library(config: dict[str, Any], where: str, content: str, library: str) -> None:
    """Raise JobError for a model of another library."""
    kind = _kind(config)
    if kind == "unknown":
        names = "neither model_type (transformers) nor architecture (timm)"
        raise JobError("InvalidModel", f"{where}: config.json has {names}; {content}")
    if kind != library:
        others = " or ".join(task.name for task in TASKS if kind in task.libraries)
        raise JobError(
            "InvalidModel",
            f"{where}: this is a {kind} model, and spec.task.type needs a {library} model: name another model, or set"
            f" spec.task.type to {others}",
        )


def _require_channels(config: dict[str, Any], where: str) -> None:
    """Raise JobError for a model of pictures that are neither grey nor in colour."""
    pretrained, arguments = config.get("pretrained_cfg"), config.get("model_args")
    size = (pretrained if isinstance(pretrained, dict) else config).get("input_size")
    wanted = arguments.get("in_chans") if isinstance(arguments, dict) else None
    channels = wanted or (size[0] if isinstance(size, list) and size else 3)
    if channels not in CHANNELS:
        raise JobError(
            "InvalidModel",
            f"{where}: the model takes pictures of {channels} channels (input_size in config.json), and what is read here"
            " is grey, 1 channel, or in colour, 3: name a model that takes one of these",
        )


def of_wrapper(where: str) -> JobError:
    """Return the error of a folder that transformers has written of a model of timm, and that timm cannot read."""
    return JobError(
        "InvalidModel",
        f"{where}: transformers has saved this model of timm, in its own way, and timm cannot load that: load it with transformers,"
        " save what is in it by timm.models.save_for_hf(model.timm_model, FOLDER, safe_serialization=True), and name that folder",
    )


def listing(path: str) -> str:
    """Return what lies in a folder, for messages."""
    present = sorted(item.name for item in Path(path).iterdir())
    more = f" and {len(present) - _LISTED} more" if len(present) > _LISTED else ""
    return f"the folder holds {', '.join(present[:_LISTED]) or 'nothing'}{more}"


def _read_config(folder: Path, where: str, content: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise JobError("InvalidModel", f"{where}: no config.json in {folder}; {content}{_instead(folder)}") from None
    except (ValueError, RecursionError, OSError) as error:
        raise JobError("InvalidModel", f"{where}: config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise JobError("InvalidModel", f"{where}: config.json holds no JSON object")
    return config


def _instead(folder: Path) -> str:
    """Return what to do about a folder without config.json, if it is of a usual kind; begins with a full stop."""
    if (folder / "adapter_config.json").is_file():
        return (
            ". It is an adapter alone: merge it into its base (PEFT's merge_and_unload), save that with its tokenizer or processor, and name"
            " that folder; or train another adapter on the base (spec.adapter)"
        )
    for pattern in _BELOW:
        found = [file for file in sorted(folder.glob(pattern)) if _kind(_read(file)) != "unknown"]
        if len(found) == 1:
            return f". A model lies in {found[0].parent.relative_to(folder)}: name that folder"
    if any(folder.glob("*.gguf")):
        return ". Files of llama.cpp (GGUF) are not read: name the model that they were made of"
    return ""


def weight_files(path: str, where: str, *, library: str) -> list[str]:
    """Return the names of the files that a library loads a folder's weights from: one, or an index and its shards.

    Raises
    ------
    JobError
        InvalidModel: an index cannot be read, or names what is not there, leads elsewhere or is no file.
    """
    closed = Closed(path, where, "InvalidModel")
    name = (_timm_weights if library == "timm" else _transformers_weights)(closed)
    if name is None:
        return []
    names = [name]
    if name.endswith(".index.json"):
        names += _shards(closed, name, where)
    for name in names:
        if not closed.exists(name):
            naming = "config.json" if name == names[0] else names[0]
            raise JobError("InvalidModel", f"{where}: {name} is missing, which {naming} names; {listing(path)}")
    return names


def _transformers_weights(closed: Closed) -> str | None:
    config = json.loads(Path(closed.path("config.json")).read_text())
    if named := config.get("transformers_weights"):
        return str(named)
    return next((name for name in WEIGHTS if closed.exists(name)), None)


def _timm_weights(closed: Closed) -> str | None:
    from timm.models._hub import _EXT_PRIORITY, _PREFERRED_FILES

    for name in _PREFERRED_FILES:
        if closed.exists(name):
            return str(name)
    found = (sorted(Path(closed.root).glob(f"*{suffix}")) for suffix in _EXT_PRIORITY)
    return next((files[0].name for files in found if files), None)


def _shards(closed: Closed, index: str, where: str) -> list[str]:
    try:
        names = set(json.loads(Path(closed.path(index)).read_text())["weight_map"].values())
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise JobError("InvalidModel", f"{where}: {index} is no index of weights: {error!r}") from error
    if any(not isinstance(name, str) for name in names):
        raise JobError("InvalidModel", f"{where}: {index} is no index of weights: its weight_map names no files")
    return sorted(names)


def tokenizer_files(path: str, where: str, named: Iterable[str]) -> list[str]:
    """Return the names of the files that transformers loads a folder's tokenizer from.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    named
        What the tokenizer's class asks for: values of its `vocab_files_names`.

    Raises
    ------
    JobError
        InvalidModel: a name leads elsewhere, is no regular file, or tokenizer_config.json names code.
    """
    closed = Closed(path, where, "InvalidModel")
    names = {*named, *_TOKENIZER, *(item.name for item in Path(path).glob("*.model"))}
    config = _read_object(closed, "tokenizer_config.json")
    refuse_code(config, "tokenizer_config.json", where)
    versions = config.get("fast_tokenizer_files")
    names |= {name for name in versions if isinstance(name, str)} if isinstance(versions, list) else set()
    names |= {f"{_TEMPLATES}/{item.name}" for item in Path(path, _TEMPLATES).glob("*.jinja")}
    return sorted(name for name in names if name and closed.exists(name))


PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files that transformers loads a feature extractor or an image processor from, one of which there must be."""


def preprocessor_files(path: str, where: str, *, says: str, kind: str) -> list[str]:
    """Return the names of the files that say how files become what a model reads.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    says, kind
        What such a file says, and of whom, for messages.

    Raises
    ------
    JobError
        InvalidModel: there is none, or it cannot be read, leads elsewhere or names code.
    """
    closed = Closed(path, where, "InvalidModel")
    found = [name for name in PREPROCESSOR_FILES if closed.exists(name)]
    if not found:
        raise JobError(
            "InvalidModel",
            f"{where}: no {PREPROCESSOR_FILES[0]}, which says how {says} becomes what the model reads; {listing(path)}. Copy"
            f" it there, as the {kind}'s save_pretrained writes it",
        )
    for name in found:
        try:
            content = json.loads(Path(closed.path(name)).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise JobError("InvalidModel", f"{where}: {name} cannot be read: {error}") from error
        if isinstance(content, dict):
            refuse_code(content, name, where)
    return found


_TEMPLATES = "additional_chat_templates"
_TOKENIZER = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tekken.json",
)
"""Files of every tokenizer of transformers, beside those of its class."""


def _read_object(closed: Closed, name: str) -> dict[str, Any]:
    """Return what a JSON file holds, nothing where there is none; what else is wrong with it is for the library to say."""
    try:
        found = json.loads(Path(closed.path(name)).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def hash_files(path: str, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files of a folder, by name."""
    found = {}
    for name in sorted(set(names)):
        file = Path(path, name)
        look = _look(file)
        found[name] = hash_file(file)
        _hashed[file] = look, found[name]
    return found


_hashed: dict[Path, tuple[tuple[int, int], str]] = {}
"""Size, time of change and hash of each file of `hash_files`, as they were then."""


def changed(hashes: Collection[str]) -> list[Path]:
    """Return the files that had one of these hashes at `hash_files`, and have another by now. Those that nobody has touched are not read."""
    return [
        file
        for file, (look, known) in _hashed.items()
        if known in hashes and file.is_file() and _look(file) != look and hash_file(file) != known
    ]


def _look(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def hash_folder_once(path: str) -> dict[str, str]:
    """Return the hashes that runs of earlier versions pinned a model folder by: whatever looked as if it could matter."""
    return hash_files(path, _used(Path(path)))


def _used(folder: Path) -> list[str]:
    weights = next((name for name in WEIGHTS if (folder / name).is_file()), "")
    kind = ".bin" if ".bin" in weights else ".safetensors"
    small = {".json", ".txt", ".model"}
    return sorted(item.name for item in folder.iterdir() if item.is_file() and item.suffix in {kind, *small})


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


def modality_of(folder: Path) -> str:
    """Return what a folder's encoder reads, Image, Text or Audio, by the files that say how; nothing where none does."""
    config, prepared = (_read(folder / name) for name in ("config.json", "preprocessor_config.json"))
    # Older files call what prepares pictures a feature extractor too.
    if "architecture" in config or {"image_processor_type", "image_mean"} & prepared.keys():
        return "Image"
    if "feature_extractor_type" in prepared:
        return "Audio"
    texts = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
    return "Text" if any((folder / name).is_file() for name in texts) else ""


def writes_texts(folder: Path) -> bool:
    """Return whether a folder's config.json names a class of transformers that gives the next token of a text."""
    named = _read(folder / "config.json").get("architectures")
    return isinstance(named, list) and any(str(one).endswith(("ForCausalLM", "LMHeadModel")) for one in named)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
