"""What to do about tables in forms that are usual elsewhere and that no task reads as they are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from unfreeze_trainer.commands.facts import Facts
from unfreeze_trainer.data.samples import SEVERAL_TEXTS
from unfreeze_trainer.errors import JobError, quoted

_FORMS = (
    (
        re.compile(r"\s*[+-]?[0-9]{1,3}((,[0-9]{3})+\.[0-9]*|(,[0-9]{3}){2,})\s*"),
        "commas between thousands: write them without",
    ),
    (re.compile(r"\s*[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+\s*"), "a decimal comma: write a point (1.5)"),
)
_UNREAD = re.compile(r".*(\.(?:3gp|aac|aif|aiff|amr|caf|m4a|mp4|webm|wma))", re.IGNORECASE)
"""Names of clips in formats that are not read."""
_TRANSCRIPTS = "*.trans.txt"
_LOOKED_FOLDERS = 64
_NUMBER = re.compile(r"\s*[+-]?[0-9.,]+\s*")
_TAG = re.compile(r"O|[BIESLU]-\S+")
_SPAN = 3
"""Start, end and label."""


def hints(facts: Mapping[str, Facts]) -> str:
    """Return what to do about columns of some usual forms, empty if none is there; it begins with a full stop."""
    return "".join(f". {line}" for line in _of_table(facts))


def ways(facts: Mapping[str, Facts]) -> str:
    """Return which tasks learn what texts, or texts beside pictures, hold, empty if none is there; it begins with a full stop."""
    texts = [quoted(shlex.quote(one.name)) for one in facts.values() if one.look == "text"]
    if texts and any(one.look == "picture" for one in facts.values()):
        return f". What pictures show is learned by --task Captioning, --task ImageText or --task Alignment, with --column text={texts[0]}"
    if len(texts) > 1:
        return f". To learn to write one text from another say --task Seq2SeqLM --column source={texts[0]} --column target={texts[1]}"
    return f". To learn to go on with texts say --task CausalLM --column text={texts[0]}" if texts else ""


def require_header(label: Facts, facts: Mapping[str, Facts], where: str) -> None:
    """Raise JobError InvalidData where a column that was taken for labels is called by one of them: no header stands in the file.

    pandas calls columns without names 0, 1, ...: a table of such names has a header.
    """
    if label.name not in label.counts or all(name.isdigit() or not name.strip() for name in facts):
        return
    raise JobError(
        "InvalidData",
        f"{where}: the header calls a column {quoted(repr(label.name))}, which also is a value of that column: most likely the file"
        f" has no header, and its first row is taken for one. Write names into a line before it, as text and label; if it is"
        f" one, say --column label={quoted(label.name)}",
    )


def require_labels(label: Facts, where: str) -> None:
    """Raise JobError InvalidData where a column that was taken for labels holds lists of lists or objects, as tools for annotation write them."""
    if said := _of_lists(label):
        raise JobError("InvalidData", f"{where}: {said}")


def of_several_texts(facts: Mapping[str, Facts]) -> str:
    """Return what to do about columns of lists of texts, as pictures with several captions have them, or of dialogues; begins as `hints` does."""
    said = []
    for name, one in facts.items():
        if one.look == "words":
            said.append(f". Column {quoted(repr(name))} holds {SEVERAL_TEXTS}")
        elif one.look == "messages" or _is_shared(one):  # as LLaVA's files have them
            what = "dialogues: Captioning learns answers, so write a row for each question, with the answer as text and it as prompt"
            said.append(f". Column {quoted(repr(name))} holds {what}")
    return "".join(said)


def _is_shared(one: Facts) -> bool:
    """Return whether a column holds messages in the form of ShareGPT."""
    items = [item for found in one.lists or [] for item in found]
    return bool(items) and all(isinstance(item, dict) and {"from", "value"} <= item.keys() for item in items)


def require_no_transcripts(folder: Path) -> None:
    """Raise JobError InvalidData where transcripts lie beside clips, as in LibriSpeech, whose folders would count as labels."""
    within = islice(folder.glob("**/"), _LOOKED_FOLDERS)
    if found := next((file for one in within for file in one.glob(_TRANSCRIPTS)), None):
        raise JobError(
            "InvalidData",
            f"{folder}: what is said in its clips stands in files like {quoted(str(found.relative_to(folder)))}, as in LibriSpeech, which are"
            " not read: write a table with a row for each clip, its path as audio and its text as text, and name that",
        )


def _of_table(facts: Mapping[str, Facts]) -> Iterator[str]:
    for one in facts.values():
        if said := _of_lists(one):
            yield said
        elif one.look == "object":
            yield (
                f"Column {quoted(repr(one.name))} holds objects: tasks read single values, so write what is needed of them into"
                " columns of their own (pandas.json_normalize does)"
            )
        elif one.values and all(names := [_UNREAD.fullmatch(value) for value in one.values]):
            ends = ", ".join(sorted({name[1].lower() for name in names if name}))
            yield (
                f"Column {quoted(repr(one.name))} names clips of a format that is not read ({ends}): write them as FLAC, WAV, OGG or MP3, with the"
                " new names in the table"
            )
        elif one.values and all(_NUMBER.fullmatch(value) for value in one.values):
            written = (what for form, what in _FORMS if any(form.fullmatch(value) for value in one.values))
            if what := next(written, ""):
                yield f"Column {quoted(repr(one.name))} holds numbers with {what}"
    if {"chosen", "rejected"} <= facts.keys():
        asked = "prompt" if "prompt" in facts else "NAME"
        yield (
            "Columns 'chosen' and 'rejected' are preferences, which no task learns: to learn the answers that were chosen say"
            f" --column prompt={asked} --column completion=chosen, or --column text=chosen --task CausalLM where they hold all of a dialogue"
        )


def _of_lists(one: Facts) -> str:
    items = [item for found in one.lists or [] for item in found]
    name = quoted(repr(one.name))
    if _is_shared(one):
        return (
            f"Column {name} holds messages in the form of ShareGPT: CausalLM reads lists of objects with role and content. Write"
            " 'from' as role (human as user, gpt as assistant) and 'value' as content"
        )
    if items and all(
        isinstance(item, list) and len(item) == _SPAN and isinstance(item[0], int) and isinstance(item[1], int)
        for item in items
    ):
        return (
            f"Column {name} holds spans as [start, end, label]: TokenClassification reads lists of objects with start, end and"
            " label"
        )
    tags = [value.split() for value in one.counts]
    if "O" in one.counts.keys() | {tag for cell in tags for tag in cell} and all(
        _TAG.fullmatch(tag) for cell in tags for tag in cell
    ):
        what = (
            "tags with blanks between them" if any(len(cell) > 1 for cell in tags) else "a tag of one word in each row"
        )
        return (
            f"Column {name} holds {what}: TokenClassification reads a row for each sentence, with a list of its words and a list of their tags"
            " (docs/conversions.md)"
        )
    if items and all(isinstance(item, dict) for item in items):
        return f"Column {name} holds lists of objects, which no task reads in this form"
    if one.look == "list" and items and all(type(item) is int for item in items) and "tag" in " ".join(one.words):
        return f"Column {name} holds tags as numbers: write their names, as B-LOC (they stand in the features of the data set)"
    return ""
