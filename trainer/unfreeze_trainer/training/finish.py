"""What comes after the last step: the best weights are taken, measured on the test data, exported and reported."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.contracts.report import Results
from unfreeze_trainer.exports.report import flat_results, reported
from unfreeze_trainer.judgement.phases import too_short
from unfreeze_trainer.training.evidence import weigh, weigh_scratch
from unfreeze_trainer.training.guards import keep_base
from unfreeze_trainer.usefulness import beside_base, decided

if TYPE_CHECKING:
    from unfreeze_trainer.training.evaluator import Measured
    from unfreeze_trainer.training.run import Run


def finish(run: Run) -> None:
    """End a run whose phases are over. Collective.

    Raises
    ------
    StopRequested
        All ranks have agreed to stop; a later start does this again.
    JobError
        The run went back with lower learning rates, and its model is no better than guessing.
    RuntimeError
        An export is not what was trained.
    """
    state, engine, reporter = run.state, run.engine, run.reporter
    reporter.tell("taking the best weights")
    reporter.publish("Exporting")
    run.saver.wait()
    run.ladder.choose()
    run.rollbacks.require_useful()
    best, phase = state.best, run.plan.phases[state.phase_index]
    assert best is not None  # the end of a phase always evaluates
    if not run.trainable.begun:  # it had stopped between its last phase and this
        run.trainable.begin(phase)
    if engine.rank == 0:
        run.folder.checkpoints.check(best.step)
    if best.step != state.step or not state.phase_ended:  # a phase that did not begin may have moved weights
        take_best(run, best.step)
    best, lost = keep_base(run, best)
    run.spending.note()
    reporter.tell(f"measuring the best weights{' on the test data' if 'test' in run.task.splits else ''}")
    reporter.publish("Exporting")  # news, as below: each of these may take as long as a hang is waited for
    test = _measure(run, "test").metrics if "test" in run.task.splits else {}
    if run.predictions.missing("validation", best.step):  # lost, or of a version that wrote none
        _measure(run, "validation")
    said = run.saying.measure("validation", lambda: reporter.publish("Exporting"))
    test |= run.saying.measure("test", lambda: reporter.publish("Exporting")) if test else {}
    run.skipped.gather()
    engine.end()
    reporter.publish("Exporting")
    results = Results(validation=best.metrics | said | lost, test=test)
    if best.usefulness:
        run.decisions.add(decided(best.usefulness, run.job.metric.name, state.step))
    if state.untrained is not None and isfinite(state.untrained):
        seen = {"samples": run.task.splits["validation"], "step": state.step}
        new_heads = not (run.plan.headless or run.task.heads_of_base)
        run.decisions.add(beside_base(run.job.metric, state.untrained, best.value, new_heads=new_heads, **seen))
    if short := _too_short(run, best.step):
        run.decisions.add(short)
    run.spending.note()
    run.exporter.evaluate()
    run.exporter.write(best, metrics=flat_results(results), phase_steps=phase.steps, instead=run.forgetting.mixed)
    run.spending.note()
    weigh(run)
    runs = weigh_scratch(run)
    run.spending.close()
    run.exporter.report(state, results, skipped=run.skipped.counts(), warnings=[*run.feed.warnings, *run.task.warnings])
    if gone := run.folder.clear(best=best.step):
        run.folder.events.add("checkpointsDeleted", steps=gone)
    for other in runs:
        other.folder.clear(best=other.state.best.step if other.state.best else 0)
    reporter.done(reported(results, best.usefulness), test)
    engine.barrier()


def _too_short(run: Run, best: int) -> Decision | None:
    """Return that the training has ended too early, where that shows; not of rungs, which end where others begin. Collective."""
    phase, job, last = run.plan.phases[-1], run.asked, run.plan.total_steps
    if job.strategy.type == "Auto" or run.task.couples or phase.solved or (best, run.state.step) != (last, last):
        return None
    found = None
    if run.engine.rank == 0:
        searched = job.strategy.learning_rate.rates == "Auto" or bool(run.state.rollbacks)
        evaluations = run.reporter.evaluations(phase.name)
        found = too_short(evaluations, first_step=phase.first_step, metric=job.metric.name, searched=searched)
    return run.engine.broadcast_json(found, Decision | None)


def _measure(run: Run, split: str) -> Measured:
    """Measure the best weights on a split, and write what they predict there."""
    assert run.state.best is not None
    measured = run.evaluator.measure(split)
    run.predictions.write(split, measured.kept, run.state.best.step)
    return measured


def take_best(run: Run, step: int) -> None:
    """Load the best checkpoint over the pinned base: what later phases changed goes back to the base's weights."""
    weights = run.folder.checkpoints.load_weights(step)
    trained = run.trainable.names(run.plan.phases[: run.state.phase_index + 1])
    if later := trained - weights.keys():
        base = run.task.build_model().module.named_parameters()
        weights |= {name: parameter for name, parameter in base if name in later}
    run.engine.load_weights(weights)
