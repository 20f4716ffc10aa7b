"""Before the first step: a job that surely does not fit into memory ends at once, and says with what it would fit.

What a job holds at least is compared with what there is. Where the two are near each other, or nobody can tell, the job
begins: it is refused only where it would have been killed.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unfreeze_api.grammar.sizes import size
from unfreeze_api.tasks import task_type
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.estimates.aside import Aside, AsideError
from unfreeze_trainer.estimates.estimate import AGENT, REST, SHARE, Estimate, estimate_of, resident
from unfreeze_trainer.estimates.room import Room
from unfreeze_trainer.estimates.ways import ways_that_fit
from unfreeze_trainer.models.folders import weight_files
from unfreeze_trainer.models.own_type import file_shapes

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.estimates.trace import PhaseBytes, Traced
    from unfreeze_trainer.estimates.ways import Way
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

SURE = 0.85
"""Of what a job holds at least by the estimate, what has to be there: the rest is the estimate's possible error."""
MOST_SECONDS = 60.0
"""That an estimate may take; the job begins without it then."""
WAYS_SECONDS = 120.0
"""That looking for ways that fit may take."""
_WAIT_SECONDS = MOST_SECONDS + WAYS_SECONDS + 60
_SMALL = 200 * 2**20
"""Bytes of a model's files up to which its activations are bounded by a rule of thumb where its layers do not tell."""
_STATES = 12
"""Times the weights in float32 that are held at once at most: themselves, gradients, moments, copies of all that in an engine or a checkpoint, an export."""
_OF_TOKEN, _OF_VALUE = 0.03, 2000
"""Numbers that are kept for the backward pass, for each token and parameter, and for each value of a picture or sound: at
most. A layer of a transformer of width h keeps about 20 h and 2.5 numbers a head and token (Korthikanti et al. 2022,
arXiv 2205.05198), and has 12 h^2 parameters; by that a ViT-B/16 keeps 330 numbers for a value of its picture. The rest is room."""
_OF_SIDE, _OF_PAIR = 3, 9
"""Numbers that are kept for each row and column of the matrices of a transformer and each token, at most: those of a layer have 18 h of both where it
keeps about 20 h (see above), 23 h where it keeps 26 h (Llama's); and for each pair of tokens in a head of a layer: 2.5, and three times so many in a decoder
beside an encoder."""
_LAYERS, _MATRIX = ("num_hidden_layers", "num_attention_heads"), 2

_MAPPED = ("bfloat16", "float16")
"""Types of weights that are not read into memory, but stay in the pages of their files (see models/own_type.py)."""


def check_memory(job: ResolvedJob, task: Task, link: Link | None) -> None:
    """Compare what a job needs with what there is, before its model is loaded; once in a pod, by its first worker.

    Raises
    ------
    JobError
        DoesNotFit: it needs more than there is, for sure.
    """
    if link is None:
        return
    if os.environ.get("LOCAL_RANK", "0") != "0":
        link.wait_for_memory_check(_WAIT_SECONDS)
        return
    if link.memory_checked():  # workers that start again
        return
    try:
        if has_trained(job):
            log.info("whether the job fits into memory is not looked at again: it has trained already")
        else:
            refuse_what_cannot_fit(job, task, Room.here(job), link.stop_requested)
    except Exception as error:
        if isinstance(error, JobError) and error.reason == "DoesNotFit":
            raise
        # What else is wrong with the job is found, and told, where it belongs.
        log.info("whether the job fits into memory is not known: %s: %s", type(error).__name__, error)
    link.say_memory_checked()


def has_trained(job: ResolvedJob) -> bool:
    """Whether the run's folder has a checkpoint: then a pod that takes over need not wait for an estimate."""
    return next((Path(job.output.path) / "checkpoints").glob("step-*"), None) is not None


def refuse_what_cannot_fit(job: ResolvedJob, task: Task, room: Room, stop: Callable[[], bool] | None = None) -> None:
    """Raise the error of a job that cannot fit; say in the log why nobody looks at another one.

    Parameters
    ----------
    stop
        Says that nobody waits for the job any more.

    Raises
    ------
    JobError
        DoesNotFit.
    """
    if room.host is None and room.accelerator is None:
        return
    if why := not_estimated(job):
        log.info("whether the job fits into memory is not looked at before it begins: %s", why)
        return
    if plainly_fits(job, task, room):
        return
    began = time.monotonic()
    try:
        found = _asked(job, task, room, steps_alone=True, stop=stop)
    except AsideError as error:
        log.info("whether the job fits into memory is not known: %s", error)
        return
    short = too_large(job, found, room)
    log.info("whether the job fits into memory was estimated in %.1f s", time.monotonic() - began)
    if short:
        raise JobError("DoesNotFit", f"{short} {_remedies(job, task, room, found, stop)}")


def not_estimated(job: ResolvedJob) -> str:
    """Return why nobody can tell beforehand what a job holds at least; nothing where it can be told."""
    alone = job.strategy.solver == "Closed" and job.strategy.type == "FeatureExtraction"
    kind = task_type(job.task.type)
    reasons = (
        (
            kind.towers and not kind.describes,
            "what several encoders hold at least is not known: rows may lack a modality",
        ),
        (bool(job.stages), "the memory of stages is not estimated"),
        (job.strategy.type == "Auto", "strategy Auto may end before the rung that needs the most"),
        (alone, "its head is solved without steps"),
        (job.model.quantization is not None, "the memory of quantised weights is not estimated"),
        (job.training.compile, "what compiled layers keep is not estimated"),
    )
    return next((text for so, text in reasons if so), "")


def plainly_fits(job: ResolvedJob, task: Task, room: Room) -> bool:
    """Whether a model fits many times over, by its files and one sample alone: most jobs do, and need no estimate."""
    if (most := at_most(job, task)) is None:
        return False
    needed = resident() + most
    return (room.host is None or room.workers * needed < room.host) and (
        room.accelerator is None or needed < room.accelerator
    )


def at_most(job: ResolvedJob, task: Task) -> int | None:
    """Return a bound of the bytes of tensors that a worker holds, far above most; None for a model whose files do not tell."""
    library, weights, kept = task.library, 0, 0.0  # type: ignore[attr-defined]  # of a task that is composed, as all are
    largest = sorted({int(found("train").argmax()) for found in (task.lengths, task.extents)})
    batches = [*task.batches("train", [[one] for one in largest], epoch_seed=0)]
    values, tokens = (
        max((one.numel() for batch in batches for one in batch.values() if one.is_floating_point() is real), default=0)
        for real in (True, False)
    )
    tokens += getattr(library, "most_prefix", 0)  # a captioner's
    for base in library.bases:
        if not (files := weight_files(base.path, base.where, library=base.name)):
            return None
        known = (base.config.get(name) if base.name == "transformers" else None for name in _LAYERS)
        layers, heads = (number if isinstance(number, int) else 0 for number in known)
        shapes = file_shapes(base.path) if layers and heads and not values else {}
        if _tells(shapes, layers):
            weights += 4 * sum(map(math.prod, shapes.values()))
            sides = _sides(shapes, says=task_type(job.task.type).writes)
            kept += tokens * (_OF_SIDE * sides + _OF_PAIR * tokens * layers * heads)
        else:
            grown = 2 * sum((Path(base.path) / name).stat().st_size for name in files)  # half precision grows
            if grown > 2 * _SMALL:
                return None
            weights += grown
            kept += _OF_VALUE * values + _OF_TOKEN * grown / 4 * tokens
    samples = -(-job.training.batch_size // (job.distribution.world_size * job.training.gradient_accumulation_steps))
    return _STATES * weights + round(4 * kept * samples)


def _tells(shapes: Mapping[str, tuple[int, ...]], layers: int) -> bool:
    """Whether shapes are those of layers of a transformer alone, each of which has weights of its own. Pure."""
    matrices = sum(len(shape) == _MATRIX for shape in shapes.values())
    return bool(shapes) and all(len(shape) <= _MATRIX for shape in shapes.values()) and matrices >= 4 * layers


def _sides(shapes: Mapping[str, tuple[int, ...]], *, says: bool) -> int:
    """Return the rows and columns of all matrices, those of embeddings only where the model says tokens: their logits are kept too. Pure."""
    return sum(sum(shape) for name, shape in shapes.items() if len(shape) == _MATRIX and (says or "embed" not in name))


class Least(NamedTuple):
    """What a worker holds of a job in bytes of tensors, at least."""

    phase: PhaseBytes
    """In which it holds the most."""
    between: int
    """Between steps: weights, moments, the engine's buffers."""
    step: int
    """Most in a step, or while the model says texts by itself."""


def least_of(traced: Traced, job: ResolvedJob) -> Least:
    """Return what a job holds at least by what was traced: no checkpoint under way, no export. Pure."""
    phase = max(traced.phases, key=lambda phase: phase.step)
    between = phase.weights + phase.optimizer
    # Frozen blocks may have computed before, a few samples at a time (see features.cached): what they hold for a moment is none
    # of the step's then.
    frozen = phase.trainable_parameters < traced.parameters and (job.adapter is None or bool(job.model.towers))
    step = max(phase.weights + phase.optimizer + phase.activations if frozen else phase.step, phase.saying)
    return Least(phase, between, max(between, step))


def mapped(traced: Traced, phase: PhaseBytes) -> int:
    """Return the bytes of weights that lie in the base's mapped files during a phase: the kernel takes them back, and all workers share them."""
    half = sum(count for kind, count in traced.weights_by_dtype.items() if kind in _MAPPED)
    widened = phase.weights - sum(traced.weights_by_dtype.values())
    return max(0, half - max(0, widened))


def too_large(job: ResolvedJob, found: Estimate, room: Room) -> str:
    """Return what a job surely needs more than there is, for people; nothing where it may fit. Pure."""
    phase, between, step = least_of(found.traced, job)
    plain = room.accelerator is None and job.distribution.engine == "DDP"  # the others copy what they map
    files = mapped(found.traced, phase) if plain else 0
    states = f"{size(phase.weights - files)} of weights, {size(between - phase.weights)} of moments and buffers"
    if room.accelerator is None:
        first, others = step - files, min(step, between + phase.activations) - files
        parts = f"{states}, {size(phase.activations)} of activations"
        if phase.saying > phase.step:
            parts = f"{states}, the rest of what the model keeps while it says texts (spec.training.evaluate.generate)"
    else:
        # An accelerator's own kernels keep less of the activations than the CPU's, by which they are counted.
        if job.distribution.offload == "None" and SURE * between > room.accelerator:
            return (
                f"the job does not fit into the {size(room.accelerator)} of an accelerator: phase {phase.name} needs at least"
                f" {size(between)} there, {states}, without activations."
            )
        kinds = found.traced.weights_by_dtype
        weights = sum(count for kind, count in kinds.items() if kind not in _MAPPED)
        first, others = weights, 0
        parts = f"{size(weights)} of weights while they are loaded"
    least = found.base + first + (room.workers - 1) * others
    if room.host is None or SURE * least <= room.host:
        return ""
    each = f" in its {room.workers} workers, each of which holds" if room.workers > 1 else ":"
    return (
        f"the job does not fit into {size(room.host)}, {room.owner}: phase {phase.name} needs at least {size(least)}{each}"
        f" {parts}."
    )


def _asked(
    job: ResolvedJob,
    task: Task,
    room: Room,
    *,
    most: float = MOST_SECONDS,
    steps_alone: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Estimate:
    from unfreeze_trainer.estimates.trace import Traced, trace  # loads what most jobs do not need

    found: Traced = Aside(lambda: trace(job, task, heaviest=True, steps_alone=steps_alone), Traced).result(most, stop)
    limits = {"limit": room.host, "accelerator_limit": room.accelerator}
    return replace(
        estimate_of(job, found, base=resident(), **limits),
        workers=room.workers,
        accelerated=room.accelerator is not None,
    )


def _remedies(job: ResolvedJob, task: Task, room: Room, found: Estimate, stop: Callable[[], bool] | None) -> str:
    """Return the cheapest changes with which a job fits, each of them estimated, and the memory that it takes as it is."""
    until = time.monotonic() + WAYS_SECONDS
    # Where weights and moments alone are too much, no smaller batch helps.
    between = least_of(found.traced, job).between
    if room.accelerator is not None:
        full = enough(between) > room.accelerator
    else:
        full = room.host is not None and enough(AGENT + room.workers * (found.base + between)) > room.host

    def ask(changed: ResolvedJob) -> Estimate | None:
        same = (changed.adapter, changed.distribution) == (job.adapter, job.distribution)
        try:
            left = until - time.monotonic()
            return _asked(changed, task, room, most=left, stop=stop) if left > 0 and not (same and full) else None
        except AsideError:  # a combination that this model does not take
            return None

    ways = ways_that_fit(job, ask, pods=not job.distribution.rendezvous_host.startswith("127."))
    if (left := until - time.monotonic()) > 0:
        with suppress(AsideError):
            found = _asked(job, task, room, most=left, stop=stop)
            asks = f"{size(enough(found.host))} of memory"
            if room.accelerator is not None:
                asks += f" and accelerators of {size(enough(found.accelerator))}"
            return f"{_told(ways)} As it is it takes {asks}"
    return _told(ways)


def _told(ways: list[tuple[Way, Estimate]]) -> str:
    if not ways:
        return (
            "Smaller micro batches, gradient checkpointing, another engine and an adapter do not make it fit, as far as could be"
            " tried: take a smaller model."
        )
    texts = [f"{way.change} ({way.cost}; {size(needs.accelerator or needs.host)})" for way, needs in ways]
    return f"It fits with {'; or with '.join(texts)}."


def enough(needed: int) -> int:
    """Return the limit from which on something that needs so many bytes is said to fit."""
    return needed + round(SHARE * needed) + REST
