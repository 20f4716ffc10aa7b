"""What to do about tables in forms that are usual elsewhere and that no task reads as they are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from unfreeze_trainer.commands.facts import Facts
from unfreeze_trainer.data.clips import SUFFIXES as CLIP_SUFFIXES
from unfreeze_trainer.data.columns import NO_HEADER, reads_like_a_row
from unfreeze_trainer.data.dialogues import OTHERS, ROLES
from unfreeze_trainer.data.samples import SEVERAL_TEXTS
from unfreeze_trainer.errors import JobError, quoted, some_of

_FORMS = (
    (re.compile(r".*[%$€£¥].*"), "signs of percent or money: write the numbers alone"),
    (
        re.compile(r"\s*[+-]?[0-9]{1,3}((,[0-9]{3})+\.[0-9]*|(,[0-9]{3}){2,})\s*"),
        "commas between thousands: write them without",
    ),
    (re.compile(r"\s*[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+\s*"), "a decimal comma: write a point (1.5)"),
)
_UNREAD = re.compile(r".*(\.(?:3gp|aac|aif|aiff|amr|caf|m4a|mp4|webm|wma))", re.IGNORECASE)
"""Names of clips in formats that are not read."""
_TRANSCRIPTS = re.compile(r".*\.trans\.txt|(.*[_.-])?(transcripts?|prompts)([_.-].*)?\.(txt|tsv)", re.IGNORECASE)
_TEXTS = (".txt", ".lab", ".trn")
"""Of what is said in a clip, in a file that is called like it."""
_LOOKED_FOLDERS = 64
_LOOKED_ENTRIES = 1000
_PIXEL = re.compile(r"[0-9]{1,3}(\.0)?")
_PIXELS = re.compile(r"\s*[0-9]{1,3}(\s+[0-9]{1,3}){63,}\s*")
"""As many as a picture of 8 x 8 has, at least."""
_FEWEST_PIXELS = 64
_ROWS = 9
"""That tell whether numbers are pixels."""
_PARTS = frozenset(
    {
        "start",
        "end",
        "begin",
        "offset",
        "onset",
        "duration",
        "start_time",
        "end_time",
        "xmin",
        "ymin",
        "xmax",
        "ymax",
        "bbox",
    }
)
_CHOICES = ("choices", "options", "endings")
_FEWEST_CHOICES = 4
_NUMBER = re.compile(r"\s*[$€£¥]?\s*[+-]?[0-9.,]+\s*[%$€£¥]?\s*")
_TAG = re.compile(r"O|[BIESLU]-\S+")
_IN_ANGLES = re.compile(r"\s*(<[^<>]+>)+\s*")
_WRITTEN = frozenset(
    {
        "summary",
        "highlights",
        "abstract",
        "headline",
        "title",
        "answer",
        "target",
        "output",
        "response",
        "completion",
        "label",
    }
)
"""Of columns of texts that are rather written than read."""
_SPAN = 3
"""Start, end and label."""


def hints(facts: Mapping[str, Facts]) -> str:
    """Return what to do about columns of some usual forms, empty if none is there; it begins with a full stop."""
    return "".join(f". {line}" for line in _of_table(facts))


def ways(facts: Mapping[str, Facts]) -> str:
    """Return which tasks learn what texts, or texts beside pictures, hold, empty if none is there; it begins with a full stop."""
    found = [one for one in facts.values() if one.look == "text"]
    texts = [quoted(shlex.quote(one.name)) for one in sorted(found, key=lambda one: not _WRITTEN.isdisjoint(one.words))]
    if texts and any(one.look == "picture" for one in facts.values()):
        return f". What pictures show is learned by --task Captioning, --task ImageText or --task Alignment, with --column text={texts[0]}"
    if len(texts) > 1:
        return (
            f". To learn to write one text from another say --task Seq2SeqLM --column source={texts[0]} --column target={texts[1]}, or of a model that"
            f" goes on with texts --task CausalLM --column prompt={texts[0]} --column completion={texts[1]}"
        )
    return f". To learn to go on with texts say --task CausalLM --column text={texts[0]}" if texts else ""


def of_first_row(facts: Mapping[str, Facts]) -> str:
    """Return what to do where the names of columns read like a row, and so no header stands in the file; begins as `hints` does."""
    return f". {NO_HEADER}" if reads_like_a_row(list(facts)) else ""


def require_no_pixels(facts: Mapping[str, Facts], where: str) -> None:
    """Raise JobError InvalidData where cells, or rows, are the pixels of pictures as numbers."""
    first = {name: one.values[:_ROWS] for name, one in facts.items() if one.values}
    cells = [name for name, values in first.items() if all(map(_PIXELS.fullmatch, values))]
    columns = [name for name, values in first.items() if all(map(_PIXEL.fullmatch, values))]
    flags = {value for name in columns for value in first[name]} <= {"0", "1"}
    others = any(one.look in ("text", "picture", "audio") for name, one in facts.items() if name not in columns)
    if cells or (len(columns) >= _FEWEST_PIXELS and not (flags or others)):
        said = f"column {quoted(repr(cells[0]))} holds" if cells else f"columns {quoted(some_of(columns, 3))} hold"
        raise JobError("InvalidData", f"{where}: {said} pixels as numbers: write pictures (docs/conversions.md)")


def of_parts(facts: Mapping[str, Facts], what: str) -> list[str]:
    """Return what is said of columns that tell which part of a picture or clip, as `what` calls it, a row is of: all of it is read."""
    names = [repr(name) for name in facts if name.lower() in _PARTS]
    return [
        f"columns {some_of(names)} say which part of {what} a row is of, and are not read: where parts are meant, write a file for each"
    ] * (len(names) > 1)


def require_no_choices(facts: Mapping[str, Facts], where: str) -> None:
    """Raise JobError InvalidData where a question stands beside answers to choose from: the place of the right one is no label of the question."""
    listed = [
        name for name, one in facts.items() if name.lower() in _CHOICES and one.look in ("words", "list", "object")
    ]
    lettered = [name for name in facts if re.fullmatch(r"(option[ _]?)?[a-dA-D]", name)]
    asked = any({"question", "answer", "correct"} & {*one.words} for one in facts.values())
    if listed or (asked and len(lettered) >= _FEWEST_CHOICES):
        raise JobError(
            "InvalidData",
            f"{where}: columns {quoted(some_of([repr(name) for name in listed or lettered]))} hold answers to choose from, which no task reads so: write"
            " them into the prompt, and the right one as completion, for CausalLM (docs/conversions.md)",
        )


def require_dialogues(label: Facts, where: str) -> None:
    """Raise JobError InvalidData where a column that was taken for labels says who speaks: rows are single messages of dialogues."""
    if {value.strip().lower() for value in label.counts} <= {*ROLES, *OTHERS}:
        raise JobError(
            "InvalidData",
            f"{where}: column {quoted(repr(label.name))} says who speaks, and each row is one message: CausalLM reads a row for each dialogue, with a"
            f" list of its messages or prompt and completion (docs/conversions.md). To learn who speaks say --column label={quoted(label.name)}",
        )


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
    if found := next(filter(None, map(_transcript_in, within)), None):
        raise JobError(
            "InvalidData",
            f"{folder}: what is said in its clips stands in files like {quoted(str(found.relative_to(folder)))}, as in LibriSpeech, which are"
            " not read: write a table with a row for each clip, its path as audio and its text as text, and name that (docs/conversions.md)",
        )


def _transcript_in(folder: Path) -> Path | None:
    """Return a file of a folder with what is said in clips: called so, or as one of the clips there."""
    entries = list(islice(folder.iterdir(), _LOOKED_ENTRIES))
    clips = {entry.stem for entry in entries if entry.suffix.lower() in CLIP_SUFFIXES}
    texts = (entry for entry in entries if entry.suffix.lower() in _TEXTS and entry.name.split(".")[0] in clips)
    return next((entry for entry in entries if _TRANSCRIPTS.fullmatch(entry.name)), None) or next(texts, None)


def _of_table(facts: Mapping[str, Facts]) -> Iterator[str]:
    for one in facts.values():
        if said := _of_lists(one):
            yield said
        elif one.look == "words" and "answer" in one.name.lower():
            yield f"Column {quoted(repr(one.name))} holds {SEVERAL_TEXTS}"
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
    if {"pos", "neg"} <= facts.keys():
        yield (
            "Columns 'pos' and 'neg' hold texts that belong to another one and others that do not: TextEmbedding reads a row for each, with anchor,"
            " positive and negative (docs/conversions.md)"
        )
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
            " 'from' as role (human as user, gpt as assistant) and 'value' as content (docs/conversions.md)"
        )
    if items and all(
        isinstance(item, list) and len(item) == _SPAN and isinstance(item[0], int) and isinstance(item[1], int)
        for item in items
    ):
        return (
            f"Column {name} holds spans as [start, end, label]: TokenClassification reads lists of objects with start, end and"
            " label (docs/conversions.md)"
        )
    if what := _of_tags(one, items):
        return f"Column {name} holds {what} (docs/conversions.md)"
    if items and all(isinstance(item, dict) for item in items):
        return f"Column {name} holds {_of_objects(items)} (docs/conversions.md)"
    if one.look == "list" and items and all(type(item) is int for item in items) and "tag" in " ".join(one.words):
        return f"Column {name} holds tags as numbers: write their names, as B-LOC (they stand in the features of the data set)"
    return ""


def _of_tags(one: Facts, items: Sequence[object]) -> str:
    """Return what tags a column holds, and what to do about them; empty where it holds none."""
    if one.values and all(map(_IN_ANGLES.fullmatch, one.values)):
        return "labels in angle brackets, as Stack Overflow's tags: write lists of them, or commas between them, for labels: Multi"
    cells = [value.split() for value in one.counts] if one.lists is None else [[str(item)] for item in items]
    if not any("O" in cell for cell in cells) or not all(_TAG.fullmatch(tag) for cell in cells for tag in cell):
        return ""
    if one.lists is not None:
        return "a tag for each word: TokenClassification reads the words as a list too, and no text"
    what = "tags with blanks between them" if any(len(cell) > 1 for cell in cells) else "a tag of one word in each row"
    return (
        f"{what}: TokenClassification reads a row for each sentence, with a list of its words and a list of their tags"
    )


def _of_objects(items: Sequence[Mapping[str, object]]) -> str:
    """Return what lists of objects are, and what to do about them."""
    for keys, said in _OBJECTS.items():
        if all(item.keys() >= {*keys} for item in items):
            return said
    return "lists of objects, which no task reads in this form"


_OFFSETS = ("start_offset", "end_offset")
_OBJECTS = {
    ("start", "end", "labels"): "spans as Label Studio writes them: write label in place of labels, a text and no list",
    ("start", "end", "type"): "spans whose label is called type: write it as label",
    ("id", "name"): "objects with a name each: write lists of the names, for labels: Multi",
    _OFFSETS: "spans as doccano writes them: write start and end in place of start_offset and end_offset",
}
"""What lists of objects with some keys are, and what to do about them."""
