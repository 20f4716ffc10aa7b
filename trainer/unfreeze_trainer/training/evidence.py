"""What a finished model is compared with, where the job asks for it: on all ranks, after its best weights were measured."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from unfreeze_api.contracts.decision import Decision
from unfreeze_trainer.training.beside import on_first
from unfreeze_trainer.training.classical import USUAL_SAMPLES, Classical, left_out

if TYPE_CHECKING:
    from unfreeze_trainer.training.run import Run

log = logging.getLogger(__name__)

_UNPREDICTED = "there are no predictions of the validation data, which has too many rows for them"


def weigh(run: Run) -> None:
    """Compare the best weights with a classical model, where spec.evidence names one or rungs have one below them. Collective.

    Raises
    ------
    StopRequested
        All ranks have agreed to stop; a later start does this again.
    """
    baseline = run.job.evidence.baseline if run.job.evidence else None
    below_rungs = run.job.strategy.type == "Auto" and run.engine.any_rank(
        run.engine.rank == 0 and Classical.read(run.folder) is not None
    )
    if baseline is None and not below_rungs:
        return
    if _spent(run, "baseline"):
        return
    if not below_rungs:
        run.reporter.tell("fitting a classical model to compare with")
    most = baseline.max_samples if baseline else USUAL_SAMPLES
    found = _on_first(run, "baseline", lambda: _baseline(run, most))
    if found is not None:
        run.decisions.add(found)


def weigh_scratch(run: Run) -> list[Run]:
    """Compare the best weights with random ones that were trained too, where spec.evidence asks for it. Collective.

    Returns
    -------
    list
        The runs that did that, whose folders lie below this one's.

    Raises
    ------
    StopRequested
        All ranks have agreed to stop; a later start resumes.
    """
    evidence = run.job.evidence
    if evidence is None or evidence.scratch is None:
        return []
    from unfreeze_trainer.exports.figures import files
    from unfreeze_trainer.training.scratch import from_scratch

    if run.engine.any_rank(run.engine.rank == 0 and "validation" not in files(run.folder.path)):
        run.folder.events.add("warning", message=f"spec.evidence.scratch was left out: {_UNPREDICTED}")
        return []
    if _spent(run, "scratch"):
        return []
    decision, runs = from_scratch(run, evidence.scratch.max_share)
    if decision is not None:
        run.decisions.add(decision)
    return runs


def _spent(run: Run, name: str) -> bool:
    """Whether the job's budget has no room for a comparison, which is then left out with a warning. Collective."""
    left = run.spending.left()
    if left is None or left > run.state.evaluation_seconds:
        return False
    run.folder.events.add("warning", message=f"spec.evidence.{name} was left out: runPolicy.budget is spent")
    return True


def _on_first(run: Run, name: str, work: Callable[[], Decision]) -> Decision | None:
    """Return what rank 0 computes in a thread, on every rank; meanwhile all look whether they are to stop. Collective.

    What fails there is said, and no reason to lose what was trained: None.
    """

    def look() -> None:
        run.meter.check_stop()
        run.reporter.publish("Exporting")

    done = on_first(run.engine, name, work, look)
    found = None
    if run.engine.rank == 0:
        try:
            found = done.result()
        except Exception as error:
            log.exception("evidence.%s", name)
            left_out(run.folder, f"spec.evidence.{name} could not be computed", error)
    return run.engine.broadcast_json(found, Decision | None)


def _baseline(run: Run, most: int) -> Decision:
    """Compare what a classical model says of the validation samples with what the run says; fit it, unless that is done."""
    from unfreeze_trainer.exports.figures import files
    from unfreeze_trainer.judgement.said import Said, compared_by
    from unfreeze_trainer.judgement.worth import Comparison, against_classical

    if "validation" not in (known := files(run.folder.path)):
        raise RuntimeError(_UNPREDICTED)
    of_run = Said.read(*known["validation"])
    unread = {split: set(samples) for split, samples in run.state.unread.items()}
    found = Classical.read(run.folder) or Classical.of(run.job, run.task, most, unread=unread)
    metric = compared_by(found.said.kind, run.job.metric.name)
    comparison = Comparison(found.compared(of_run, metric), metric, run.state.step, found.seconds)
    return against_classical(comparison, name=found.name, fitted_on=found.fitted_on, samples=run.task.splits["train"])
