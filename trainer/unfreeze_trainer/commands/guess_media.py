"""Tasks of pictures, clips and texts side by side, which a table is taken for where somebody asks or its columns say so."""

from __future__ import annotations

from collections.abc import Mapping

from unfreeze_trainer.commands.facts import Facts, Look
from unfreeze_trainer.commands.guessed import Guess, looking, most_usual
from unfreeze_trainer.commands.hints import of_several_texts
from unfreeze_trainer.commands.labels import TEXT_NAMES, has_label
from unfreeze_trainer.errors import JobError, quoted

_SAID = frozenset({"text", "transcript", "transcription", "sentence", "caption"})
"""Of columns of what is said in clips."""


def of_agreement(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return what belongs together across modalities, where it is asked for: all columns that one can be read of."""
    if task != "Alignment":
        return None
    looks: dict[str, Look] = {"image": "picture", "audio": "audio"}
    found = {
        name: given.get(name) or next((one.name for one in looking(facts, look)), "") for name, look in looks.items()
    }
    texts = [
        one for one in looking(facts, "text") or looking(facts, "category", "id") if one.name not in found.values()
    ]
    found["text"] = given.get("text") or (most_usual(texts, ("caption", *TEXT_NAMES)).name if texts else "")
    columns = {name: found[name] for name in ("image", "text", "audio") if found[name]}
    if len(columns) > 1:
        return Guess("Alignment", columns)
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
    looks: dict[str, Look] = {"image": "picture", "audio": "audio"}
    kinds = [name for name in looks if name in given] or [name for name, look in looks.items() if looking(facts, look)]
    names = quoted(", ".join(map(repr, facts)))
    if len(kinds) > 1 and given.keys() & looks.keys():
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
    columns = {kind: given.get(kind) or looking(facts, looks[kind])[0].name}
    asks = given.get("prompt") or ("prompt" if "prompt" in facts.keys() - {*given.values()} else "")
    taken = {*columns.values(), asks}
    texts = [one for one in looking(facts, "text") or looking(facts, "category", "id") if one.name not in taken]
    if not texts and "text" not in given:
        raise JobError(
            "InvalidData",
            f"{where}: Captioning learns what is said of pictures or clips, and no column looks like text. The columns are {names}; name the"
            f" right one by --column text=NAME{of_several_texts(facts)}",
        )
    columns["text"] = given.get("text") or most_usual(texts, ("caption", "answer", *TEXT_NAMES)).name
    found = Guess("Captioning", columns)
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
    clips = [facts[given["audio"]]] if "audio" in given else looking(facts, "audio")
    if not clips:
        return None
    said = [one for one in facts.values() if set(one.words) & _SAID and one is not clips[0]]
    if "text" in given:
        said = [facts[given["text"]]]
    elif task:
        said = said or [one for one in looking(facts, "text") if one is not clips[0]]
    else:
        said = [] if has_label(facts) else [one for one in said if one.look == "text"]
    if said:
        found = Guess("SpeechRecognition", {"audio": clips[0].name, "text": most_usual(said, TEXT_NAMES).name})
        if not task and "text" not in given:
            what = f"column {found.columns['text']!r} was taken for what is said in the clips"
            found.said.append(f"{what}; to tell their labels use --task AudioClassification")
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
    pictures = [facts[given["image"]]] if "image" in given else looking(facts, "picture")
    texts = [facts[given["text"]]] if "text" in given else looking(facts, "text") or looking(facts, "category", "id")
    texts = [one for one in texts if one not in pictures]
    if pictures and texts:
        return Guess("ImageText", {"image": pictures[0].name, "text": most_usual(texts, ("caption", *TEXT_NAMES)).name})
    missing, names = "text" if pictures else "image", ", ".join(map(repr, facts))
    raise JobError(
        "InvalidData",
        f"{where}: ImageText learns which pictures and texts belong together, and no column looks like {missing}. The columns are"
        f" {quoted(names)}; name the right one by --column {missing}=NAME{of_several_texts(facts)}",
    )
