"""Which files of a repository are read: those that the libraries load, one format of the weights, never code. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from unfreeze_trainer.data.clips import SUFFIXES as CLIPS
from unfreeze_trainer.data.pictures import FORMATS as PICTURES
from unfreeze_trainer.data.shards import expanded
from unfreeze_trainer.data.suffixes import lies_as_table
from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.models.folders import WEIGHTS
from unfreeze_trainer.sources.card import CARD, Config, find_config
from unfreeze_trainer.sources.pins import is_plain

if TYPE_CHECKING:
    from unfreeze_api.sources.bucket import Place
    from unfreeze_api.sources.hf import Reference

_INDEX, _ADAPTER = ".index.json", "adapter_config.json"
_TEXTS = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".vocab", ".spm"})
"""Suffixes of configs, tokenizers and templates."""
_CARDS = ("readme", "license", "licence", "notice")
_MORE = (
    "/attention.safetensors",
    "/1_Pooling/config.json",
    "/2_Dense/*.json",
    "/2_Dense/*.safetensors",
    "/additional_chat_templates/*.jinja",
)
"""What is read besides: how a sentence encoder pools, the head of an export of ours, templates."""
_MEDIA = frozenset((*PICTURES, *CLIPS))
_CODE = frozenset({".py", ".pyc", ".so", ".pkl", ".pickle", ".joblib", ".sh", ".exe", ".dll"})
"""Suffixes of what no reader of data needs, and what would be run."""


def model_files(names: Collection[str], where: str, *, weights: bool, read: Callable[[str], bytes]) -> list[str]:
    """Return the files of a repository that a model is loaded from.

    Parameters
    ----------
    names
        Of the whole repository.
    where
        What messages start with.
    weights
        Whether weights are read.
    read
        Gives the content of a small file.

    Raises
    ------
    JobError
        InvalidModel: no model, or no weights in a format that is read.
    """
    if "config.json" not in names:
        what = (
            f"an adapter ({_ADAPTER}) and no model: name the base model that it was trained on{_base_of(read(_ADAPTER))}"
            if _ADAPTER in names
            else f"no config.json, and so no model of transformers or timm: it has {some_of(sorted(names))}"
        )
        raise JobError("InvalidModel", f"{where}: the repository holds {what}")
    found = [name for name in names if _is_text(name) or any(PurePosixPath(f"/{name}").match(like) for like in _MORE)]
    if weights:
        found += _weights(names, where, read)
    return sorted(set(found))


def _base_of(config: bytes) -> str:
    """Return which base an adapter says that it was trained on, for a message; empty where it says none."""
    try:
        base = json.loads(config)["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f", {' '.join(base.split())[:200]} as it says" if isinstance(base, str) and base else ""


def _is_text(name: str) -> bool:
    path = PurePosixPath(name)
    if len(path.parts) > 1 or name.startswith(".") or name.endswith(_INDEX):
        return False
    return path.suffix.lower() in _TEXTS or name.lower().startswith(_CARDS)


def _weights(names: Collection[str], where: str, read: Callable[[str], bytes]) -> list[str]:
    chosen = next((name for name in WEIGHTS if name in names), None)
    if chosen is None:
        raise JobError(
            "InvalidModel",
            f"{where}: the repository has no weights that are read ({', '.join(WEIGHTS)}); it has {some_of(sorted(names))}."
            " Name one that has them, or set spec.model.initialization to Random to train from scratch",
        )
    if not chosen.endswith(_INDEX):
        return [chosen]
    try:
        shards = set(json.loads(read(chosen))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JobError("InvalidModel", f"{where}: {chosen} is no index of weights: {error!r}") from error
    if bad := [shard for shard in shards if not isinstance(shard, str) or not is_plain(shard) or shard not in names]:
        raise JobError("InvalidModel", f"{where}: {chosen} names {bad[0]!r}, which the repository does not have")
    return [chosen, *shards]


def data_files(
    names: Collection[str],
    reference: Reference | Place,
    where: str,
    *,
    beside: bool,
    read: Callable[[str], bytes] | None = None,
) -> list[str]:
    """Return the files of a repository that data are read from; JobError NotFound where there are none.

    Parameters
    ----------
    names
        Of the whole repository.
    reference
        What the source names: a file, a folder, a pattern whose signs stay within a part of the path, or what the data set's
        card calls a config, with all of its splits.
    where
        What messages start with.
    beside
        Whether the file is a table that names others, which lie in its folder.
    read
        Gives the content of a small file of a repository that has a card; None of an object store, which knows no configs.
    """
    path = reference.path
    usable = [name for name in names if PurePosixPath(name).suffix.lower() not in _CODE and not _is_hidden(name)]
    if path in usable:
        found = [path]
        if beside:
            parent = str(PurePosixPath(path).parent)
            found = usable if parent == "." else [name for name in usable if name.startswith(f"{parent}/")]
    elif reference.is_pattern:
        patterns = {f"/{one}" for one in expanded(path, where)}
        if any(sign in part for one in patterns for part in PurePosixPath(one).parts[:-1] for sign in "*?["):
            raise JobError(
                "InvalidData", f"{where}: signs of a pattern (*, ?, [) stand in the file's name alone, not in folders"
            )
        plain = {one for one in patterns if not any(sign in one for sign in "*?[")}
        likes = patterns - plain
        found = [
            name
            for name in usable
            if f"/{name}" in plain or any(PurePosixPath(f"/{name}").match(like) for like in likes)
        ]
    elif read and (
        config := config_of(usable, lambda: read(CARD).decode(errors="replace") if CARD in names else "", path, where)
    ):
        found = [name for files in config[0].splits.values() for name in files] + [CARD] * (CARD in names)
    else:
        found = [name for name in usable if not path or name.startswith(f"{path}/")]
    if not found:
        near = get_close_matches(path, usable, n=3, cutoff=0.5) or sorted(usable)
        what = "is not among its files" if path else "has no files of data"
        raise JobError("NotFound", f"{where}: {path or 'the data set'} {what}; there are {some_of(near)}")
    return sorted(set(found))


def config_of(names: Collection[str], card: Callable[[], str], path: str, where: str) -> tuple[Config, str] | None:
    """Return the config that a source names, and the split if it names one; None where it names files or folders of files.

    Parameters
    ----------
    names
        Files of the repository.
    card
        Gives the content of its README.md.
    path, where
        What the source names below the repository, and what messages start with.
    """
    tables = [name for name in names if lies_as_table(name)]
    inside = [name for name in names if not path or name.startswith(f"{path}/")]
    media = sum(PurePosixPath(name).suffix.lower() in _MEDIA for name in inside)
    if not tables or media:  # pictures and clips lie in folders, or beside the table that names them
        return None
    return find_config(names, card(), path, where)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)
