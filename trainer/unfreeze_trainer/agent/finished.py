"""A run folder that is finished: the same job started again ends at once, without waiting for other pods."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.resolved import ResolvedJob


def finished_before(job: ResolvedJob) -> Progress | None:
    """Return the progress of a run that is finished, None when there is something left to do.

    Raises
    ------
    JobError
        The folder holds the finished run of another job or version, or data or base model have changed since; or the
        job asks for an export that the run has not written and no longer can.
    """
    folder = Path(job.output.path)
    if not (folder / "report.json").is_file():
        return None
    from unfreeze_trainer.data.pins import first_pins
    from unfreeze_trainer.errors import JobError
    from unfreeze_trainer.exports.report import finished_progress, read_report, require_same
    from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity
    from unfreeze_trainer.runs.recipe import open_recipe
    from unfreeze_trainer.runs.stages import LAST, after_stages, read_results
    from unfreeze_trainer.tasks import open_task

    report = read_report(folder)
    if report is None:
        return None
    start = open_recipe(job)
    Identity(start.fingerprint, {}).require({"fingerprint": report.fingerprint}, folder)  # before anything is hashed
    begun = after_stages(start.job, read_results(folder, start.fingerprint)) if start.job.stages else start.job
    pins = open_task(begun).pins
    identity = Identity(start.fingerprint, pins, partial(first_pins, begun, pins))
    require_same(report, identity, folder)
    if missing := [kind for kind in job.output.export if kind not in {export.kind for export in report.exports}]:
        if report.best_step in Checkpoints(folder, identity).own_steps():
            return None
        raise JobError(
            "ForeignRunFolder",
            f"{folder} is finished without the export {', '.join(missing)}, and its best checkpoint is gone: remove"
            f" {', '.join(missing)} from output.export, or choose another output.destination",
        )
    count = len(start.job.stages or ())
    stage = {"stage": f"{count + 1} of {count + 1}: {LAST}"} if count else {}
    return finished_progress(report).model_copy(update=stage)


def outcome_of(job: ResolvedJob) -> str:
    """Return how the finished run of a job is, in the first sentence of its page; nothing where there is none."""
    from unfreeze_trainer.errors import JobError
    from unfreeze_trainer.exports.evaluation import read_evaluation
    from unfreeze_trainer.exports.outcome import outcome
    from unfreeze_trainer.exports.report import read_report

    folder = Path(job.output.path)
    try:
        report = read_report(folder)
    except (JobError, OSError):
        return ""
    return outcome(report, read_evaluation(folder)) if report else ""


def clear_finished(job: ResolvedJob) -> None:
    """Delete what a run that was killed between its report and its end has left of its checkpoints."""
    from unfreeze_trainer.exports.report import read_report
    from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity
    from unfreeze_trainer.runs.generation import Generation
    from unfreeze_trainer.runs.recipe import open_recipe
    from unfreeze_trainer.runs.saving import clear

    start, folder = open_recipe(job), Path(job.output.path)
    checkpoints, report = Checkpoints(folder, Identity(start.fingerprint, {})), read_report(folder)
    if report and start.after_success != "Keep" and checkpoints.own_steps():
        clear(checkpoints, start.after_success, best=report.best_step, generation=Generation.take(folder))
