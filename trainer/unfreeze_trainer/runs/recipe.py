"""recipe.json of a run folder: what the run began with, and every later start of it resumes with.

A new version of Unfreeze may resolve the same manifest to something else. A run that has begun does not follow: its
recipe comes from its folder, and only how it is carried out from job.json (see `unfreeze_api.grammar.model.EXECUTION`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from unfreeze_api import fingerprint as recipes
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.destination import check_apart, foreign_outputs, require_own
from unfreeze_trainer.runs.generation import Generation, require_no_links
from unfreeze_trainer.versions import library_versions

log = logging.getLogger(__name__)

FILE = "recipe.json"
FORMAT = 1
_SHOWN = 5
"""Differences between two recipes that an error lists."""


class StoredRecipe(BaseModel):
    """recipe.json."""

    format: int = FORMAT
    fingerprint: str
    """Of the job, as checkpoints and report of this run have it."""
    job: dict[str, Any]
    """Everything of the job that what is learned depends on."""
    began_earlier: bool = False
    """Whether the run was begun by a version that stored no recipe."""
    versions: dict[str, str] = {}
    """Libraries that the run began with."""


@dataclass(frozen=True)
class Start:
    """A job as its run folder has it."""

    job: ResolvedJob
    """With the recipe that the run began with."""
    fingerprint: str
    """That the run's checkpoints and report have."""
    begun: bool = False
    """Whether the folder is this run's already."""
    stored: bool = False
    """Whether the folder has this recipe already."""
    began_earlier: bool = False
    """Whether the run was begun by a version that stored no recipe."""

    @property
    def after_success(self) -> str:
        """What becomes of the run's checkpoints: Delete, KeepBest or Keep."""
        return "Keep" if self.began_earlier else self.job.training.checkpoint.after_success or "Delete"

    def store(self, generation: Generation) -> None:
        """Write recipe.json, whole or not at all, flushed to the disk, unless it is there."""
        if self.stored:
            return
        if self.began_earlier:
            habits = ", ".join(f"{name} {value}" for name, value in self.job.semantics.model_dump().items())
            log.warning(
                "this run was begun by a version of Unfreeze that stored no %s: it resumes as that version trained"
                " (weights %s, %s)",
                FILE,
                self.job.model.dtype,
                habits,
            )
        content = StoredRecipe(
            fingerprint=self.fingerprint,
            job=recipes.recipe(self.job),
            began_earlier=self.began_earlier,
            versions=library_versions(),
        )
        aside = generation.aside(FILE)
        aside.write_text(content.model_dump_json(indent=1) + "\n")
        generation.commit(aside, Path(self.job.output.path) / FILE)


def open_recipe(job: ResolvedJob) -> Start:
    """Return a job with the recipe that its run began with; the job itself where none has begun. Writes nothing.

    Every rank gets the same answer, whether the first one has stored it or not.

    Raises
    ------
    JobError
        The folder holds what another job has trained, a later version of Unfreeze, or another hand, or links; or the job
        would write where it reads.
    """
    folder = Path(job.output.path)
    try:
        check_apart(job)
        require_no_links(folder)
        start = _open(job)
        own, unmarked = start.fingerprint if start.begun else None, start.began_earlier or _is_finished(folder)
        foreign = foreign_outputs(folder, fingerprint=own, unmarked=unmarked)
        require_own(folder, _without_curve(foreign) if (folder / FILE).is_file() else foreign)
    except PermissionError as error:
        raise JobError(
            "ForeignRunFolder",
            f"{folder} holds what user {os.geteuid()} may not read: {error.filename}: {error.strerror}. Choose another"
            " output.destination, or run as the user that it belongs to",
        ) from error
    return start


def _open(job: ResolvedJob) -> Start:
    folder = Path(job.output.path)
    stored = _read(folder / FILE)
    if stored is None:
        return _without_recipe(job, folder)
    if stored.fingerprint not in job.fingerprints() and not _has_it_already(job, stored):
        if not _holds_work(folder):
            return Start(job, job.fingerprint())
        found = list(recipes.differences(stored.job, recipes.recipe(job)))
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise JobError(
            "ForeignRunFolder",
            f"{folder} belongs to another job: there {', '.join(found[:_SHOWN])}{more}. Choose another output.destination,"
            " or delete that folder",
        )
    try:
        resumed = recipes.with_recipe(job, stored.job)
        if resumed.model.candidates and resumed.model.source:
            resumed = resumed.with_base(resumed.model.source)  # it lies where this start has it
    except ValidationError as error:
        problem = error.errors()[0]
        raise JobError(
            "ForeignRunFolder",
            f"{folder / FILE} was written by unfreeze {stored.versions.get('unfreeze', '?')}, and this version does not"
            f" know {'.'.join(map(str, problem['loc']))}: resume it with the version that wrote it, or choose another"
            " output.destination",
        ) from error
    return Start(as_begun(resumed), stored.fingerprint, begun=True, stored=True, began_earlier=stored.began_earlier)


def as_begun(job: ResolvedJob) -> ResolvedJob:
    """Return a job of a run that has begun, with the labels that it began with: names of numbers come from no file where these had none."""
    if job.semantics.labels == "Named" or job.task.type == "TokenClassification":
        return job
    return job.with_data(lambda _, part: part.model_copy(update={"label_names": part.label_names or {}}))


def _has_it_already(job: ResolvedJob, stored: StoredRecipe) -> bool:
    """Return whether a job has a stored recipe, down to what that recipe lacks: it was opened before."""
    try:
        return recipes.recipe(recipes.with_recipe(job, stored.job)) == recipes.recipe(job)
    except ValidationError:  # of a later version
        return False


def _read(file: Path) -> StoredRecipe | None:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read, job.json stands in for it: %s", file, error)
        return None
    if isinstance(found, dict) and found.get("format") == FORMAT:
        return StoredRecipe.model_validate(found)
    version = found.get("format") if isinstance(found, dict) else None
    raise JobError(
        "ForeignRunFolder",
        f"{file} has format {version}, and this version of Unfreeze reads format {FORMAT}: resume it with the version"
        " that wrote it, or choose another output.destination",
    )


def _without_recipe(job: ResolvedJob, folder: Path) -> Start:
    """Return how a job starts in a folder that has no recipe."""
    present, *earlier = job.fingerprints()
    theirs = None
    for theirs in _fingerprints(folder):
        if theirs == present:
            return Start(job, present, begun=True)
        if theirs in earlier:
            as_it_was = recipes.with_recipe(job, recipes.first_recipe(job))
            return Start(as_begun(as_it_was), theirs, begun=True, began_earlier=True)
    if theirs:
        raise JobError(
            "ForeignRunFolder",
            f"{folder} belongs to another job (fingerprint {theirs}, this job has {present}): model, data, strategy or"
            " training differ. Choose another output.destination, or delete that folder",
        )
    return Start(job, present)


def _fingerprints(folder: Path) -> Iterator[str]:
    """Yield the fingerprints that checkpoints and report of a run folder name."""
    for file in (*folder.glob("checkpoints/*/manifest.json"), folder / "report.json"):
        try:
            yield str(json.loads(file.read_bytes())["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _holds_work(folder: Path) -> bool:
    return bool(_without_curve(foreign_outputs(folder, fingerprint=None)))


def _without_curve(outputs: list[str]) -> list[str]:
    """Return outputs but for the one that a run has before it has trained anything: of a run's folder it is nobody else's."""
    return [name for name in outputs if name != "history.csv"]


def _is_finished(folder: Path) -> bool:
    return (folder / "report.json").is_file()
