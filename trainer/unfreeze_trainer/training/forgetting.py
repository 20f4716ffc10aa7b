"""What a model has lost of what its base could: the base is looked at before the first step, the model at the end of each phase.

Both see the same few rows in the same batches, whatever the number of workers, so that what has not changed shows no difference at all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.spec.adapter import PROMPTS
from unfreeze_trainer.errors import JobError, one_line
from unfreeze_trainer.features.cut import MASK, length_of
from unfreeze_trainer.judgement.forgetting import (
    ANCHOR_LOSS,
    ANSWERS,
    DIVERGENCE,
    NEIGHBOURHOODS,
    Forgotten,
    Measured,
    cka,
    decided,
    neighbours_lost,
    none_lost,
)
from unfreeze_trainer.models.blocks import HEAD
from unfreeze_trainer.objectives.base import IGNORED, PACKED
from unfreeze_trainer.ranking.layers import pooled_rows, watched
from unfreeze_trainer.ranking.order import READ

if TYPE_CHECKING:
    from unfreeze_api.contracts.decision import Decision
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.models.own_head import OwnHead
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import Batch, Task
    from unfreeze_trainer.training.plan import Plan

log = logging.getLogger(__name__)

MAX_SHARE = 0.03
"""Of the time of the training that the gauges take."""
MAX_ROWS, MIN_ROWS = 256, 32
_PASSES = 2.0
"""Forward passes that a step takes for each sample, at least: forward and backward are about three."""
_BATCH = 16
_EVERY = 7
"""One word in so many is masked."""
MAX_PLACES = 8
"""Tokens of a row at which outputs are compared."""
MAX_NUMBERS = 2**25
"""Of the base's outputs that are kept in all, 128 MiB, unless one place of each row takes more."""
OUTPUTS = "outputs"
"""What the place of a model's own vectors is called."""


def rows_for(total: int, *, samples: int, looks: int) -> int:
    """Return how many rows are looked at, so that it takes a small share of the training. Pure.

    Parameters
    ----------
    total
        Rows that there are.
    samples
        That the training takes in all steps.
    looks
        At the base and at the model, in all.
    """
    affordable = int(MAX_SHARE * _PASSES * samples / max(1, looks))
    return min(total, MAX_ROWS, max(MIN_ROWS, affordable))


@dataclass
class _Seen:
    """What one look at a model gives: all rows on every rank, but for outputs, which stay where they were computed."""

    places: dict[str, np.ndarray] = field(default_factory=dict)
    """Features of each place, float32 of shape (rows, width)."""
    losses: np.ndarray | None = None
    """Of a language model, the sum over each row's tokens; float64 of shape (rows,)."""
    units: np.ndarray | None = None
    """Of these tokens, how many."""
    outputs: dict[int, Tensor] = field(default_factory=dict)
    """Logarithms of the base's own probabilities, by row, (places, outputs); only those of this rank."""
    divergence: np.ndarray | None = None
    """KL divergence from the base of each row, the mean over its places."""
    changed: np.ndarray | None = None
    """Share of each row's places whose most probable output is another than the base's."""


class Forgetting:
    """The gauges of a run.

    Parameters
    ----------
    job, task, loaded, engine, plan, freezer
        Of the run; the engine has taken the model over, and it still is the base.
    """

    def __init__(
        self, job: ResolvedJob, task: Task, loaded: LoadedModel, engine: Engine, *, plan: Plan, freezer: Freezer
    ) -> None:
        spec = job.forgetting
        self.budget = spec.budget if spec else None
        self.guard = (spec.guard if spec else None) or "Report"
        self.on, self._job, self._task, self._engine = spec is not None, job, task, engine
        self._loaded, self._freezer, self._plan = loaded, freezer, plan
        self._base: _Seen | None = None
        self._newest: tuple[tuple[int, int], Forgotten] | None = None
        self.fresh = False
        """Whether the newest figures were measured, and not remembered."""
        self.seconds = 0.0
        """Time of the look at the base, in this process."""
        if self.on:
            self.split, self._total = task.looked_at()

    @property
    def watches(self) -> bool:
        """Whether there is something that may be forgotten: weights below the head train."""
        return self.on and any(self._moves(index) for index in range(len(self._plan.phases)))

    @property
    def stops(self) -> bool:
        """Whether evaluations look too, since the training ends beyond the budget."""
        return self.guard == "Stop" and self.watches

    def _moves(self, index: int) -> bool:
        """Return whether a phase trains anything below the head."""
        head = {name for block in self._loaded.blocks if block.name == HEAD for name in block.parameters}
        return any(name not in head for name in self._freezer.chosen_names(self._plan.phases[index]))

    def look_at_base(self) -> None:
        """Compute what the base makes of the rows, before a checkpoint is loaded. Collective.

        Raises
        ------
        JobError
            InvalidData: the rows cannot be read. InvalidModel: a mixture of experts or the like gives no features.
        """
        if not self.watches:
            return
        began = time.perf_counter()
        plan = self._plan
        moving = [phase for phase in plan.phases if self._moves(phase.index)]
        steps = sum(phase.steps for phase in moving)  # those of a head on cached features take no time
        evaluations = steps // plan.evaluate_every if self.stops else 0
        grid = 6 if self.guard == "Interpolate" else 0
        samples = steps * min(self._job.training.batch_size, plan.samples)
        count = rows_for(self._total, samples=samples, looks=2 + len(moving) + evaluations + grid)
        drawn = np.random.default_rng(self._job.training.seed).permutation(self._total)[:count]
        self._rows = np.sort(drawn)
        self._head = self._task.own_head()
        if self._head:
            self._head.to(self._engine.device)
        self._unread: set[int] = set()
        self._headless = False
        with _without_prompt(self._engine.module, self._job):
            base = self._look(None)
            if self._engine.any_rank(self._headless):
                self._head = None
                base = self._look(None)
        if not base.places and base.losses is None:
            raise JobError(
                "InvalidModel",
                f"spec.model.source {self._job.model.source}: no layer of it gives one vector for each sample, so nothing can be said of"
                " what it loses: remove spec.evidence.forgetting",
            )
        unread = self._engine.gather_json(sorted(self._unread), list[int])
        self._kept = ~np.isin(self._rows, [row for rows in unread for row in rows])
        self._base = base
        self.seconds = time.perf_counter() - began

    def measure(self, state: RunState, *, again: bool = False) -> Forgotten | None:
        """Return what the model has lost by now, None where nothing can be; Collective.

        Parameters
        ----------
        state
            Of the run.
        again
            Whether the weights are others than those that this step was measured with.
        """
        if self._base is None or not any(self._moves(index) for index in range(state.phase_index + 1)):
            return None
        place = (state.step, len(state.rollbacks))
        self.fresh = not (self._newest and self._newest[0] == place) or again
        if self._newest and not self.fresh:
            return self._newest[1]
        began = time.perf_counter()
        found = self._compared(self._base, self._look(self._base))
        self._newest = None if again else (place, found)
        state.gauge_seconds += time.perf_counter() - began
        return found

    def decision(self, state: RunState, found: Forgotten | None, *, done: str = "", otherwise: str = "") -> Decision:
        """Return what is to be said of the finished weights. Parameters as of `decided`."""
        if found is None:
            return none_lost(state.step)
        seconds = self.seconds + state.gauge_seconds
        return decided(found, budget=self.budget, step=state.step, seconds=seconds, done=done, unguarded=otherwise)

    def _compared(self, base: _Seen, now: _Seen) -> Forgotten:
        kept = self._kept
        alike = {name: cka(base.places[name][kept], now.places[name][kept]) for name in base.places}
        gauges = []
        anchored = self.split == "anchor"
        if anchored and base.losses is not None and now.losses is not None and base.units is not None:
            gauges.append(Measured.of(ANCHOR_LOSS, (now.losses - base.losses)[kept], base.units[kept]))
        if now.divergence is not None and now.changed is not None:
            divergence = Measured.of(DIVERGENCE, now.divergence[kept])
            answers = Measured.of(ANSWERS, now.changed[kept])
            gauges += [divergence, answers] if base.losses is not None else [answers, divergence]
        if base.places:
            top = list(base.places)[-1]
            gauges.append(Measured.of(NEIGHBOURHOODS, neighbours_lost(base.places[top][kept], now.places[top][kept])))
        return Forgotten(tuple(gauges), alike, int(kept.sum()), anchored)

    def _batches(self) -> tuple[list[np.ndarray], list[list[int]]]:
        """Return the places, among the rows, of this rank's batches, and the indices of their samples; as many on every rank."""
        size = 1 if self._task.wide_outputs else _BATCH
        order = np.arange(len(self._rows))
        lists = [order[low : low + size] for low in range(0, len(order), size)]
        mine = lists[self._engine.rank :: self._engine.world_size]
        rounds = -(-len(lists) // self._engine.world_size)
        return mine, [self._rows[places].tolist() for places in mine] + [[]] * (rounds - len(mine))

    @torch.no_grad()
    def _look(self, base: _Seen | None) -> _Seen:
        """Run the model on the rows. `base` is what the base gave, None for the base itself. Collective."""
        engine, task, head = self._engine, self._task, self._head
        module = engine.module
        places, indices = self._batches()
        seen, gathered = _Seen(), dict[str, np.ndarray]()
        engine.sync_buffers()
        with ExitStack() as stack:
            stack.enter_context(_evaluating(module))
            kept = stack.enter_context(watched(module, self._loaded.blocks))
            if head:
                stack.enter_context(head.watching(module))
            for number, here in enumerate(task.unlabelled(self.split, iter(indices), self._unread)):
                own = places[number] if number < len(places) else np.zeros(0, dtype=np.int64)
                masked = self._masked(here) if head and head.masks else None
                inputs = engine.to_device(here)
                kept.clear()
                with engine.autocast():
                    outputs = task.outputs(module, inputs)
                    said = self._tried(head, kept, inputs, outputs, masked)
                self._take_features(gathered, kept, inputs, outputs, own)
                if said is not None:
                    self._take_outputs(seen, base, gathered, said, own)
                if task.wide_outputs:
                    self._take_losses(gathered, inputs, outputs, own)
        for name, values in gathered.items():
            whole = engine.all_reduce(torch.from_numpy(values)).cpu().numpy()
            if name.startswith("."):
                setattr(seen, name[1:], whole[:, 0])
            else:
                seen.places[name] = whole
        names = [block.name for block in self._loaded.blocks if block.is_layer] + [READ, OUTPUTS]
        seen.places = {name: seen.places[name] for name in names if name in seen.places}
        return seen

    def _masked(self, batch: Batch) -> Tensor | None:
        """Mask one word in `_EVERY` of each row, in place; return their places, (samples, places), -1 where a row has fewer."""
        found = self._task.words(batch)
        if found is None:
            return None
        words, mask = found
        chosen = [row.nonzero().flatten()[_EVERY // 2 :: _EVERY][:MAX_PLACES] for row in words]
        chosen = [one if len(one) else row.nonzero().flatten()[:1] for one, row in zip(chosen, words, strict=True)]
        batch["input_ids"] = batch["input_ids"].clone()
        places = torch.full((len(chosen), max(1, *map(len, chosen))), -1)
        for row, own in enumerate(chosen):
            places[row, : len(own)] = own
            batch["input_ids"][row, own] = mask
        return places

    def _tried(self, head: OwnHead | None, *of_pass: Any) -> list[Tensor] | None:
        """Return what `_said` does; None where the base's head, as it turns out, reads what the trained body does not give."""
        if head is None or self._base is not None:
            return self._said(head, *of_pass)
        if self._headless:
            return None
        try:
            return self._said(head, *of_pass)
        except Exception as error:  # noqa: BLE001 - the base is measured without it
            log.warning("the base's own head cannot be put onto this model, and is not measured: %s", one_line(error))
            self._headless = True
            return None

    def _said(
        self,
        head: OwnHead | None,
        kept: Mapping[str, Tensor],
        inputs: Batch,
        outputs: Tensor,
        masked: Tensor | None,
    ) -> list[Tensor] | None:
        """Return the logits of the base's own outputs, for each sample (places, outputs); None where it has none."""
        if self._task.wide_outputs:
            learned = (self._task.answers_at(inputs)[0] != IGNORED).nonzero().flatten()
            if not len(learned):
                return [outputs[0, :0]]
            most = max(1, min(MAX_PLACES, MAX_NUMBERS // (len(self._rows) * outputs.shape[2])))
            chosen = torch.linspace(0, len(learned) - 1, min(most, len(learned))).round().long()
            return [outputs[0, learned[chosen.to(learned.device)]]]
        if head is None:
            return None
        if head.masks:
            if masked is None:
                return None
            places = masked.to(outputs.device)
            logits = head.outputs(kept.get(READ), inputs, places.clamp(min=0))
            return [own[there] for own, there in zip(logits, places >= 0, strict=True)]
        return list(head.outputs(kept.get(READ), inputs, None))

    def _take_features(
        self,
        gathered: dict[str, np.ndarray],
        kept: Mapping[str, Tensor],
        inputs: Batch,
        outputs: Tensor,
        own: np.ndarray,
    ) -> None:
        found = {**kept, OUTPUTS: outputs} if outputs.ndim == 2 and READ not in kept else dict(kept)  # noqa: PLR2004
        known = dict(inputs)
        if PACKED in inputs:
            known[MASK] = (inputs[PACKED] >= 0).long()
        samples = len(next(iter(inputs.values())))
        prompt = self._job.adapter.virtual_tokens if self._job.adapter else 0
        for name, value in found.items():
            if prompt and value.ndim == 3 and MASK in known and value.shape[1] == length_of(known) + prompt:  # noqa: PLR2004 - tokens
                value = value[:, prompt:]  # noqa: PLW2901 - the text, which a prompt stands before
            pooled = pooled_rows(value, known, samples)
            if pooled is not None:
                whole = gathered.setdefault(name, np.zeros((len(self._rows), pooled.shape[1]), dtype=np.float32))
                whole[own] = pooled[: len(own)].float().cpu().numpy()

    def _take_outputs(
        self,
        seen: _Seen,
        base: _Seen | None,
        gathered: dict[str, np.ndarray],
        said: Sequence[Tensor],
        own: np.ndarray,
    ) -> None:
        """Keep the base's outputs, or compare others with them."""
        if base is not None:
            for name in (".divergence", ".changed"):
                gathered.setdefault(name, np.zeros((len(self._rows), 1)))
        for row, logits in zip(own.tolist(), said, strict=False):
            logs = logits.float().log_softmax(dim=-1)
            if base is None:
                seen.outputs[row] = logs.cpu()
                continue
            before = base.outputs[row].to(logs.device)
            if len(before):
                each = (before.exp() * (before - logs)).sum(dim=-1)
                gathered[".divergence"][row] = float(each.double().mean())
                gathered[".changed"][row] = float((before.argmax(-1) != logs.argmax(-1)).double().mean())

    def _take_losses(self, gathered: dict[str, np.ndarray], inputs: Batch, outputs: Tensor, own: np.ndarray) -> None:
        for name in (".losses", ".units"):
            gathered.setdefault(name, np.zeros((len(self._rows), 1)))
        losses = self._task.loss(outputs, inputs)
        for row, loss in zip(own.tolist(), losses, strict=False):
            gathered[".losses"][row] = float(loss)
            gathered[".units"][row] = int((self._task.answers_at(inputs) != IGNORED).sum())


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and all parts back into their own."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _without_prompt(module: Any, job: ResolvedJob) -> Iterator[None]:
    """Switch off an adapter that is not the base itself at first: prompts begin at random, all others without effect."""
    if not job.adapter or job.adapter.type not in PROMPTS:
        yield
        return
    module.forward = module.base_model.forward  # PEFT's own disable_adapter asks classifiers how they generate
    try:
        yield
    finally:
        del module.forward
