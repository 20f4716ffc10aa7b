"""What a decoder learns to go on with, in the rows of a table: dialogues, prompts with completions, or texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.few import most
from unfreeze_trainer.data.samples import DataSource, TargetKind, read_texts, readable
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Who speaks in a dialogue, in the words of chat templates."""
ANSWERING = "assistant"
"""Who of them is the model."""
OTHERS = {"human": "user", "prompter": "user", "gpt": ANSWERING, "bot": ANSWERING, "model": ANSWERING, "ai": ANSWERING}
"""What roles are called elsewhere."""
WEIGHT = "weight"
"""Of an answer: 0 has it read and not learned, as OpenAI's files say it. Others have none here."""
_KEYS = {"role", "content"}
_EMPTY: tuple[Any, ...] = ([], {}, "")
_HALF = re.compile("[\ud800-\udfff]")
"""What JSON can say (`"\\ud83d"`), and UTF-8 cannot."""
_CHUNK_ROWS = 4096
_SHOWN = 60
"""Characters of a cell that a message has."""


class RowError(ValueError):
    """What is wrong with a row, as the rest of a message that begins with its number."""


def read_dialogues(
    dataset: Dataset, where: str, *, annotation: str, kind: TargetKind, skip: bool = False, head: bool = False
) -> DataSource:
    """Read a table, or its first rows.

    Parameters
    ----------
    dataset, where
        The table, and what messages start with.
    annotation
        What a row is, in the API's word.
    kind
        Of the targets.
    skip
        Whether rows that are wrong are left out.
    head
        Read the first rows alone.

    Returns
    -------
    DataSource
        Its inputs are dialogues as JSON, structs of prompt and completion, or texts.

    Raises
    ------
    JobError
        InvalidData: a text is missing or empty; a cell is no dialogue, and what of it is wrong.
    """
    if annotation != "Messages":
        return read_texts(dataset, where, kind=kind, skip=skip, head=head, texts=kind.columns(dataset.columns))
    import pyarrow as pa

    name = dataset.columns.messages
    unread = Unread(where, skip=skip)
    table = read_table(dataset.path, [name], where, unread, head=head, kinds={name: "Nested"})
    total = table.num_rows + len(unread)
    numbers = unread.others(total)
    chunks: list[pa.Array] = []
    for start in range(0, max(1, table.num_rows), _CHUNK_ROWS):
        rows: list[str | None] = []
        cells = table[name].slice(start, _CHUNK_ROWS).to_pylist()
        for number, cell in zip(numbers[start : start + _CHUNK_ROWS].tolist(), cells, strict=True):
            try:
                rows.append(json.dumps(_dialogue(cell, name), ensure_ascii=False))
            except RowError as error:
                unread.add([number], JobError("InvalidData", f"{where}: row {number + 1}{error}"))
                rows.append(None)
        chunks.append(pa.array(rows, pa.large_string()))
    inputs = pa.chunked_array(chunks)
    return readable(DataSource(dataset, where, inputs, inputs, numbers=numbers), unread, total, head=head, kind=kind)


def without(source: DataSource, wrong: Iterable[tuple[int, str]], *, skip: bool) -> tuple[DataSource, np.ndarray]:
    """Return a source without samples of which nothing can be learned, and the indices of the others.

    Parameters
    ----------
    source
        As `read_dialogues` returned it.
    wrong
        Their indices, each with the rest of a message that begins with its row.
    skip
        Whether they are left out; otherwise the first one is raised.

    Raises
    ------
    JobError
        InvalidData: one is wrong, or more than half of all rows are.
    """
    every = np.arange(len(source.inputs))
    numbers = every if source.numbers is None else source.numbers
    unread, places = Unread(source.where, skip=skip), []
    for place, said in wrong:
        number = int(numbers[place])
        unread.add([number], JobError("InvalidData", f"{source.where}: row {number + 1}{said}"))
        places.append(place)
    if not places:
        return source, every
    unread.check(len(every) + source.left_out, before=source.left_out)
    kept = np.setdiff1d(every, places)
    inputs, targets = (most(cells, kept) for cells in (source.inputs, source.targets))
    source = replace(
        source,
        inputs=inputs,
        targets=targets,
        numbers=numbers[kept],
        left_out=source.left_out + len(places),
        broken=[*source.broken, *unread.errors],
    )
    return source, kept


def _dialogue(cell: Any, column: str) -> list[dict[str, Any]]:
    """Return a cell that is a dialogue in which the model says something."""
    if cell is None:
        raise RowError(f": no messages in column {column!r}; fill them in, or remove the row")
    listed = cell
    if isinstance(cell, str):
        with suppress(ValueError, RecursionError):
            listed = json.loads(cell)
    if not isinstance(listed, list):
        raise RowError(
            f", column {column!r} is {shown(listed)}, and no list of messages: in JSON lines and Parquet it is a list, in CSV a list"
            ' as JSON has it, like [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
        )
    if not listed:
        raise RowError(f": column {column!r} has no messages; fill them in, or remove the row")
    found = [_message(one, number, column) for number, one in enumerate(listed, 1) if not _says_nothing(one)]
    for number, (one, other) in enumerate(pairwise(found), 1):
        if one == other:
            raise RowError(
                f", column {column!r}: messages {number} and {number + 1} are the same, {shown(one['content'])} of role"
                f" {one['role']}: remove one of them"
            )
    if all(one["role"] != ANSWERING for one in found):
        roles = ", ".join(dict.fromkeys(one["role"] for one in found))
        raise RowError(
            f", column {column!r}: no message is of role {ANSWERING}, so there is nothing to learn; roles are {roles}"
        )
    if all(one["role"] != ANSWERING or WEIGHT in one for one in found):
        raise RowError(
            f", column {column!r}: all messages of role {ANSWERING} have the weight 0: give one the weight 1, or remove the row"
        )
    return found


def _says_nothing(one: Any) -> bool:
    """Return whether a message is an instruction that is left empty, as tables have it that have one in each row."""
    if not isinstance(one, dict) or one.get("role") not in ("system", "developer"):
        return False
    content = one.get("content")
    return content is None or (isinstance(content, str) and not content.strip())


def _message(one: Any, number: int, column: str) -> dict[str, Any]:
    what = f", column {column!r}: message {number}"
    if not isinstance(one, dict):
        raise RowError(f"{what} is {shown(one)}, and messages are {{role, content}}")
    # Parquet has all keys in all rows, and many tables have those of tools empty in each.
    one = {key: value for key, value in one.items() if value is not None and (key in _KEYS or value not in _EMPTY)}
    if "role" not in one:
        like = " (from and value are role and content here)" if {"from", "value"} <= one.keys() else ""
        raise RowError(f"{what}, {shown(one)}, has no role{like}; roles are {', '.join(ROLES)}")
    if one["role"] not in ROLES:
        meant = OTHERS.get(str(one["role"]).lower(), str(one["role"]).lower())
        hint = f"; did you mean {meant!r}?" if meant in ROLES else "."
        raise RowError(f"{what} has the role {shown(one['role'])}{hint} Roles are {', '.join(ROLES)}")
    weight = one.pop(WEIGHT, 1) if one["role"] == ANSWERING else 1
    if weight not in (0, 1):
        raise RowError(
            f"{what} has the weight {shown(weight)}: it is 1 where the message is to be learned, and 0 where not"
        )
    if more := sorted(one.keys() - _KEYS):
        raise RowError(
            f"{what} has {', '.join(map(repr, more))} beside role and content, which is not read: remove it, or write it into content"
        )
    content = _joined(one.get("content"))
    if isinstance(content, list | dict):
        raise RowError(
            f"{what} has the content {shown(content)}: parts of other kinds than text are not read; make it one text"
        )
    if not isinstance(content, str) or not content.strip():
        raise RowError(f"{what}, of role {one['role']}, has no content; fill it in, or remove the message")
    if half := _HALF.search(content):
        raise RowError(
            f"{what} holds {half[0]!a}, half of a character in UTF-16, in {shown(content)}: no tokenizer has it; write the whole character,"
            " or remove it"
        )
    return {"role": one["role"], "content": content} | ({} if weight else {WEIGHT: 0})


def _joined(content: Any) -> Any:
    """Return a content in parts that are all texts as one text, as chat templates write it; others as they are."""
    if not isinstance(content, list) or not content:
        return content
    # Parquet has all keys in all parts.
    parts = [
        {key: value for key, value in part.items() if value is not None} for part in content if isinstance(part, dict)
    ]
    texts = [part["text"] for part in parts if part.keys() == {"type", "text"} and part["type"] == "text"]
    if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
        return content
    return "".join(texts)


def shown(value: Any) -> str:
    """Return a part of a cell for a message, marked as a quote."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    text = _HALF.sub(lambda half: ascii(half[0])[1:-1], text)
    return quoted(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "\u2026")
