"""report.json: written once, when everything else of a run is in place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.report import LOST, DataReport, Export, Pinned, Report, Results, Usefulness, World
from unfreeze_api.grammar.reading import causes
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.home import home_of
from unfreeze_trainer.versions import library_versions

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.runs.checkpoints import Identity
    from unfreeze_trainer.runs.generation import Generation
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import ExportKind, Task


def read_report(run_folder: Path) -> Report | None:
    """Return the report of a finished run, None when there is none.

    Raises
    ------
    JobError
        There is one that cannot be read. What is finished is not trained again for that.
    """
    path = run_folder / "report.json"
    try:
        return Report.read(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise JobError(
            "ForeignRunFolder",
            f"the run in {run_folder} is finished, and its report.json cannot be read ({causes(error)}): another version of"
            " Unfreeze wrote it, or it is damaged. Use the trainer image that wrote it, choose another output.destination,"
            " or delete report.json to resume from the newest checkpoint",
        ) from error


def require_same(report: Report, identity: Identity, run_folder: Path) -> None:
    """Raise JobError unless a finished run belongs to this job on this data."""
    pins = {"base": {"source": report.base.source, **report.base.pins}, "data": report.data.pins}
    identity.require({"fingerprint": report.fingerprint, "pins": pins}, run_folder)


def write_report(run_folder: Path, report: Report, generation: Generation) -> None:
    """Write report.json whole or not at all."""
    aside = generation.aside("report.json")
    aside.write_text(report.to_json(indent=2) + "\n")
    generation.commit(aside, run_folder / "report.json")


def build_report(
    job: ResolvedJob,
    task: Task,
    engine: Engine,
    state: RunState,
    *,
    identity: Identity,
    results: Results,
    skipped: dict[str, int],
    warnings: list[str],
) -> Report:
    """Put together what is known at the end of a run."""
    from unfreeze_trainer.engines.base import PRECISIONS

    assert state.best is not None  # the end of a phase always evaluates
    sources, pins = {"train": job.data.train.source}, identity.pins
    base = pins.get("base", {})
    for name, held_out in (("validation", job.data.validation), ("test", job.data.test)):
        if held_out and held_out.dataset:
            sources[name] = held_out.dataset.source
    return Report(
        usefulness=state.best.usefulness,
        warnings=warnings,
        decisions=state.decisions,
        job=f"{job.namespace}/{job.name}",
        fingerprint=identity.fingerprint,
        finished=datetime.now(UTC),
        seconds=sum(phase.seconds for phase in state.phases),
        strategy=job.strategy.type,
        metric=job.metric.name,
        best_step=state.best.step,
        results=results,
        phases=state.phases,
        rollbacks=state.rollbacks,
        unused_parameters=state.unused or [],
        exports=[_export(job, task, kind) for kind in job.output.export],
        base=Pinned(
            source=job.model.described,
            revision=base.get("revision"),
            pins={key: value for key, value in base.items() if key not in ("source", "revision")},
        ),
        data=DataReport(
            sources=sources,
            splits=task.splits,
            held_out_seed=job.training.seed if task.splits.keys() - sources.keys() else None,
            overlaps=task.overlaps,
            skipped=skipped,
            unseen_words=task.unseen_words,
            labels=list(task.labels),
            pins=pins.get("data", {}),
        ),
        world=World(
            world_size=engine.world_size,
            nodes=job.distribution.num_nodes,
            engine=job.distribution.engine,
            zero_stage=job.distribution.zero_stage,
            device=engine.device.type,
            offload=job.distribution.offload,
            precision=PRECISIONS[engine.dtype],
        ),
        versions=library_versions(),
    )


def _export(job: ResolvedJob, task: Task, kind: ExportKind) -> Export:
    folder = export_folder(job, kind)
    return Export(
        kind=kind, folder=folder, usage=task.usage(kind, f"{job.output.path}/{folder}", home_of(job.model).name)
    )


def export_folder(job: ResolvedJob, kind: str) -> str:
    """Return the folder of an export below the run's: `model`, and `adapter` when both Adapter and Merged are written."""
    return "adapter" if kind == "Adapter" and len(job.output.export) > 1 else "model"


def flat_results(results: Results) -> dict[str, float]:
    """Return the results by names like `test.accuracy`."""
    return {
        f"{split}.{name}": value
        for split, metrics in (("validation", results.validation), ("test", results.test))
        for name, value in metrics.items()
    }


def reported(results: Results, usefulness: Usefulness | None) -> dict[str, float]:
    """Return what a finished run says of itself by names, what came last to them at the end: earlier operators take no more than they know."""
    found = flat_results(results) | (usefulness.figures() if usefulness else {})
    lost = {name: found.pop(name) for name in list(found) if name == f"validation.{LOST}"}
    return found | lost


def finished_progress(report: Report) -> Progress:
    """Return the progress of a finished run, from its report alone."""
    steps = sum(phase.steps for phase in report.phases)
    progress = Progress(
        percent=100,
        step=steps,
        total_steps=steps,
        phase_index=max(0, len(report.phases) - 1),
        phase_count=len(report.phases),
        phase_name=report.phases[-1].name if report.phases else "",
        metrics=report.results.validation,
        eta_seconds=0,
        activity="Done",
        world_size=report.world.world_size,
        phases=report.phases,
        results=reported(report.results, report.usefulness),
        decisions=budget.taken(report.decisions) or None,
        skipped_samples=sum(report.data.skipped.values()) or None,
    )
    return budget.bounded(progress, report.metric)
