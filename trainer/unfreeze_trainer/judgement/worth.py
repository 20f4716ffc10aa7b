"""Was the training worth it? Pure: a comparison on the validation samples in, a decision out, in a sentence that anybody reads."""

from __future__ import annotations

from dataclasses import dataclass

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_trainer.judgement.paired import Difference


@dataclass(frozen=True)
class Comparison:
    """A trained model beside another one."""

    difference: Difference
    """Its first is the trained one."""
    metric: str
    step: int
    """That the run is at."""
    seconds: float
    """What the other one took."""


def against_classical(found: Comparison, *, name: str, fitted_on: int, samples: int) -> Decision:
    """Return whether a model is worth more than a classical one.

    Parameters
    ----------
    name
        What the classical one is.
    fitted_on, samples
        Training samples that it was fitted on, and all of them.
    """
    difference, metric = found.difference, found.metric
    of = f"{fitted_on:,} of {samples:,}" if fitted_on < samples else f"all {samples:,}"
    one, other, _, low, high = difference.figures()
    on = f" on {of} samples," if fitted_on < samples else ""
    both = f"the model's {metric} is {one}, that of {name}{on} {other}"
    by = "difference" if difference.higher else "lower by"
    interval = f"{by} {low} to {high}, 95 % on {difference.rows:,} validation samples"
    first = {"Yes": "the model is better than a classical one", "No": "a classical model is better"}
    answer = _answer(difference)
    return Decision(
        type="Baseline",
        answer=answer,
        question=f"Is the model better than {name}?",
        message=f"{first.get(answer, 'a classical model may be as good')}: {both} ({interval})",
        step=found.step,
        warning=None if answer == "Yes" else True,
        evidence=_evidence(found, name),
        seconds=found.seconds,
        otherwise=_otherwise(difference),
        alternative=f"the trained model, without a comparison: {metric} {one}. {name[:1].upper()}{name[1:]} was"
        f" fitted on {of} training samples in {found.seconds:.1f} s",
    )


@dataclass(frozen=True)
class Trained:
    """A training from random weights."""

    difference: Difference
    """Its first is the transferred model."""
    steps: int
    planned: int
    """Steps that it was to take; fewer where its time was over."""
    seconds: float


def against_scratch(
    found: Comparison, trained: list[Trained], *, seconds: float, samples: int, solved: bool = False
) -> Decision:
    """Return what transfer is worth: against the best that random weights reach after as many steps, or as many seconds.

    Parameters
    ----------
    found
        The comparison with the better of them.
    trained
        For as many steps; and for as many seconds, where that is something else.
    seconds
        Time of the transferred model's phases.
    samples
        That both were trained on.
    solved
        Whether the transferred model has a solved head, which has no steps: the first is then for training.epochs.
    """
    first_is = "training.epochs, for a solved head has no steps" if solved else "as many steps"
    difference, metric = found.difference, found.metric
    answer = _answer(difference)
    one, _, gain, low, high = difference.figures()
    worth = f"transfer is worth {gain} {metric} ({low} to {high})"
    if not difference.higher:
        worth = f"transfer makes {metric} lower by {gain} ({low} to {high})"
    first = {"Yes": worth, "No": f"random weights do better: {worth}"}
    lengths = [_length(arm, steps="" if place else first_is, seconds=seconds) for place, arm in enumerate(trained)]
    after = " and ".join(
        f"{arm.difference.figures()[1]} from random weights after {length}"
        for arm, length in zip(trained, lengths, strict=True)
    )
    return Decision(
        type="Scratch",
        answer=answer,
        question="Is it worth starting from pretrained weights?",
        message=f"{first.get(answer, f'random weights may do as well: {worth}')} at {samples:,} training samples:"
        f" {one} against {after}",
        step=found.step,
        warning=None if answer == "Yes" else True,
        evidence=[
            Evidence(name=f"{metric} of the model", value=difference.one, seconds=round(seconds, 1)),
            *(
                evidence
                for arm, length in zip(trained, lengths, strict=True)
                for evidence in _evidence_of(arm, metric, length)
            ),
        ],
        seconds=found.seconds,
        otherwise=_otherwise(difference),
        alternative=f"the pretrained weights, without a comparison: {metric} {one} in {seconds:.0f} s. One seed",
    )


def _length(one: Trained, *, steps: str, seconds: float) -> str:
    """Return how long a training from random weights was; `steps` says of the first one what it was to take, and nothing of the second."""
    took = f"{one.seconds:.0f} s, the job's own training {seconds:.0f} s"
    if one.steps < one.planned:
        return f"{one.steps:,} of {one.planned:,} steps, where its time was over ({took})"
    return f"{steps} ({took})" if steps else f"as many seconds ({one.steps:,} steps)"


def _evidence_of(one: Trained, metric: str, length: str) -> list[Evidence]:
    difference = one.difference
    return [
        Evidence(
            name=f"{metric} from random weights after {length}", value=difference.other, seconds=round(one.seconds, 1)
        ),
        Evidence(
            name=f"by how much the model is better: {difference.test}",
            value=difference.gain,
            low=difference.low,
            high=difference.high,
        ),
    ]


def _answer(difference: Difference) -> str:
    if difference.better:
        return "Yes"
    return "No" if difference.worse else "NotSurely"


def _evidence(found: Comparison, name: str) -> list[Evidence]:
    difference, metric = found.difference, found.metric
    return [
        Evidence(name=f"{metric} of the model", value=difference.one),
        Evidence(name=f"{metric} of {name}", value=difference.other, seconds=round(found.seconds, 1)),
        Evidence(
            name=f"by how much the model is better: {difference.test}",
            value=difference.gain,
            low=difference.low,
            high=difference.high,
        ),
    ]


def _otherwise(difference: Difference) -> str:
    """Return what it takes to decide otherwise."""
    if difference.better or difference.worse:
        return "an interval of the difference that holds 0"
    if (rows := difference.rows_to_tell) is None or rows > 10**7:
        return "an interval of the difference that does not hold 0; no number of samples is in sight that gives one"
    return (
        f"an interval of the difference that does not hold 0: if it stays as it is, about {rows:,} validation samples"
    )
