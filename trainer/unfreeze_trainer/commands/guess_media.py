"""Tasks of pictures, clips and texts side by side, which a table is taken for where somebody asks or its columns say so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from unfreeze_trainer.commands.facts import Facts, Look
from unfreeze_trainer.commands.guessed import Guess, beside, looking, most_usual
from unfreeze_trainer.commands.hints import of_several_texts
from unfreeze_trainer.commands.labels import TEXT_NAMES, has_label
from unfreeze_trainer.errors import JobError, quoted

_SAID = frozenset({"text", "transcript", "transcription", "sentence", "caption"})
"""Of columns of what is said in clips."""
_LOOKS: Mapping[str, Look] = {"image": "picture", "audio": "audio"}
_CALLED = {"image": "the picture", "audio": "the clip"}


def _files_of(facts: Mapping[str, Facts], given: Mapping[str, str], field: str) -> tuple[Facts | None, list[str]]:
    """Return the column of pictures or clips, and what is said of others that could be it."""
    if field in given:
        return facts[given[field]], []
    found = looking(facts, _LOOKS[field])
    return (found[0], beside(found[0], found, _CALLED[field], field)) if found else (None, [])


def _text_of(
    facts: Mapping[str, Facts], given: Mapping[str, str], names: Sequence[str], taken: Collection[str]
) -> tuple[Facts | None, list[str]]:
    """Return the column of texts, those with the most usual names first, and what is said of others that could be it."""
    if "text" in given:
        return facts[given["text"]], []
    found = [one for one in looking(facts, "text") if one.name not in taken]
    if not found and not looking(facts, "words"):  # short ones look like labels, and lists of texts are these
        found = [one for one in looking(facts, "category", "id") if one.name not in taken]
        found = [one for one in found if not (one.is_named_id or one.is_whole)]
    chosen = most_usual(found, names) if found else None
    return chosen, beside(chosen, found, "the text", "text") if chosen else []


def of_agreement(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return what belongs together across modalities, where it is asked for: all columns that one can be read of."""
    if task != "Alignment":
        return None
    found, said = dict[str, Facts | None](), list[str]()
    for name in _LOOKS:
        found[name], more = _files_of(facts, given, name)
        said += more
    taken = [one.name for one in found.values() if one]
    found["text"], more = _text_of(facts, given, ("caption", *TEXT_NAMES), taken)
    columns = {name: one.name for name in ("image", "text", "audio") if (one := found[name])}
    if len(columns) > 1:
        return Guess("Alignment", columns, said=said + more)
    names = ", ".join(map(repr, facts))
    message = (
        f"{where}: Alignment learns what belongs together of pictures, texts and clips, and {'one' if columns else 'no'} column looks like"
        f" any. The columns are {quoted(names)}; name the right ones by --column, image=NAME, text=NAME or audio=NAME"
        f"{of_several_texts(facts)}"
    )
    raise JobError("InvalidData", message)


def of_descriptions(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return captioning, where it is asked for: pictures, or clips where there are none, with what is said of them or asked and answered."""
    if task != "Captioning":
        return None
    kinds = [name for name in _LOOKS if name in given] or [
        name for name, look in _LOOKS.items() if looking(facts, look)
    ]
    names = quoted(", ".join(map(repr, facts)))
    if len(kinds) > 1 and given.keys() & _LOOKS.keys():
        raise JobError(
            "InvalidJob", "--column: Captioning has one encoder, of pictures or of clips: name image or audio"
        )
    if not kinds:
        raise JobError(
            "InvalidData",
            f"{where}: Captioning learns what is said of pictures or clips, and no column looks like such. The columns are {names}; name the"
            " right one by --column image=NAME or audio=NAME",
        )
    kind = kinds[0]
    seen, said = _files_of(facts, given, kind)
    assert seen
    asks = given.get("prompt") or ("prompt" if "prompt" in facts.keys() - {*given.values()} else "")
    text, more = _text_of(facts, given, ("caption", "answer", *TEXT_NAMES), {seen.name, asks})
    if not text:
        raise JobError(
            "InvalidData",
            f"{where}: Captioning learns what is said of pictures or clips, and no column looks like text. The columns are {names}; name the"
            f" right one by --column text=NAME{of_several_texts(facts)}",
        )
    columns = {kind: seen.name, "text": text.name}
    found = Guess("Captioning", columns, said=said + more)
    if asks:
        found.columns["prompt"], found.options = asks, {"annotation": "Answers"}
        if "prompt" not in given:
            found.said.append(
                f"column {asks!r} was taken for what is asked of each {'picture' if kind == 'image' else 'clip'}, and"
                f" {columns['text']!r} for the answer; to learn the texts without it remove columns.prompt and annotation: Answers"
            )
    if len(kinds) > 1:
        found.said.append(
            "the table has clips too, which are not read: Captioning has one encoder; to describe them use --column audio=NAME"
        )
    return found


def of_speech(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return speech recognition, where clips stand beside a text that is no label, or it is asked for."""
    if task not in (None, "SpeechRecognition") or {"label", "value", "image"} & given.keys():
        return None
    clip, more = _files_of(facts, given, "audio")
    if not clip:
        return None
    said = [one for one in facts.values() if set(one.words) & _SAID and one is not clip]
    if "text" in given:
        said = [facts[given["text"]]]
    elif task:
        said = said or [one for one in looking(facts, "text") if one is not clip]
    else:
        said = [] if has_label(facts) else [one for one in said if one.look == "text"]
    if said:
        text = most_usual(said, TEXT_NAMES)
        more += beside(text, [one for one in said if one.look == "text"], "what is said", "text")
        found = Guess("SpeechRecognition", {"audio": clip.name, "text": text.name}, said=more)
        if not task and "text" not in given:
            what = f"column {found.columns['text']!r} was taken for what is said in the clips"
            described = "; where it describes them, --task Captioning" if "caption" in text.words else ""
            found.said.append(f"{what}; to tell their labels use --task AudioClassification{described}")
        return found
    if task is None:
        return None
    names = ", ".join(map(repr, facts))
    raise JobError(
        "InvalidData",
        f"{where}: SpeechRecognition learns to write what is said in clips, and no column is called 'text'. The columns are"
        f" {quoted(names)}; name the right one by --column text=NAME",
    )


def of_captions(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return image and text, where it is asked for, or a picture and its text are named."""
    if task not in (None, "ImageText") or (task is None and not {"image", "text"} <= given.keys()):
        return None
    picture, said = _files_of(facts, given, "image")
    text, more = _text_of(facts, given, ("caption", *TEXT_NAMES), {picture.name} if picture else ())
    if picture and text:
        return Guess("ImageText", {"image": picture.name, "text": text.name}, said=said + more)
    missing, names = "text" if picture else "image", ", ".join(map(repr, facts))
    raise JobError(
        "InvalidData",
        f"{where}: ImageText learns which pictures and texts belong together, and no column looks like {missing}. The columns are"
        f" {quoted(names)}; name the right one by --column {missing}=NAME{of_several_texts(facts)}",
    )
