"""What the card of a data set says: its configs, the files of their splits, the names of its labels. Pure.

A card is the README.md of a repository; it begins with YAML between two lines of `---`. Repositories without `configs` have one
config, with splits by the names of their files, as the hub's viewer and the library `datasets` find them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

import yaml

from unfreeze_trainer.data.split_names import SPLIT_WORDS
from unfreeze_trainer.data.suffixes import is_table, lies_as_table
from unfreeze_trainer.errors import JobError, quoted, some_of

CARD = "README.md"
MAX_BYTES = 1 << 20
"""Of the YAML that is read."""
_MAX_TEXT = 1024
"""Characters of a name or a pattern."""
_MAX_PATTERNS = 10_000
_MAX_DEEP, _MAX_MIXED = 2, 3
"""`**` of a pattern, and stars of a part of it that has `**` and more: what is tried grows with a power of them."""
_MAX_DEPTH = 4
"""Of a class label within lists of a feature."""
DEFAULT = "default"
"""What the only config is called where the card names none."""
_SHARDED = re.compile(r"(?P<split>\w+(\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_APART = "-._ 0-9"
_NOTHING = (None, "", "null", "~")
_TRUE = ("true", "True", "TRUE")
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Config:
    """A part of a data set that is used by itself."""

    name: str
    splits: Mapping[str, Sequence[str]]
    """Files of each split, by path below the repository's root, in order."""
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What the whole numbers of a column stand for."""


def find_config(names: Collection[str], card: str, path: str, where: str) -> tuple[Config, str] | None:
    """Return the config that a source names, and the split, empty where it names none; None where it names no config.

    Parameters
    ----------
    names
        Files of the repository.
    card
        Content of its README.md; empty where it has none.
    path
        What the source names below the repository: nothing, CONFIG, CONFIG/SPLIT, or a folder of tables.
    where
        What messages start with.

    Raises
    ------
    JobError
        InvalidData: several configs, of which the source names none; a card that is broken, or names no files.
    """
    tables = sorted(name for name in names if is_table(name))
    said = _front(card, where) if "configs" in card or "class_label" in card else {}
    configs = _list(said.get("configs"))
    named = {_text(config.get("config_name", DEFAULT), where): config for config in configs if isinstance(config, dict)}
    wanted, _, split = path.partition("/")
    if not path and named:
        wanted = _only(named, where)
    if wanted in named:
        found = Config(wanted, _of_config(named[wanted], tables, where), _label_names(said, wanted))
    else:
        below = [name for name in tables if lies_as_table(name) and (not path or name.startswith(f"{path}/"))]
        if not below:
            if named and tables and path not in names and not any(name.startswith(f"{path}/") for name in names):
                raise _no_config(path, named, where)
            return None
        split = ""
        found = Config(DEFAULT, splits_by_name(below, path), _label_names(said, PurePosixPath(path).name or DEFAULT))
    if split and split not in found.splits:
        raise _no_split(split, found, where)
    return found, split


def files_of(config: Config, split: str, role: str, where: str) -> list[str]:
    """Return the files of a split.

    Parameters
    ----------
    config, split
        What a source names; the split may be empty.
    role
        What the job needs: train, validation or test.
    where
        What messages start with.

    Raises
    ------
    JobError
        InvalidData: there is no such split.
    """
    if not split:
        split = role if role in config.splits else _meant(config, role)
    if split not in config.splits:
        raise _no_split(split or role, config, where)
    return list(config.splits[split])


def _meant(config: Config, role: str) -> str:
    """Return the one split whose name is a word for a role; empty where there is none, or several."""
    found = [name for name in config.splits if SPLIT_WORDS.get(name.lower()) == role]
    return found[0] if len(found) == 1 else ""


def splits_by_name(tables: Sequence[str], below: str) -> dict[str, list[str]]:
    """Return the splits of files whose names alone tell them; all are training data where these tell nothing.

    Parameters
    ----------
    tables
        Paths of tables.
    below
        Folder that they lie in, whose own name does not count.

    Notes
    -----
    The first of these that fits any file counts: `data/SPLIT-00000-of-00009.parquet` with any name of a split; a folder with the
    split's word in its name; a file with it. Files that do not fit are no part of the data then.
    """
    start = len(below) + 1 if below else 0
    root = "data/" if not below else ""
    found: dict[str, list[str]] = {}
    for name in tables:
        inner = name[start:]
        if inner.startswith(root) and (sharded := _SHARDED.fullmatch(inner.removeprefix(root))):
            found.setdefault(sharded["split"], []).append(name)
    for of_folder in (True, False):
        if found:
            break
        for name in tables:
            parts = PurePosixPath(name[start:]).parts
            if split := _keyword(parts[:-1] if of_folder else parts[-1:]):
                found.setdefault(split, []).append(name)
    return found or {"train": list(tables)}


def _keyword(parts: Sequence[str]) -> str:
    for part in parts:
        for word, split in SPLIT_WORDS.items():
            if re.search(rf"(^|[{_APART}]){word}($|[{_APART}])", part):
                return split
    return ""


def _front(card: str, where: str) -> Mapping[str, Any]:
    """Return the YAML of a card."""
    found = _FRONT.match(card)
    if not found or len(found[1]) > MAX_BYTES:
        return {}
    try:
        said = yaml.load(found[1], yaml.BaseLoader)  # noqa: S506 - it makes texts, lists and dictionaries: a label may be called no
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise JobError(
            "InvalidData",
            f"{where}: the YAML of its {CARD} is broken: {' '.join(str(error).split())[:200]}. Name a file, or a pattern of"
            " files, in place of the data set",
        ) from error
    return said if isinstance(said, dict) else {}


def _text(value: Any, where: str) -> str:
    """Return a name or a pattern; JobError for anything else, which may be endless: what YAML calls an alias stands for all of it."""
    if isinstance(value, str) and len(value) <= _MAX_TEXT:
        return value
    what = f"of {len(value):,} characters" if isinstance(value, str) else "that is no text"
    raise JobError(
        "InvalidData",
        f"{where}: its {CARD} has a config with a name or pattern {what}; at most {_MAX_TEXT} characters are read. Name a"
        " file, or a pattern of files, in place of the data set",
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value in _NOTHING else [value]


def _only(named: Mapping[str, Any], where: str) -> str:
    """Return the config that is meant where none is named."""
    chosen = [name for name, config in named.items() if config.get("default") in _TRUE] or list(named)
    if len(chosen) == 1 or DEFAULT in chosen:
        return chosen[0] if len(chosen) == 1 else DEFAULT
    source = where.rpartition(" ")[2]
    raise JobError(
        "InvalidData",
        f"{where}: the data set has {len(named)} configs, {some_of(list(named), 20)}: name one, as in {source}/{chosen[0]}",
    )


def _no_config(path: str, named: Mapping[str, Any], where: str) -> JobError:
    near = get_close_matches(path.partition("/")[0], named, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return JobError(
        "NotFound",
        f"{where}: {path} is neither a file, nor a folder, nor a config{hint} Its configs are {some_of(list(named), 20)}",
    )


def _no_split(split: str, config: Config, where: str) -> JobError:
    return JobError(
        "InvalidData",
        f"{where}: the config {config.name!r} has no split {split!r}; it has {some_of(list(config.splits), 20)}: name one,"
        f" as CONFIG/SPLIT, or files by a pattern",
    )


def _of_config(config: Mapping[str, Any], tables: Sequence[str], where: str) -> dict[str, list[str]]:
    """Return the splits of a config as the card has it."""
    folder = _text(config.get("data_dir") or "", where).strip("./")
    data_files = config.get("data_files")
    if data_files in _NOTHING:
        below = [name for name in tables if not folder or name.startswith(f"{folder}/")]
        return splits_by_name(below, folder) if below else {}
    found: dict[str, list[str]] = {}
    for number, (named, pattern) in enumerate(_patterns(data_files)):
        if number == _MAX_PATTERNS:
            raise JobError(
                "InvalidData", f"{where}: its {CARD} has a config of more than {_MAX_PATTERNS:,} patterns; use *"
            )
        split, whole = _text(named, where), f"{folder}/" * bool(folder) + _text(pattern, where)
        matches = _glob(whole.removeprefix("./"), where)
        files = [name for name in tables if matches.fullmatch(name)]
        if not files:
            raise JobError(
                "InvalidData",
                f"{where}: {CARD} says that the split {split!r} of the config {config.get('config_name', DEFAULT)!r} lies in"
                f" {whole}, and no table is called so; there are {some_of(tables)}",
            )
        found.setdefault(split, []).extend(name for name in files if name not in found.get(split, ()))
    return found


def _patterns(data_files: Any) -> Iterator[tuple[Any, Any]]:
    """Yield split and pattern of what stands in `data_files`: a pattern, several, or some for each split."""
    for one in _list(data_files):
        if isinstance(one, dict) and "path" in one:
            yield from ((one.get("split", "train"), pattern) for pattern in _list(one["path"]))
        elif isinstance(one, dict):
            for split, patterns in one.items():
                yield from ((split, pattern) for pattern in _list(patterns))
        else:
            yield "train", one


def _glob(pattern: str, where: str) -> re.Pattern[str]:
    """Return a pattern of paths as a regular expression: `*` stays within a part, `**` does not; a folder is all below it."""
    parts = pattern.rstrip("/").split("/")
    mixed = [part for part in parts if "**" in part and part != "**"]
    if pattern.count("**") > _MAX_DEEP or any(part.count("*") > _MAX_MIXED for part in mixed):
        raise _bad_pattern(pattern, "it has ** too often", where)
    try:
        text = "".join("(?:.*/)?" if part == "**" else f"{_of_part(part)}/" for part in parts[:-1])
        last = ".*" if parts[-1] == "**" else _of_part(parts[-1])
        return re.compile(f"{text}{last}(?:/.*)?", re.DOTALL)
    except re.error as error:
        raise _bad_pattern(pattern, str(error), where) from error


def _bad_pattern(pattern: str, why: str, where: str) -> JobError:
    return JobError(
        "InvalidData",
        f"{where}: its {CARD} has a pattern of files that is not read, {quoted(pattern[:120])}: {why}. Name a file, or a"
        " pattern of files, in place of the data set",
    )


def _of_part(part: str) -> str:
    """Return a part of a pattern, between two slashes, as a regular expression.

    What stands between two `*` is taken at its first place, and no other one is tried: if the rest fits behind a later one, it
    fits behind this one.
    """
    pieces = [""]
    for sign in re.findall(r"\*\*|\*|\?|\[[^\]]+\]|.", part, re.DOTALL):
        if sign == "*" and "**" not in part:
            pieces.append("")
        elif len(sign) > 1 and sign != "**":
            inner = re.sub(r"([\\\[&|~])", r"\\\1", sign[1:-1])
            pieces[-1] += f"(?!/)[{'^' + inner[1:] if inner[0] == '!' else inner}]"
        else:
            pieces[-1] += {"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(sign) or re.escape(sign)
    if len(pieces) == 1:
        return pieces[0]
    between = "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1] if piece)
    return f"{pieces[0]}{between}[^/]*{pieces[-1]}"


def _label_names(said: Mapping[str, Any], config: str) -> dict[str, list[str]]:
    """Return what the numbers of columns stand for, by `dataset_info` of a card."""
    infos = [info for info in _list(said.get("dataset_info")) if isinstance(info, dict)]
    alone = infos[0] if len(infos) == 1 and ("config_name" not in infos[0] or not said.get("configs")) else {}
    info = next((one for one in infos if one.get("config_name", DEFAULT) == config), alone)
    found, left = {}, MAX_BYTES  # a card has no more names than characters, but for its aliases
    for one in _list(info.get("features")):
        if isinstance(one, dict) and isinstance(one.get("name"), str) and (names := _names_in(one)):
            left -= len(names)
            if left < 0:
                break
            found[one["name"]] = names
    return found


def _names_in(feature: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Return the names of a feature that is a class label, or a list of such; none where a number lacks one."""
    for key in ("dtype", "sequence", "list", "feature"):
        inner = feature.get(key)
        if isinstance(inner, dict):
            label = inner.get("class_label")
            names = label.get("names") if isinstance(label, dict) else None
            if isinstance(names, dict):
                names = [names.get(str(number)) for number in range(len(names))]
            if isinstance(names, list):
                return list(names) if all(isinstance(name, str) for name in names) else []
            if depth < _MAX_DEPTH and (found := _names_in(inner, depth + 1)):
                return found
    return []


def names_in_features(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what the numbers of columns stand for, by the features that `datasets` writes into a file."""
    found = {}
    for name, feature in features.items():
        inner = feature
        while isinstance(inner, dict) and inner.get("_type") in ("Sequence", "List", "LargeList"):
            inner = inner.get("feature")
        if isinstance(inner, list) and inner:
            inner = inner[0]
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            found[name] = [str(one) for one in inner["names"]]
    return found
