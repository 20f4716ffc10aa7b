"""The end of a phase before its last step, as a decision for people. Pure; `training/decide.py` has taken it."""

from __future__ import annotations

from unfreeze_api.contracts.decision import Decision, Evidence


def ended_early(
    phase: str, *, step: int, steps_left: int, metric: str, best: float | None, bad_evaluations: int, why: str
) -> Decision:
    """Return why a phase is over.

    Parameters
    ----------
    phase
        Its name.
    step, steps_left
        Of the plan: where it ended, and what of it was not taken.
    metric, best
        That no longer improved, and its best value in the phase.
    bad_evaluations
        Since then.
    why
        In words.
    """
    return Decision(
        type="EarlyStopping",
        answer="No",
        question=f"Is it worth training phase {phase} to its last step?",
        message=f"phase {phase} ends at step {step:,}, {steps_left:,} before its last: {why}",
        step=step,
        evidence=[
            Evidence(name=f"best validation {metric} of the phase", value=best),
            Evidence(name="evaluations since then", value=bad_evaluations),
        ],
        otherwise=f"a better {metric} in one of the last {bad_evaluations} evaluations",
        alternative=f"to take the other {steps_left:,} steps, whatever the evaluations say",
    )
