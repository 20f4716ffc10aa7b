"""Which task some data are for, and which columns hold what, with what was decided and how to have it otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from unfreeze_api.tasks import TASKS
from unfreeze_trainer.commands.facts import Facts, Look
from unfreeze_trainer.commands.guess_media import of_agreement, of_captions, of_descriptions, of_speech
from unfreeze_trainer.commands.guessed import Guess, beside, looking, most_usual
from unfreeze_trainer.commands.hints import (
    hints,
    of_first_row,
    of_parts,
    require_dialogues,
    require_header,
    require_labels,
    require_no_choices,
    require_no_pixels,
    ways,
)
from unfreeze_trainer.commands.labels import (
    LABEL_NAMES,
    PAIRS,
    TEXT_NAMES,
    has_label,
    is_flag,
    is_measure,
    is_value,
    points,
    several,
)
from unfreeze_trainer.data.delimited import SEPARATED
from unfreeze_trainer.data.suffixes import suffixes
from unfreeze_trainer.data.verdicts import VERDICTS
from unfreeze_trainer.errors import JobError, quoted, some_of

_PLAUSIBLE = 2.0
"""Points of another column that people are shown."""
_DIALOGUE_NAMES = ("messages", "conversation", "conversations", "dialogue", "dialog", "chosen")
"""Of columns of messages, the most usual first; `rejected` is what nobody is to learn."""
_ANSWERS = (("prompt", "completion"), ("instruction", "output"), ("instruction", "response"), ("prompt", "response"))
_ASKED = (("question", "answer"), ("input", "output"))
"""Of columns of what is asked and what is answered; of the latter where that is asked for."""
_INPUTS = ("input", "context")
"""Of columns of what an instruction is about."""
_FLAGS = 3
"""Columns of yes and no that are rather labels of each row than what is predicted and some features."""
_MOST_NAMES = 50
"""Columns that a message names."""
_YES_OR_NO = ({"0", "1"}, {"0.0", "1.0"})
"""That a score may be of."""
_SHARED = 0.05
"""Share of two columns' values that stand in both, from which they are texts of one kind."""


def guess(
    facts: Mapping[str, Facts], where: str, given: Mapping[str, str] | None = None, task: str | None = None
) -> Guess:
    """Return what a table is for.

    Parameters
    ----------
    facts
        Of its columns.
    where
        What messages start with.
    given, task
        What somebody has said: fields of `columns` with the columns' names, and the task.

    Raises
    ------
    JobError
        InvalidData: no column is to be predicted from, or none to be predicted.
    """
    given = dict(given or {})
    _check(facts, where, given, task)
    for ask in (
        of_agreement,
        of_descriptions,
        _of_words,
        of_speech,
        of_captions,
        _of_files,
        _of_relations,
        _of_sequences,
        _of_dialogues,
        _of_texts,
    ):
        if found := ask(facts, given, task, where):
            found.columns |= given
            return found
    raise JobError("InvalidData", f"{where}: {_nothing(facts)}")


def _check(facts: Mapping[str, Facts], where: str, given: Mapping[str, str], task: str | None) -> None:
    from unfreeze_trainer.data.columns import check_columns

    names = [task.name for task in TASKS]
    if task and task not in names:
        raise JobError("InvalidJob", f"no task is called {task!r}: tasks are {', '.join(names)}")
    known = list(dict.fromkeys(column.name for task in TASKS for column in task.reads))
    if unknown := [name for name in given if name not in known]:
        raise JobError("InvalidJob", f"columns have no field {unknown[0]!r}: fields are {', '.join(known)}")
    check_columns(list(given.values()), list(facts), where)
    if not given:
        require_no_pixels(facts, where)
        require_no_choices(facts, where)


def _of_words(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:  # noqa: ARG001
    """Return token classification, where there are lists of words and tags, or texts and spans."""
    if task not in (None, "TokenClassification") or {"label", "value", "image", "audio"} & given.keys():
        return None
    spans, lists = looking(facts, "spans"), looking(facts, "words")
    texts = looking(facts, "text")
    if spans and texts:
        text = most_usual(texts, TEXT_NAMES)
        return Guess("TokenClassification", {"text": text.name, "spans": spans[0].name}, {"annotation": "Spans"})
    for words in lists:
        for tags in lists:
            if tags is not words and _are_tags(words, tags):
                more = [one.name for one in lists if one not in (words, tags) and _are_tags(words, one)]
                said = (
                    [
                        f"column {tags.name!r} was taken for the tags; {some_of(more)} could be them too: --column tags={more[0]}"
                    ]
                    if more
                    else []
                )
                return Guess("TokenClassification", {"tokens": words.name, "tags": tags.name}, {}, said)
    return None


def _are_tags(words: Facts, tags: Facts) -> bool:
    """Return whether one list has a tag for each word of another: as many, and far fewer different ones."""
    one, other = words.lists or [], tags.lists or []
    if len(one) != len(other) or sum(len(a) == len(b) for a, b in zip(one, other, strict=True)) < 0.9 * len(one):
        return False
    return len({tag for row in other for tag in row}) < len({word for row in one for word in row})


def _of_files(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return the classification of pictures or clips, where a column holds some."""
    kinds: tuple[tuple[Look, str, str], ...] = (
        ("picture", "image", "ImageClassification"),
        ("audio", "audio", "AudioClassification"),
    )
    for look, column, name in kinds:
        held = [facts[given[column]]] if column in given else looking(facts, look)
        if task not in (None, name) or not held or {"text", "tokens"} & given.keys():
            continue
        what = "the picture" if column == "image" else "the clip"
        said = [*beside(held[0], held, what, column), *of_parts(facts, what)]
        found = Guess(name, {column: held[0].name}, said=said)
        _add_labels(found, facts, given, task, where)
        return found
    return None


def _of_relations(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return text embedding, where it is asked for, or columns are called anchor and positive as in sentence-transformers."""
    if task not in (None, "TextEmbedding"):
        return None
    fields = ("anchor", "positive", "negative", "score", "label")
    columns = {name: given.get(name, name) for name in fields if given.get(name, name) in facts}
    if task and ("anchor" not in columns or columns.keys().isdisjoint({"positive", "label"})):
        missing = "positive" if "anchor" in columns else "anchor"
        raise JobError(
            "InvalidData",
            f"{where}: TextEmbedding compares texts, and no column is called {missing!r}. The columns are {quoted(', '.join(map(repr, facts)))}; name"
            f" the right ones by --column anchor=NAME --column positive=NAME, and score=NAME or negative=NAME where there are some{hints(facts)}",
        )
    if "anchor" not in columns or (
        task is None and not {"anchor", "positive"} & given.keys() and "positive" not in columns
    ):
        return None
    reads: tuple[str, ...]
    columns = _with_yes_or_no(columns, facts)
    if "positive" not in columns:
        reads, annotation = ("anchor", "label"), "Labels"
    elif "score" in given or ("score" in columns and facts[columns["score"]].look in ("number", "whole number")):
        reads, annotation = ("anchor", "positive", "score"), "Scores"
    else:
        reads, annotation = ("anchor", "positive", "negative"), "Pairs"
    if "label" in reads and "label" not in columns:
        return None
    found = Guess(
        "TextEmbedding", {name: columns[name] for name in reads if name in columns}, {"annotation": annotation}
    )
    if annotation == "Scores":
        _add_scores(found, facts[columns["score"]])
    if left := [name for name in facts if name.startswith("negative") and name not in found.columns.values()]:
        found.said.append(
            f"column {some_of([repr(name) for name in left])} is not read: one column of negatives is, which --column negative=NAME names"
        )
    if task is None:
        found.said.append(
            f"columns {' and '.join(map(repr, found.columns.values()))} were taken for texts that belong together; to predict"
            " something from them use --task"
        )
    return found


def _of_sequences(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return sequence-to-sequence language modelling, where columns called source and target hold texts, or it is asked for."""
    if task not in (None, "Seq2SeqLM") or {"label", "value", "text"} & given.keys():
        return None
    columns = {name: given.get(name, name) for name in ("source", "target") if given.get(name, name) in facts}
    if len(columns) == 2 and (  # noqa: PLR2004 - both
        task or columns.keys() <= given.keys() or all(facts[name].look == "text" for name in columns.values())
    ):
        return Guess("Seq2SeqLM", columns)
    if task is None:
        return None
    missing = next(name for name in ("source", "target") if name not in columns)
    names = ", ".join(map(repr, facts))
    raise JobError(
        "InvalidData",
        f"{where}: Seq2SeqLM learns to make a target of a source, and no column is called {missing!r}. The columns are {quoted(names)};"
        f" name the right one by --column {missing}=NAME{hints(facts) or ways(facts)}",
    )


def _of_dialogues(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return causal language modelling, where there are messages, or columns called prompt and completion, or it is asked for."""
    if task not in (None, "CausalLM") or {"label", "value"} & given.keys():
        return None
    texts, dialogues = looking(facts, "text"), looking(facts, "messages")
    if "messages" in given or dialogues:
        chosen = facts[given["messages"]] if "messages" in given else most_usual(dialogues, _DIALOGUE_NAMES)
        others = [one for one in dialogues if one.name != "rejected"]
        said = [] if "messages" in given else beside(chosen, others, "the dialogue", "messages")
        if len(others) < len(dialogues):
            said.append("column 'rejected' is not read: no task learns preferences")
        return Guess("CausalLM", {"messages": chosen.name}, {"annotation": "Messages"}, said)
    if "text" not in given and (found := _of_answers(facts, given, task, where)):
        return found
    if task is None or not (texts or "text" in given):
        return None
    text = facts[given["text"]] if "text" in given else most_usual(texts, TEXT_NAMES)
    said = [] if "text" in given else beside(text, texts, "the text", "text")
    return Guess("CausalLM", {"text": text.name}, {"annotation": "Text"}, said)


def _of_answers(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return causal language modelling of answers, where two columns are called so or are named."""
    for names in (*_ANSWERS, *_ASKED * (task is not None)):
        columns = {name: given.get(name, usual) for name, usual in zip(_ANSWERS[0], names, strict=True)}
        asked, answer = columns.values()
        if not {asked, answer} <= facts.keys():
            continue
        sure = task is not None or names == _ANSWERS[0]
        if not sure and (has_label(facts) or {facts[asked].look, facts[answer].look} != {"text"}):
            continue
        said = []
        if not sure:
            said.append(
                f"columns {asked!r} and {answer!r} were taken for what is asked and answered; to predict something from them use --task"
            )
        if more := [name for name in _INPUTS if asked == "instruction" and name in facts and facts[name].values]:
            left = f"column {more[0]!r} holds what belongs into the prompt, behind the instruction"
            if "prompt" not in given:
                raise JobError(
                    "InvalidData",
                    f"{where}: {left}, and one column is read as prompt: write both into one (docs/conversions.md), or leave it out by"
                    f" --column prompt={asked} --column completion={quoted(answer)}",
                )
            said.append(f"{left}, and is not read")
        return Guess("CausalLM", columns, {"annotation": "Completions"}, said)
    return None


def _with_yes_or_no(columns: dict[str, str], facts: Mapping[str, Facts]) -> dict[str, str]:
    """Return the columns of pairs with one of 0 and 1 as the score, where there is one and no other."""
    if "positive" not in columns or "score" in columns:
        return columns
    taken = {name for field, name in columns.items() if field != "label"}
    rest = (name for name in VERDICTS if name in facts.keys() - taken)
    score = next((name for name in rest if {*facts[name].counts} in _YES_OR_NO), None)
    return columns | {"score": score} if score else columns


def _add_scores(found: Guess, scores: Facts) -> None:
    """Say how the scores of pairs are learned."""
    if _is_beyond_cosines(scores):
        found.options["loss"] = "CoSENT"
        found.said.append(
            "scores beyond 1 are no cosines: loss CoSENT learns their order; divide them to learn how large they are"
        )
    if {*scores.counts} in _YES_OR_NO:
        found.said.append(
            f"column {scores.name!r} says yes or no of each pair, and was taken as its score; to learn by contrast alone leave rows of no out, and"
            " the column (docs/conversions.md)"
        )


def _is_beyond_cosines(one: Facts) -> bool:
    for value in one.values:
        try:
            if abs(float(value)) > 1:
                return True
        except ValueError:  # whoever reads the data says so
            continue
    return False


def _of_texts(facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str) -> Guess | None:
    """Return what is said of texts: one or more labels, or a number."""
    if task not in (None, "TextClassification", "TextRegression"):
        return None
    target = {given[name] for name in ("label", "value") if name in given}
    texts = [one for one in looking(facts, "text") if one.name not in target]
    if not texts:  # short ones look like labels
        rest = [
            one
            for one in looking(facts, "category", "id")
            if one.name not in target and not set(one.words) & LABEL_NAMES and not one.is_whole
        ]
        texts = sorted(rest, key=lambda one: -len(one.counts))[:1]
    if not texts and "text" not in given:
        return None
    text = facts[given["text"]] if "text" in given else most_usual(texts, TEXT_NAMES)
    found = Guess("TextClassification", {"text": text.name})
    others = [one for one in texts if one is not text]
    if "textPair" not in given and (pair := next((one for one in others if _is_pair(text, one)), None)):
        first, second = (
            sorted((text, pair), key=lambda one: list(facts).index(one.name)) if "text" not in given else (text, pair)
        )
        found.columns = {"text": first.name, "textPair": second.name}
        others.remove(pair)
        found.said.append(
            f"columns {first.name!r} and {second.name!r} were taken for a pair of texts; to read one alone remove textPair"
        )
    said = len(found.said)
    _add_labels(found, facts, given, task, where)
    others = [one for one in others if one.name not in found.columns.values()]
    if others and "textPair" not in found.columns and not given.keys() & {"text", "textPair"}:
        found.said.insert(
            said,
            f"column {text.name!r} was taken for the text; {some_of([repr(one.name) for one in others])} could be it too: set"
            f" columns.text, or columns.textPair to read both",
        )
    return found


def _is_pair(one: Facts, other: Facts) -> bool:
    """Return whether two columns are the texts of pairs: by their names, or because they hold the same texts."""
    first, second = set(one.words), set(other.words)
    if any(
        (left in first and right in second) or (right in first and left in second) for left, right in map(tuple, PAIRS)
    ):
        return True
    if one.words == other.words or (first & second and first ^ second <= {"a", "b", "one", "two"}):
        return True  # sentence1 and sentence2, text_a and text_b
    shared = one.counts.keys() & other.counts.keys()
    return len(shared) >= _SHARED * min(len(one.counts), len(other.counts))


def _add_labels(
    found: Guess, facts: Mapping[str, Facts], given: Mapping[str, str], task: str | None, where: str
) -> None:
    """Say what is predicted: the column that has most to say for it."""
    taken = {
        *found.columns.values(),
        *(given[name] for name in ("text", "textPair", "image", "audio") if name in given),
    }
    if name := next((given[name] for name in ("label", "value") if name in given), None):
        chosen, others = facts[name], []
    else:
        rest = [one for one in facts.values() if one.name not in taken]
        ranked = sorted(rest, key=lambda one: -points(one, list(facts)))
        ranked = [one for one in ranked if points(one, list(facts)) > 0]
        if not ranked:
            raise JobError("InvalidData", f"{where}: {_nothing(facts)}")
        chosen = ranked[0]
        least = min(_PLAUSIBLE, points(chosen, list(facts)) - 0.5)  # no more than by its place
        others = [one for one in ranked[1:] if points(one, list(facts)) >= least]
        require_labels(chosen, where)
        require_header(chosen, facts, where)
        require_dialogues(chosen, where)
        flags = [repr(one.name) for one in rest if is_flag(one)]
        if is_flag(chosen) and len(flags) >= _FLAGS:
            raise JobError(
                "InvalidData",
                f"{where}: columns {quoted(some_of(flags))} hold yes or no alone, like labels of which a row may have several: write the names"
                " of each row's into one column (docs/conversions.md), or name the one to learn by --column label=NAME",
            )
    require_labels(chosen, where)
    number = (
        "value" in given or task == "TextRegression" or (task is None and "label" not in given and is_value(chosen))
    )
    what = "value" if number and found.task == "TextClassification" else "label"
    found.columns[what] = chosen.name
    if what == "value":
        found.task = "TextRegression"
    elif (separator := several(chosen)) and not (separator == "list" and _hold_one_each(chosen, where)):
        found.options = {"labels": "Multi"} | ({} if separator in (",", "list") else {"labelSeparator": separator})
        if separator != "list":
            found.said.append(
                f"cells of column {chosen.name!r} were taken for several labels with {separator!r} between them, as"
                f" {next(value for value in chosen.values if separator in value)[:60]!r}; if each is one label, remove labels: Multi"
            )
    elif is_measure(chosen) and found.task == "TextClassification" and "label" not in given:
        found.said.append(
            f"the {len(chosen.counts)} different numbers of column {chosen.name!r} were taken for labels; to predict how large they"
            " are use task TextRegression"
        )
    if others:
        found.said.append(
            f"column {chosen.name!r} was taken for what is predicted; {some_of([repr(one.name) for one in others])} could be it too:"
            f" set columns.{what}"
        )


def _hold_one_each(labels: Facts, where: str) -> bool:
    """Return whether lists have one label each, and are no texts that look like lists, as in CSV."""
    return suffixes(where)[0] not in SEPARATED and all(len(found) == 1 for found in labels.lists or [])


def _nothing(facts: Mapping[str, Facts]) -> str:
    found = some_of([f"{one.name!r} ({one.look})" for one in facts.values()], _MOST_NAMES)
    reads = "; ".join(
        f"{task.name}: {', '.join(column.name for column in task.reads if not column.optional)}" for task in TASKS
    )
    return (
        f"it cannot be told what is to be predicted from what{of_first_row(facts) or hints(facts) or ways(facts)}. The columns are {quoted(found)}. Say it by --task"
        f" and --column FIELD=NAME; the fields of each task: {reads}"
    )


def of_folder(kind: str) -> Guess:
    """Return what a folder of labels' folders is for."""
    return Guess({"Image": "ImageClassification", "Audio": "AudioClassification"}[kind])
