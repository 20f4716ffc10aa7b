"""What is done, after the last step, about what the base could and the best weights cannot any more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from unfreeze_api.contracts.report import LOST
from unfreeze_api.spec.evidence import TRAINING_GUARDS
from unfreeze_trainer.engines.base import persistent_buffers
from unfreeze_trainer.judgement.forgetting import Forgotten, spoken
from unfreeze_trainer.models.blocks import of_head

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_trainer.runs.state import Best
    from unfreeze_trainer.training.run import Run

ALPHAS = (0.8, 0.6, 0.4, 0.2, 0.0)
"""Shares of the way from the base to the result that are tried; 0 is the base, with the head that was trained."""


def keep_base(run: Run, best: Best) -> tuple[Best, dict[str, float]]:
    """Measure what the best weights have lost, do about it as the job says, and decide what there is to say. Collective.

    Parameters
    ----------
    best
        Whose weights the engine has.

    Returns
    -------
    tuple
        The evaluation of the weights that the engine has now, and what they have lost, as a metric.
    """
    forgetting, state = run.forgetting, run.state
    if not forgetting.on:
        return best, {}
    run.reporter.tell("measuring what the best weights have lost of what the base could")
    taken = next((one.index for one in run.plan.phases if best.step <= one.first_step + one.steps), state.phase_index)
    found = forgetting.measure(state, again=best.step != state.step, until=min(taken, state.phase_index))
    done, without, undone = "", "", False
    if found and forgetting.guard == "Interpolate" and not found.within(forgetting.budget):
        best, found, done, without, undone = _interpolated(run, best, found)
    elif forgetting.guard == "Stop" and state.beyond:
        done = f"The training ended at step {state.step:,}, the first evaluation beyond the budget"
        without = f"to train on: {state.beyond:.3g} was lost at step {state.step:,}"
    elif found and forgetting.guard in TRAINING_GUARDS:
        done, without = _trained(run)
    run.decisions.add(forgetting.decision(state, found, done=done, otherwise=without, undone=undone))
    value = found.first.value if found else 0.0
    return best, {LOST: value} if math.isfinite(value) else {}


def _trained(run: Run) -> tuple[str, str]:
    """Return what a guard has done in the training, and what there would be without it."""
    state = run.state
    cost = f"took {state.guard_seconds:.3g} of {sum(phase.seconds for phase in state.phases):.3g} s"
    if run.forgetting.guard == "Replay":
        return f"{state.replayed:,} rows of the anchor were replayed, which {cost}", "to train on the new data alone"
    back = {0: "", 1: ", and before 1 evaluation brought them back within the budget"}.get(
        state.corrections, f", and before {state.corrections:,} evaluations brought them back within the budget"
    )
    strength = f"{state.pull.strength:.2g} of the way at the peak learning rate"
    return (
        f"Each step pulled the weights towards the base's, at the end by {strength}{back}. The pull {cost}",
        "to train without a pull",
    )


def _interpolated(run: Run, best: Best, found: Forgotten) -> tuple[Best, Forgotten, str, str, bool]:
    """Mix the weights below the head with the base's: within the budget, and there as the validation data likes it best.

    Last of all it returns whether these are the base's own, since no other mixture is within the budget.

    Notes
    -----
    WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903): weights on the line between the base and what was fine-tuned from it.
    """
    forgetting, metric = run.forgetting, run.job.metric
    run.reporter.tell("mixing the best weights with the base's")
    before = run.evaluator.measure("validation").metrics[metric.name]
    result = run.folder.checkpoints.load_weights(best.step)
    line = dict(_line(run, result))
    chosen: tuple[float, Forgotten, dict[str, float]] | None = None
    tried = 0
    for alpha in ALPHAS:
        run.reporter.publish("Exporting")  # nothing hangs
        run.engine.load_weights(_mixed(line, alpha))
        lost = forgetting.measure(run.state, again=True)
        assert lost is not None  # as before
        if not lost.within(forgetting.budget):
            continue
        metrics = run.evaluator.measure("validation").metrics
        tried += 1
        if chosen is None or metric.improvement(metrics[metric.name], chosen[2][metric.name]) > 0:
            chosen = (alpha, lost, metrics)
    if chosen is None:  # a gauge that is not at 0 for the base itself: of a model without numbers
        run.engine.load_weights(_mixed(line, 1.0))
        return best, found, "No mixture with the base's weights is within the budget", "", False
    alpha, lost, _ = chosen
    forgetting.mixed = _mixed(line, alpha)
    run.engine.load_weights(forgetting.mixed)
    measured = run.evaluator.measure("validation")
    run.predictions.write("validation", measured.kept, best.step)
    value = measured.metrics[metric.name]
    mixed = best.model_copy(
        update={"metrics": measured.metrics, "value": value, "usefulness": measured.usefulness, "beyond": 0.0}
    )
    run.state.best = mixed
    done = (
        f"The weights are {alpha:.0%} of the way from the base to what was trained".replace("%", " %")
        + f": validation {metric.name} {value:.3g} in place of {before:.3g}"
    )
    without = f"what was trained: validation {metric.name} {before:.3g}, and {spoken(found.first)}"
    return mixed, lost, done, without, alpha == 0.0 and tried == 1


def _mixed(line: Mapping[str, tuple[Tensor, Tensor]], alpha: float) -> dict[str, Tensor]:
    return {name: one + alpha * (other - one) if alpha < 1 else other for name, (one, other) in line.items()}


def _line(run: Run, result: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Yield what has changed below the head, by name: as it was in the base, and as it is.

    Of a LoRA that is the factor that was zero at first alone: the update is linear in it.
    """
    loaded = run.task.build_model()
    first = dict(loaded.module.named_parameters()) | persistent_buffers(loaded.module)
    head = of_head(loaded.blocks)
    factors = loaded.adapter_parameters - head  # a head that the base has brought trains whole beside them
    for name, now in result.items():
        before = first[name].detach()
        if (name in head and not run.task.heads_of_base) or not now.is_floating_point():
            continue
        if name in factors and before.any():
            continue
        yield name, (before, now)
