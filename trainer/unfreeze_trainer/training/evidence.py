"""What a finished model is compared with, where the job asks for it: on all ranks, after its best weights were measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.tasks import task_type
from unfreeze_trainer.errors import told_of
from unfreeze_trainer.training.beside import on_first

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_api.spec.evidence import BaselineSpec
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.run import Run

log = logging.getLogger(__name__)

_UNPREDICTED = "there are no predictions of the validation data, which has too many rows for them"
_SAID = 500
"""Characters of an error in a warning."""


def weigh(run: Run) -> None:
    """Compare the best weights with what spec.evidence names; each comparison is a decision. Collective.

    Raises
    ------
    StopRequested
        All ranks have agreed to stop; a later start does this again.
    """
    evidence = run.job.evidence
    if evidence is None or evidence.baseline is None:
        return
    wanted, task, step = evidence.baseline, run.task, run.state.step
    run.reporter.tell("fitting a classical model to compare with")
    unread = {split: set(samples) for split, samples in run.state.unread.items()}
    found = _on_first(
        run, "baseline", lambda: _baseline(run.job, task, wanted, run.folder.path, step=step, unread=unread)
    )
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
    decision, runs = from_scratch(run, evidence.scratch.max_share)
    if decision is not None:
        run.decisions.add(decision)
    return runs


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
            left_out(run, f"spec.evidence.{name} could not be computed", error)
    return run.engine.broadcast_json(found, Decision | None)


def left_out(run: Run, what: str, error: Exception) -> None:
    """Warn of a comparison that has failed, on the rank that may write; rows of the data are not quoted."""
    run.folder.events.add("warning", message=f"{what}: {' '.join(told_of(error)[0].split())[:_SAID]}")


def _baseline(
    job: ResolvedJob, task: Task, wanted: BaselineSpec, folder: Path, *, step: int, unread: dict[str, set[int]]
) -> Decision:
    """Fit a classical model on training samples, and compare what it says of the validation samples with what the run says."""
    from unfreeze_trainer.exports.figures import files
    from unfreeze_trainer.judgement.classical import fit
    from unfreeze_trainer.judgement.said import Said, compare, compared_by
    from unfreeze_trainer.judgement.worth import Comparison, against_classical

    began = time.perf_counter()
    answers, reads = task.answers, task_type(job.task.type).classical
    assert answers is not None
    assert reads
    if "validation" not in (known := files(folder)):
        raise RuntimeError(_UNPREDICTED)
    path, about = known["validation"]
    of_run = Said.read(path, about)
    samples = {
        split: np.setdiff1d(np.arange(task.splits[split]), sorted(unread.get(split, ())))
        for split in ("train", "validation")
    }
    rows = np.random.default_rng(job.training.seed).permutation(samples["train"])[: wanted.max_samples]
    inputs, targets = task.raw("train", rows)
    pairs = job.data.train.columns.text_pair is not None
    model = fit(answers.kind, reads, inputs, targets, outputs=answers.width, pairs=pairs, seed=job.training.seed)
    inputs, targets = task.raw("validation", samples["validation"])
    other = Said.of(answers.kind, about.names, targets, model.predict(inputs))
    if not np.array_equal(other.actual, of_run.actual):
        raise RuntimeError("predictions/validation.parquet has other rows than the validation split")
    metric = compared_by(answers.kind, job.metric.name)
    found = Comparison(compare(of_run, other, metric), metric, step, time.perf_counter() - began)
    return against_classical(found, name=model.name, fitted_on=len(rows), samples=task.splits["train"])
