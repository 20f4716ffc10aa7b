"""recipe.json of a run folder: what the run began with, and every later start of it resumes with.

A new version of Unfreeze may resolve the same manifest to something else. A run that has begun does not follow: its
recipe comes from its folder, and only how it is carried out from job.json (see `unfreeze_api.model.EXECUTION`).
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
from unfreeze_api.resolve import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.generation import Generation
from unfreeze_trainer.versions import library_versions

log = logging.getLogger(__name__)

FILE = "recipe.json"
FORMAT = 1
_TOLD = 5
"""Differences between two recipes that an error lists."""


class StoredRecipe(BaseModel):
    """recipe.json."""

    format: int = FORMAT
    fingerprint: str
    """Of the job, as checkpoints and report of this run have it."""
    job: dict[str, Any]
    """Everything of the job that what is learned depends on."""
    versions: dict[str, str] = {}
    """Libraries that the run began with."""


@dataclass(frozen=True)
class Start:
    """A job as its run folder has it."""

    job: ResolvedJob
    """With the recipe that the run began with."""
    fingerprint: str
    """That the run's checkpoints and report have."""
    stored: bool = False
    """Whether the folder has this recipe already."""
    began_earlier: bool = False
    """Whether the run was begun by a version that stored no recipe."""

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
        content = StoredRecipe(fingerprint=self.fingerprint, job=recipes.recipe(self.job), versions=library_versions())
        aside = generation.aside(FILE)
        with aside.open("w") as file:
            file.write(content.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        generation.commit(aside, Path(self.job.output.path) / FILE)


def open_recipe(job: ResolvedJob) -> Start:
    """Return a job with the recipe that its run began with; the job itself where none has begun. Writes nothing.

    Every rank gets the same answer, whether the first one has stored it or not.

    Raises
    ------
    JobError
        The folder holds what another job has trained, or a later version of Unfreeze.
    """
    folder = Path(job.output.path)
    stored = _read(folder / FILE)
    if stored is None:
        return _of_earlier_build(job, folder) or Start(job, job.fingerprint())
    if stored.fingerprint not in job.fingerprints() and stored.job != recipes.recipe(job):
        if not _holds_work(folder):
            return Start(job, job.fingerprint())
        told = list(recipes.differences(stored.job, recipes.recipe(job)))
        more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        raise JobError(
            "ForeignRunFolder",
            f"{folder} belongs to another job: there {', '.join(told[:_TOLD])}{more}. Choose another output.destination,"
            " or delete that folder",
        )
    try:
        return Start(recipes.with_recipe(job, stored.job), stored.fingerprint, stored=True)
    except ValidationError as error:
        problem = error.errors()[0]
        raise JobError(
            "ForeignRunFolder",
            f"{folder / FILE} was written by unfreeze {stored.versions.get('unfreeze', '?')}, and this version does not"
            f" know {'.'.join(map(str, problem['loc']))}: resume it with the version that wrote it, or choose another"
            " output.destination",
        ) from error


def _read(file: Path) -> StoredRecipe | None:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
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


def _of_earlier_build(job: ResolvedJob, folder: Path) -> Start | None:
    """Return how a run goes on that began before there were recipes; None when there is none of this job."""
    present, *earlier = job.fingerprints()
    for fingerprint in _fingerprints(folder):
        if fingerprint == present:
            return None
        if fingerprint in earlier:
            return Start(recipes.with_recipe(job, recipes.first_recipe(job)), fingerprint, began_earlier=True)
    return None


def _fingerprints(folder: Path) -> Iterator[str]:
    """Yield the fingerprints that checkpoints and report of a run folder name."""
    for file in (*folder.glob("checkpoints/step-*/manifest.json"), folder / "report.json"):
        try:
            yield str(json.loads(file.read_bytes())["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _holds_work(folder: Path) -> bool:
    return (folder / "report.json").exists() or any(folder.glob("checkpoints/step-*"))
