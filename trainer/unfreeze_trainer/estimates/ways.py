"""What makes a job that is too large smaller: changes of its spec, the cheapest first, each tried on the estimator itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unfreeze_api.spec.adapter import AdapterSpec

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.estimates.estimate import Estimate

MOST = 3


@dataclass(frozen=True)
class Way:
    """A change of a job's spec."""

    change: str
    """What to write where."""
    cost: str
    """What it costs."""
    job: ResolvedJob
    """The job with it."""


def ways_that_fit(job: ResolvedJob, estimate: Callable[[ResolvedJob], Estimate | None]) -> list[tuple[Way, Estimate]]:
    """Return the cheapest changes with which a job fits, at most three, each of another kind.

    Parameters
    ----------
    estimate
        Returns what a changed job needs, None where that is not known.
    """
    found: list[tuple[Way, Estimate]] = []
    for kind in _kinds(job):
        for way in kind:
            asked = estimate(way.job)
            if asked and asked.verdict == "Fits":
                found.append((way, asked))
                break
        if len(found) == MOST:
            break
    return found


def _kinds(job: ResolvedJob) -> Iterator[Iterator[Way]]:
    """Yield kinds of changes, the cheapest first, each from the smallest change on."""
    most = -(-job.training.batch_size // job.distribution.world_size)
    counts = [count for count in _powers(most) if count > job.training.gradient_accumulation_steps]
    yield (
        _trained(job, f"training.gradientAccumulationSteps: {count}", "the same numbers, little time", {"gradient_accumulation_steps": count})
        for count in counts
    )  # fmt: skip
    smallest = {"gradient_accumulation_steps": counts[-1]} if counts else {}
    beside = f" and training.gradientAccumulationSteps: {counts[-1]}" if counts else ""
    if not job.training.gradient_checkpointing:
        saving, text = {"gradient_checkpointing": True}, "training.gradientCheckpointing: true"
        cost = "the same numbers, up to a third more computation"
        yield (
            way
            for way in (
                _trained(job, text, cost, saving),
                *([_trained(job, text + beside, cost, saving | smallest)] if counts else []),
            )
        )
    yield _engines(job, smallest, beside)
    if not job.adapter:
        adapter = AdapterSpec.model_validate({"type": "LoRA"}).completed()
        changed = job.model_copy(update={"adapter": adapter})
        less = "another result: it trains less"
        yield (
            way
            for way in (
                Way("adapter: {type: LoRA}", less, changed),
                _trained(changed, "adapter: {type: LoRA}" + beside, less, smallest),
            )
        )


def _engines(job: ResolvedJob, smallest: dict[str, Any], beside: str) -> Iterator[Way]:
    place = job.distribution
    if place.world_size == 1:
        return
    for text, update in _ENGINES:
        if (place.engine, place.zero_stage) == (update["engine"], update.get("zero_stage", 0)):
            continue
        changed = job.model_copy(update={"distribution": place.model_copy(update={"zero_stage": 0} | update)})
        yield Way(f"distribution: {text}", "the same numbers, more messages", changed)
        if smallest:
            yield _trained(changed, f"distribution: {text}{beside}", "the same numbers, more messages", smallest)


_ENGINES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("{engine: FSDP}", {"engine": "FSDP"}),
    ("{engine: DeepSpeed, deepSpeed: {zeroStage: 2}}", {"engine": "DeepSpeed", "zero_stage": 2}),
    ("{engine: DeepSpeed, deepSpeed: {zeroStage: 3}}", {"engine": "DeepSpeed", "zero_stage": 3}),
)


def _trained(job: ResolvedJob, change: str, cost: str, update: dict[str, Any]) -> Way:
    return Way(change, cost, job.model_copy(update={"training": job.training.model_copy(update=update)}))


def _powers(most: int) -> Iterator[int]:
    count = 2
    while count < most:
        yield count
        count *= 2
    if most > 1:
        yield most
