"""Whether a rung that has begun is worth the rest of its steps. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_trainer.judgement.rungs import FEW, SURE, Climbed, Wanted

LITTLE = 0.01
"""Share by which the validation loss has to fall for a rung to promise something."""


@dataclass(frozen=True)
class Trial:
    """A rung after its first steps."""

    name: str
    value: float
    """Of the metric, the best so far."""
    steps: int
    planned: int
    """Of the whole rung."""
    loss: float | None = None
    """Mean on the validation samples; None where there is none."""


def judge(
    before: Climbed,
    trial: Trial,
    wanted: Wanted,
    *,
    idle: float,
    loss: float | None,
    margin: float,
    behind: bool,
    step: int,
) -> Decision:
    """Return whether a rung promises more than noise: Yes or No.

    It is given up only where both speak against it: with probability .9 the metric has not risen by more than the margin, and the loss, which moves
    before the metric does, has not fallen either.

    Parameters
    ----------
    before
        The best rung before it, whose weights it began with.
    trial
        What it has come to.
    wanted
        What the job asks for.
    idle
        How probably it is better than that rung by no more than the margin.
    loss
        Of that rung; None where there is none.
    margin
        By how much the metric must improve.
    behind
        Whether what there is would be worth nothing: no better than guessing, or than a classical model.
    step
        That the run is at.
    """
    metric = wanted.metric
    known = loss is not None and trial.loss is not None and math.isfinite(loss)
    falls = not known or fell(loss or 0.0, trial.loss or 0.0)
    after = f"after {trial.steps:,} of {trial.planned:,} steps of {trial.name} {metric.name} is {trial.value:.4g}, before {before.value:.4g}"
    told = known and metric.name != "loss"  # which is told by its best value so far
    losses = f", loss {trial.loss:.4g}, before {loss:.4g}" if told else ""
    hopeless = idle >= SURE and not falls and not behind
    answer = "No" if hopeless and not wanted.few else "Yes"
    if answer == "No":
        why, otherwise = (
            "it is given up",
            f"a loss that falls by {LITTLE:.0%}, or a metric that rises".replace("%", " %"),
        )
    elif hopeless:
        why, otherwise = (
            f"it goes on, since {wanted.rows} validation samples are too few to give it up",
            f"{FEW} validation samples or more",
        )
    elif idle < SURE:
        why, otherwise = "it goes on", "a metric that surely has not risen, and a loss that has not fallen"
    elif behind:
        why, otherwise = (
            "it goes on, since nothing that is worth anything is there yet",
            "a model that is better than a guess",
        )
    else:
        why, otherwise = "it goes on", "a loss that has not fallen"
    return Decision(
        type="Trial",
        answer=answer,
        question=f"Is {trial.name} worth the rest of its steps?",
        message=f"{after}{losses}: {why}",
        step=step,
        evidence=[
            Evidence(name=f"validation {metric.name} before", value=before.value, low=before.low, high=before.high),
            Evidence(name=f"validation {metric.name} after {trial.steps:,} steps", value=trial.value),
            *([Evidence(name="validation loss before", value=loss)] if told else []),
            *([Evidence(name=f"validation loss after {trial.steps:,} steps", value=trial.loss)] if told else []),
            *(
                [Evidence(name=f"probability that it gained no more than {margin:.2g}", value=idle)]
                if before.by_rows
                else []
            ),
        ],
        otherwise=otherwise,
        alternative=f"all {trial.planned:,} steps, whatever the first ones bring",
    )


def fell(before: float, after: float) -> bool:
    """Return whether a loss has fallen by more than a little; one that is no number has not."""
    return after < before - LITTLE * abs(before)
