"""About how long a job trains, and what that costs: its operations by the rate of an accelerator, or its forward passes by one that was tried. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from unfreeze_api.grammar.amounts import figure
from unfreeze_api.grammar.durations import duration

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.estimates.trace import Traced


class Card(NamedTuple):
    """An accelerator, by its maker's data sheet."""

    gib: int
    """Of its memory."""
    whole: float
    """Operations a second in float32, in 10^12."""
    half: float
    """In bfloat16 or float16, without sparsity."""


CARDS = {
    "B200": Card(180, 75, 2250),
    "H200": Card(141, 67, 989),
    "H100": Card(80, 67, 989),
    "H100-PCIe": Card(80, 51, 756),
    "A100-80GB": Card(80, 19.5, 312),
    "A100-40GB": Card(40, 19.5, 312),
    "L40S": Card(48, 91.6, 362),
    "L4": Card(24, 30.3, 121),
    "A10G": Card(24, 35, 70),
    "A10": Card(24, 31.2, 125),
    "V100": Card(16, 15.7, 125),
    "T4": Card(16, 8.1, 65),
}
OF_PEAK = (0.1, 0.5)
"""Shares of a card's peak that trainings reach: measured on an H200 were .16 to .29 (docs/speed.md); small models and batches reach less, large ones up to a
half (Chowdhery et al. 2022, arXiv 2204.02311, table 3)."""
OF_STEP = (0.01, 0.05)
"""Seconds that a step on a card takes, however little it computes: its kernels are launched one by one. Assumed."""
OF_MACHINE = (0.8, 1.8)
"""How many times as long as the forward passes that were tried a training of as much work takes, from and to: measured in ten examples were .84 to 1.63."""
_UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


@dataclass(frozen=True)
class Duration:
    """How long a job trains: without its start, its export, and what it waits for."""

    forward: float
    """Operations of a sample's forward pass."""
    passes: int
    """Forward passes that all steps and evaluations are worth."""
    seconds: tuple[float, float] | None
    """From and to; None where nothing tells the rate."""
    place: str
    """What computes, for people; or what to name where that is not known."""
    per_hour: float | None
    """What an hour costs; None where no price is known."""
    most: bool = False
    """Whether it may be less: a strategy that goes on with evidence alone."""

    @property
    def amount(self) -> tuple[float, float] | None:
        """What the training costs, from and to."""
        if self.seconds is None or self.per_hour is None:
            return None
        low, high = (seconds / 3600 * self.per_hour for seconds in self.seconds)
        return low, high

    def sentence(self) -> str:
        """Return it for people; nothing where no operations were counted."""
        if not self.forward:
            return ""
        about = "at most" if self.most else "about"
        text = f"All phases compute {about} {_flop(self.forward * self.passes)}: {self.passes:,} forward passes of a sample, {_flop(self.forward)} each"
        if self.seconds is None:
            return f"{text}. {self.place}"
        low, high = (duration(max(1, round(seconds))) for seconds in self.seconds)
        text += f". {self.place} that takes about {low} to {high}, without start and export"
        if self.amount is not None:
            low, high = (figure(amount, 2) for amount in self.amount)
            text += f", and costs {low} to {high}"
        return f"{text}."

    def to_dict(self) -> dict[str, float | list[float] | None]:
        """Return it for JSON."""
        return {
            "forwardOperations": self.forward,
            "forwardPasses": self.passes,
            "trainingSeconds": None if self.seconds is None else [round(seconds, 3) for seconds in self.seconds],
            "amount": None if self.amount is None else [round(amount, 4) for amount in self.amount],
        }


def duration_of(
    job: ResolvedJob, traced: Traced, *, card: str | None, price: float | None, tried: float | None
) -> Duration:
    """Return about how long a job trains.

    Parameters
    ----------
    card
        One of `CARDS`, or None.
    price
        Of an hour of an accelerator, or of a pod where the job asks for none. None leaves it to the job's budget.
    tried
        Seconds of a sample's forward pass on this machine; None where none was tried.
    """
    place, work = job.distribution, traced.forward * traced.passes
    cards = place.num_nodes * place.accelerators_per_node
    per_hour = job.budget.per_hour if job.budget is not None and job.budget.unit == "money" else None
    if price is not None:
        per_hour = price * (cards or place.num_nodes)
    seconds: tuple[float, float] | None = None
    if card is not None:
        peak = cards * 1e12 * (CARDS[card].whole if job.training.precision == "Float32" else CARDS[card].half)
        steps = traced.planned_steps + traced.test_steps
        slow, fast = (
            max(work / (peak * share), steps * least) for share, least in zip(OF_PEAK, OF_STEP[::-1], strict=True)
        )
        seconds, where = (fast, slow), f"On {cards} {card}"
    elif tried is not None:
        low, high = (traced.passes * tried / place.world_size * share for share in OF_MACHINE)
        seconds, where = (low, high), "On this machine, by a forward pass that was tried,"
    elif cards:
        where = "How long that takes is said where the accelerator is named, like --accelerator H100."
    else:
        why = (
            "its weights are quantised"
            if job.model.quantization
            else "the model would take too much of this machine's memory"
        )
        where = f"How long that takes is not known: no forward pass was tried here, since {why}."
    return Duration(traced.forward, traced.passes, seconds, where, per_hour, most=job.strategy.type == "Auto")


def _flop(operations: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if operations >= size), _UNITS[-1])
    return f"{operations / size:.3g} {unit}"
