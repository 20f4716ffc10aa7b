"""The stages of a job: each as a job of its own in a folder below the run's, and stages.json, which says what became of them.

A stage is the job that has the stages before it, with data, task and recipe of its own: so its fingerprint covers all that its
weights come from, and its folder is a run folder like any other.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.contracts.progress import PhaseResult
from unfreeze_api.contracts.resolved import ResolvedTracking
from unfreeze_api.contracts.resolved.model import Tower, tower_keys
from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob, ResolvedModel, ResolvedStage
    from unfreeze_trainer.runs.generation import Generation

log = logging.getLogger(__name__)

FILE = "stages.json"
FOLDER = "stages"
"""Below the run folder: a run folder for each stage, by its name."""
EXPORT = "model"
"""Below a stage's folder: what comes after it starts from there."""
LAST = "the job itself"
"""What the last stage is called, after those of spec.stages."""
_OF_STAGE = re.compile(r"\bspec\.(?=(data|task|strategy|adapter|training)\b)")


class StageResult(BaseModel):
    """What became of a stage."""

    name: str
    kept: bool
    """Whether what comes after it starts from its weights."""
    steps: int
    """Optimizer steps that it took."""
    phases: list[PhaseResult] = []
    decision: Decision | None = None
    """Why, where it was asked whether it helps."""


class _Record(BaseModel):
    """stages.json."""

    format: Literal[1] = 1
    fingerprint: str
    """Of the run that they belong to."""
    stages: list[StageResult] = []
    """Those that are over, in order."""


def read_results(run_folder: Path, fingerprint: str) -> list[StageResult]:
    """Return what became of the stages that are over; none where the folder is another run's."""
    try:
        found = _Record.model_validate_json((run_folder / FILE).read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read, what its stages have left is looked at again: %s", run_folder / FILE, error)
        return []
    return found.stages if found.fingerprint == fingerprint else []


def store_results(results: Sequence[StageResult], generation: Generation, run_folder: Path, fingerprint: str) -> None:
    """Write stages.json, whole or not at all."""
    aside = generation.aside(FILE)
    record = _Record(fingerprint=fingerprint, stages=list(results))
    aside.write_text(record.model_dump_json(indent=1, by_alias=True, exclude_none=True) + "\n")
    generation.commit(aside, run_folder / FILE)


def folder_of(job: ResolvedJob, name: str) -> Path:
    """Return the run folder of a stage."""
    return Path(job.output.path) / FOLDER / name


def base_of(job: ResolvedJob, results: Sequence[StageResult]) -> tuple[str, str]:
    """Return what the weights that the stages have left are called, and their folder: those of the base where none was kept."""
    kept = [result.name for result in results if result.kept]
    if not kept:
        return job.model.source, job.model.path
    return f"{FOLDER}/{kept[-1]}/{EXPORT}", str(folder_of(job, kept[-1]) / EXPORT)


def after_stages(job: ResolvedJob, results: Sequence[StageResult]) -> ResolvedJob:
    """Return a job that starts from the weights that its stages have left."""
    return job.model_copy(update={"model": staged_model(job, job.model, results)})


def staged_model(
    job: ResolvedJob, model: ResolvedModel, results: Sequence[StageResult], *, encodes: bool = False
) -> ResolvedModel:
    """Return the model of a job, or of one of its stages, with the weights that the stages so far have left.

    Of several towers each starts where the last stage that was kept has left the same one: of the same source at the same place.
    `encodes` is whether a textEncoder of the stage's own reads texts: that is no language model, be it of the same source.
    """
    if not model.towers:
        _, path = base_of(job, results)
        return model.model_copy(update={"stage_path": None if path == model.path else path})
    left: dict[tuple[str, str], str] = {}
    for result, stage in zip(results, job.stages or (), strict=False):
        if result.kept:
            export = folder_of(job, result.name) / EXPORT
            places = _keyed(_model_of(job, stage), encodes=stage.text_encoder is not None)
            left |= {place: str(export / key) for place, key in places.items()}
    staged = [left.get(place) for place in _keyed(model, encodes=encodes)]
    return model.model_copy(update={"stage_tower_paths": staged if any(staged) else None})


def _keyed(model: ResolvedModel, *, encodes: bool) -> dict[tuple[str, str], str]:
    """Return the key of each tower by what tells it from others: what it is, and its source."""
    keys = tower_keys([tower.modality for tower in model.towers])
    named = (f"{key} of a stage" if encodes and key == "text" else key for key in keys)
    return dict(zip(zip(named, model.tower_sources or (), strict=True), keys, strict=True))


def _model_of(job: ResolvedJob, stage: ResolvedStage) -> ResolvedModel:
    """Return the base of a stage: the job's, with an encoder of texts of the stage's own where it has one."""
    model, own = job.model, stage.text_encoder
    if own is None:
        return model
    towers = [one if one.modality != "Text" else Tower("Text", own.source, own.path) for one in model.towers]
    update = {"tower_sources": [one.source for one in towers], "tower_paths": [one.path for one in towers]}
    return model.model_copy(update=update)


def stage_jobs(job: ResolvedJob) -> list[ResolvedJob]:
    """Return each stage as a job of its own, which starts from the job's base."""
    return [_stage_job(job, index) for index in range(len(job.stages or ()))]


def _stage_job(job: ResolvedJob, index: int) -> ResolvedJob:
    assert job.stages is not None
    stage, output = job.stages[index], job.output
    place = {"path": str(folder_of(job, stage.name)), "source": f"{output.source}/{FOLDER}/{stage.name}"}
    return job.model_copy(
        update={
            "model": _model_of(job, stage),
            "task": stage.task,
            "data": stage.data,
            "strategy": stage.strategy,
            "adapter": stage.adapter,
            "training": stage.training,
            "output": output.model_copy(update={**place, "export": ["Merged" if stage.adapter else "Model"]}),
            "stages": job.stages[:index] or None,
            "tracking": ResolvedTracking(),
            "evidence": None,
            "guard": None,
        }
    )


@contextmanager
def naming(job: ResolvedJob, index: int, *, of_job: bool = False) -> Iterator[None]:
    """Have errors name the fields of a stage, and not those of the job that it is trained as; `of_job` are about those of the job itself."""
    try:
        yield
    except JobError as error:
        assert job.stages is not None
        said = error.marked if of_job else _OF_STAGE.sub(f"spec.stages[{index}].", error.marked)
        if encoder := job.stages[index].text_encoder:
            said = re.sub(
                rf"spec\.model\.towers\[\d+\]\.source {re.escape(encoder.source)}",
                lambda _: f"spec.stages[{index}].textEncoder {encoder.source}",
                said,
            )
        if said == error.marked:
            said = f"spec.stages[{index}] ({job.stages[index].name}): {said}"
        raise JobError(error.reason, said) from error
