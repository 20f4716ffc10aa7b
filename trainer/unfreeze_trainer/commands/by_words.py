"""An exported bridge that is asked what pictures or clips show, in classes that are named when it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.alignment import AlignmentSpec
from unfreeze_trainer.commands.asked import SPLIT, Asked, bridge_of, device_of, job_of
from unfreeze_trainer.commands.asked_data import labelled_data, unlabelled_data
from unfreeze_trainer.commands.finished import Finished
from unfreeze_trainer.commands.look import reader_of
from unfreeze_trainer.data.audio import CLIPS
from unfreeze_trainer.data.images import PICTURES
from unfreeze_trainer.data.samples import Split, read_targets, target_kind
from unfreeze_trainer.data.shards import is_table_folder
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.described import Described
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.tasks.by_words import HEARD, PROMPT, ByWords

_TASKS = {"image": "ImageClassification", "audio": "AudioClassification"}
_FEWEST = 2
_MOST = 10_000
_LONGEST = 256
_LOOKED = 10_000
"""Files of a folder of which one tells what all are."""


def ask_by_words(
    finished: Finished,
    data: Path,
    classes: Sequence[str],
    prompts: Sequence[str],
    *,
    columns: Mapping[str, str],
    labelled: bool,
    skip: bool,
    device: str | None = None,
) -> Asked:
    """Open a bridge with the pictures or clips that it is asked of.

    Parameters
    ----------
    finished
        An export of Alignment.
    data
        A table, or a folder of files.
    classes
        What to choose from; none for the labels of the data, where it is labelled.
    prompts
        Texts in which {} stands for a class; none for one.
    columns, labelled, skip, device
        As of `ask`.

    Raises
    ------
    JobError
        InvalidModel: it has no texts, or reads no such data; InvalidData, InvalidJob.
    """
    place = device_of(device)
    described = bridge_of(finished.folder)
    read = [tower["modality"] for tower in described["towers"].values()]
    modality = _modality(finished.folder, data, columns, read)
    _check(finished.folder, read, classes, prompts)
    prompts = list(prompts) or [HEARD if modality == "audio" else PROMPT]
    own = finished.described
    job = _job(finished, data, _TASKS[modality], columns, list(classes), skip=skip)
    if not classes:
        classes = _labels(job)
    shown = replace(
        finished,
        described=Described(
            task={"type": _TASKS[modality]}, outputs=list(classes), columns=own.columns, semantics=own.semantics
        ),
    )
    towers = [(name, tower) for name, tower in described["towers"].items() if tower["modality"] == modality]
    places = [str(finished.folder.absolute() / name) for name, _ in towers]
    model = job.model.model_copy(
        update={
            "source": "",
            "path": "",
            "modalities": [modality.title()] * len(towers),
            "tower_sources": [f"file://{one}" for one in places],
            "tower_paths": places,
        }
    )

    def splits(task: ByWords) -> tuple[Encoder[Any], dict[str, Split]]:
        found = labelled_data(job, shown, task.modality) if labelled else unlabelled_data(job, shown)
        return found[0], dict.fromkeys(("train", "validation", SPLIT), found[1])

    options = AlignmentSpec.model_validate(own.task.get("alignment") or {})
    kind: Any = type("ByWords", (ByWords,), {"read": splits})
    of_towers = job.model_copy(update={"model": model})
    return Asked(kind(of_towers, finished.folder, list(classes), prompts, options), shown, place)


def _modality(folder: Path, data: Path, columns: Mapping[str, str], read: Sequence[str]) -> str:
    """Return whether pictures or clips are asked of."""
    wanted = _kind(data) or next((name for name in ("image", "audio") if name in columns), None)
    found = wanted or next((name for name in ("image", "audio") if name in read), "image")
    if found not in read:
        one = "pictures" if found == "image" else "clips"
        raise JobError(
            "InvalidModel", f"{folder}: it has no encoder of {one}, as {data} has them: it reads {', '.join(read)}"
        )
    return found


def _kind(data: Path) -> str:
    """Return what the files of a folder are, by the first of them that is either; nothing of a table."""
    kinds = (("image", PICTURES), ("audio", CLIPS))
    files = islice(data.rglob("*"), _LOOKED) if data.is_dir() and not is_table_folder(str(data)) else ()
    return next((name for file in files for name, kind in kinds if file.suffix.lower() in kind.suffixes), "")


def _check(folder: Path, read: Sequence[str], classes: Sequence[str], prompts: Sequence[str]) -> None:
    """Raise JobError where nothing can be told."""
    if "text" not in read:
        raise JobError(
            "InvalidModel", f"{folder}: it has no encoder of texts, by which classes could be told by their names"
        )
    if len(classes) == 1 or len(classes) > _MOST:
        raise JobError(
            "InvalidJob", f"--class: {len(classes)} classes: name {_FEWEST} to {_MOST:,}, each by a --class of its own"
        )
    if blank := next((name for name in (*classes, *prompts) if not name.strip() or len(name) > _LONGEST), None):
        raise JobError(
            "InvalidJob", f"--class and --prompt take texts of 1 to {_LONGEST} characters, and not {blank[:20]!r}"
        )
    if repeated := next((name for name in classes if list(classes).count(name) > 1), None):
        raise JobError("InvalidJob", f"--class {repeated}: it is named twice: leave one out")
    if without := next((prompt for prompt in prompts if "{}" not in prompt), None):
        raise JobError(
            "InvalidJob", f"--prompt {without!r}: write {{}} where the name of a class goes, as in {PROMPT!r}"
        )


def _job(
    finished: Finished, data: Path, task: str, columns: Mapping[str, str], classes: list[str], *, skip: bool
) -> ResolvedJob:
    own = Described(task={"type": task}, outputs=classes, columns=finished.described.columns)
    return job_of(replace(finished, described=own), data, columns, skip=skip)


def _labels(job: ResolvedJob) -> list[str]:
    """Return the labels of the data."""
    kind, where = target_kind(job), job.data.train.path
    source = reader_of(job)(job.data.train, where, skip=job.data.on_error == "Skip")
    return [str(label) for label in kind(read_targets(source, kind), where).labels]
