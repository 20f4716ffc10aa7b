"""What makes a job that is too large smaller: changes of its spec, the cheapest first, each tried on the estimator itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unfreeze_api.adapters import ADAPTERS
from unfreeze_api.spec.adapter import PROMPTS, AdapterSpec
from unfreeze_api.spec.strategy import STRATEGIES, GradualUnfreezingSpec
from unfreeze_api.tasks import task_type

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_api.spec.output import ExportKind
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


def ways_that_fit(
    job: ResolvedJob, estimate: Callable[[ResolvedJob], Estimate | None], *, pods: bool = True, whole: bool = False
) -> list[tuple[Way, Estimate]]:
    """Return the cheapest changes with which a job fits, at most three, each of another kind.

    Parameters
    ----------
    estimate
        Returns what a changed job needs, None where that is not known.
    pods
        Whether a second worker would have memory of its own: it has in a cluster, and not where all share one machine.
    whole
        Whether a model on its own has to come out of it, as `output.exports: [Model]` asks.
    """
    found: list[tuple[Way, Estimate]] = []
    for kind in _kinds(job, pods=pods, whole=whole):
        if cheapest := next(filter(None, (_cheapest(group, estimate) for group in kind)), None):
            found.append(cheapest)
        if len(found) == MOST:
            break
    return found


def _cheapest(group: Sequence[Way], estimate: Callable[[ResolvedJob], Estimate | None]) -> tuple[Way, Estimate] | None:
    """Return the first way of a group that fits, where each one takes less than the one before it; None where none does.

    The last one is asked first: where it does not fit, none does.
    """

    def ask(way: Way) -> tuple[Way, Estimate] | None:
        asked = estimate(way.job)
        return (way, asked) if asked and asked.verdict == "Fits" else None

    found, low, high = ask(group[-1]), 0, len(group) - 1
    while found and low < high:
        middle = (low + high) // 2
        if cheaper := ask(group[middle]):
            found, high = cheaper, middle
        else:
            low = middle + 1
    return found


def _kinds(job: ResolvedJob, *, pods: bool, whole: bool) -> Iterator[Iterator[list[Way]]]:
    """Yield kinds of changes, the cheapest first, each in groups from the smallest change on."""
    most = -(-job.training.batch_size // job.distribution.world_size)
    counts = [count for count in _powers(most) if count > job.training.gradient_accumulation_steps]
    smallest = {"gradient_accumulation_steps": counts[-1]} if counts else {}
    beside = f" and training.gradientAccumulationSteps: {counts[-1]}" if counts else ""
    if counts:
        name, cost = "training.gradientAccumulationSteps", "the same numbers, little time"
        micro = [_trained(job, f"{name}: {count}", cost, {"gradient_accumulation_steps": count}) for count in counts]
        yield iter([micro])
    if not job.training.gradient_checkpointing:
        saving, text = {"gradient_checkpointing": True}, "training.gradientCheckpointing: true"
        cost = "the same numbers, up to a third more computation"
        more = [_trained(job, text + beside, cost, saving | smallest)] if counts else []
        yield iter([[_trained(job, text, cost, saving), *more]])
    yield _engines(job, smallest, beside)
    if pods and job.distribution.world_size == 1:
        yield iter([more] if (more := list(_more_pods(job))) else [])
    if _takes_lora(job):
        whole = whole or task_type(job.task.type).describes
        kinds: tuple[ExportKind, ...] = ("Merged",) if whole else ("Merged", "Adapter")
        yield iter([_with_lora(job, kind, smallest, beside) for kind in kinds])


def _with_lora(job: ResolvedJob, export: ExportKind, smallest: dict[str, Any], beside: str) -> list[Way]:
    """Return ways to train a LoRA in place of the weights; its export is named, since [Model] is refused beside an adapter."""
    adapter = AdapterSpec.model_validate({"type": "LoRA"}).completed()
    output = job.output.model_copy(update={"export": [export]})
    changed = job.model_copy(update={"adapter": adapter, "output": output})
    text = f"adapter: {{type: LoRA}} and output.exports: [{export}]"
    less = "another result: it trains less" + ", and leaves the base's weights where they are" * (export == "Adapter")
    more = [_trained(changed, text + beside, less, smallest)] if smallest else []
    return [Way(text, less, changed), *more]


def _takes_lora(job: ResolvedJob) -> bool:
    """Whether the API takes the job with a LoRA (see spec.combinations)."""
    strategy = job.strategy
    kind = next(kind for kind in STRATEGIES if kind.name == strategy.type)
    gradual = strategy.of(GradualUnfreezingSpec)
    thaws = gradual is not None and gradual.order == "ChainThaw"
    task = task_type(job.task.type)
    bare = task.towers and not task.describes
    refused = kind.no_adapter or thaws or strategy.solver == "Closed" or bare
    return job.adapter is None and not refused


def _takes_engine(job: ResolvedJob, engine: str) -> bool:
    """Whether the API takes the job with an engine that divides what DDP has whole in each worker."""
    evidence, adapter = job.evidence, job.adapter
    if job.stages or job.model.quantization is not None or (evidence and evidence.scratch):
        return False
    if engine == "DeepSpeed" and ((evidence and evidence.forgetting) or task_type(job.task.type).describes):
        return False
    if adapter is None:
        return True
    kind = next(kind for kind in ADAPTERS if kind.name == adapter.type)
    shares = adapter.type == "PEFT" or (adapter.type in PROMPTS and job.task.type == "Seq2SeqLM")
    return not (kind.whole_gradients or (shares and engine == "FSDP"))


def _engines(job: ResolvedJob, smallest: dict[str, Any], beside: str) -> Iterator[list[Way]]:
    place, cost = job.distribution, "the same numbers, more messages"
    if place.world_size == 1:
        return
    for text, update in _ENGINES:
        engine, stage = update["engine"], update.get("zero_stage", 0)
        compiled = job.training.compile and stage == 3  # noqa: PLR2004
        if (place.engine, place.zero_stage) == (engine, stage) or compiled or not _takes_engine(job, engine):
            continue
        there = place.model_copy(update={"zero_stage": 0, "offload": "None"} | update)
        changed = job.model_copy(update={"distribution": there})
        more = [_trained(changed, f"distribution: {text}{beside}", cost, smallest)] if smallest else []
        yield [Way(f"distribution: {text}", cost, changed), *more]


def _more_pods(job: ResolvedJob) -> Iterator[Way]:
    """Yield ways to divide over more pods what one worker holds alone."""
    if not _takes_engine(job, "FSDP"):
        return
    for nodes in (2, 4, 8):
        if nodes <= job.training.batch_size:
            place = job.distribution.model_copy(
                update={"num_nodes": nodes, "engine": "FSDP", "zero_stage": 0, "offload": "None"}
            )
            text = f"distribution: {{numNodes: {nodes}, engine: FSDP}}"
            yield Way(text, "the same numbers, more pods", job.model_copy(update={"distribution": place}))


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
