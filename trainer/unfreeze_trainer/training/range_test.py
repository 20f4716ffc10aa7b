"""The range test of `learningRate.rates: Auto`: head first, the rest frozen, then the backbone with the head at a tenth of its chosen rate.

It takes steps with the run's own batches, engine and optimizer before the first phase. Weights, buffers and moments are then those of before,
and randomness of a step depends on nothing but its number: so the run is the one that the chosen rates make when they are given.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from unfreeze_api.tasks import task_type
from unfreeze_trainer.engines.base import persistent_buffers
from unfreeze_trainer.engines.scaling import LossScale
from unfreeze_trainer.judgement.rates import KEPT, WITH_BACKBONE, Curve, choose, decided, ramp, settle, steps_for
from unfreeze_trainer.link import tell
from unfreeze_trainer.models.hook import StepHook
from unfreeze_trainer.phases.compile import Phase
from unfreeze_trainer.runs.rates import ChosenRates, Tested, read_rates, store_rates
from unfreeze_trainer.seeds import seed_everything
from unfreeze_trainer.training.coupled import coupled_step
from unfreeze_trainer.training.loop import plain_step
from unfreeze_trainer.training.meter import StopRequested

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.feed import Feed
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.runs.folder import RunFolder
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.plan import Plan
    from unfreeze_trainer.training.unused import Evidence

log = logging.getLogger(__name__)

_UNIT, _HELD = 1e-12, 1e-9
"""Peak rate of what is tested: the factor of a step is its rate over this. What is held has a peak above the second; a part of an
adapter may have a multiple of the first."""


@dataclass(frozen=True)
class Part:
    """What a test trains."""

    name: str
    phase: Phase
    prior: float


def parts(job: ResolvedJob, plan: Plan, freezer: Freezer) -> list[Part]:
    """Return what is tested, one after the other: a new head, and the phase that trains most of what lies below; nothing without steps."""
    rate, head = job.strategy.learning_rate, plan.blocks[-1]
    if all(phase.solved for phase in plan.phases):
        return []
    largest = max(plan.phases, key=lambda phase: len(phase.trainable))
    alone = replace(largest, trainable=(head,), learning_rates={head: rate.head})
    own = set(freezer.trainable_names(alone)) if head in largest.trainable else set()
    found = []
    headless = bool(task_type(job.task.type).no_head) if plan.headless is None else plan.headless
    if own and not headless:
        found.append(Part("head", alone, rate.head))
    if set(freezer.trainable_names(largest)) - own:
        found.append(Part("backbone", largest, rate.backbone))
    return found


class RangeTest:
    """Chooses the peak learning rates of a run.

    Parameters
    ----------
    job, task, engine, feed, freezer, plan, link
        Of the run; the engine has taken the model over, no phase has begun and no checkpoint is loaded.
    evidence
        Which weights get no gradient.
    """

    def __init__(
        self,
        job: ResolvedJob,
        task: Task,
        engine: Engine,
        *,
        feed: Feed,
        freezer: Freezer,
        plan: Plan,
        evidence: Evidence,
        link: Link | None,
    ) -> None:
        self._job, self._task, self._engine, self._feed = job, task, engine, feed
        self._freezer, self._plan, self._evidence, self._link = freezer, plan, evidence, link

    def rates(self, folder: RunFolder) -> ChosenRates:
        """Return what the run has chosen or chooses now, which is written down then. Collective.

        While there is no checkpoint, data and base may be others than those that it has chosen by: then it chooses anew.

        Raises
        ------
        StopRequested
            All ranks have agreed to stop; it begins anew with the next start.
        """
        fingerprint = folder.identity.fingerprint
        known = read_rates(folder.path, fingerprint) if self._engine.rank == 0 else None
        seen = folder.identity.seen("data", "base")
        if known and known.found_on != seen and not folder.checkpoints.own_steps():
            known = None
        if known := self._engine.broadcast_json(known, ChosenRates | None):
            return known
        chosen = self._choose(fingerprint).model_copy(update={"found_on": seen})
        if folder.generation:
            store_rates(chosen, folder.generation, folder.path)
        return chosen

    def _choose(self, fingerprint: str) -> ChosenRates:
        began, rate, planned = time.perf_counter(), self._job.strategy.learning_rate, self._plan.total_steps
        self._freezer.unused = frozenset(self._evidence.unused)
        if self._evidence.at_times or self._evidence.by_chance:
            self._engine.expect_missing(sorted(self._evidence.at_times))
        tested = parts(self._job, self._plan, self._freezer)
        steps = steps_for(planned, tests=len(tested))
        found = []
        head, backbone = rate.head, rate.backbone
        names = {name for part in tested for name in self._freezer.trainable_names(part.phase)}
        kept = self._kept(names) if steps else None
        for part in tested if steps else ():
            held = head * WITH_BACKBONE if len(tested) > 1 and part.name == "backbone" else None
            curve = self._test(part, ramp(part.prior, steps - 1), held)
            self._restore(names, kept)
            chosen = choose(curve, planned)
            found.append((curve, chosen))
            if part.name == "head":
                head, backbone = chosen.rate, chosen.rate * rate.backbone / rate.head
            elif len(tested) == 1:
                head, backbone = chosen.rate * rate.head / rate.backbone, chosen.rate
            else:
                backbone = settle(chosen, head, alike=rate.backbone == rate.head)
        decision = decided(
            found,
            head=head,
            backbone=backbone,
            before=(rate.head, rate.backbone),
            planned=0 if all(phase.solved for phase in self._plan.phases) else planned,
            seconds=time.perf_counter() - began,
        )
        tests = [
            Tested(part=curve.part, rates=curve.rates, losses=curve.losses, before=curve.before) for curve, _ in found
        ]
        chosen_rates = ChosenRates(
            fingerprint=fingerprint, head=head, backbone=backbone, tests=tests, decision=decision
        )
        return self._engine.broadcast_json(chosen_rates, ChosenRates)

    def _kept(self, names: set[str]) -> dict[str, Tensor] | None:
        """Return copies of what the tests change on the CPU; None where that is much: the base is then loaded once more."""
        engine, share = self._engine, sum(self._engine.shapes[name].numel() for name in names)
        if engine.divides or share > KEPT * sum(shape.numel() for shape in engine.shapes.values()):
            return None
        parameters = {name: one for name, one in engine.module.named_parameters() if name in names}
        tensors = parameters | persistent_buffers(engine.module)
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}

    def _restore(self, names: set[str], kept: dict[str, Tensor] | None) -> None:
        """End a test, and put back what it has changed; without gradients and moments there is room for the base."""
        engine = self._engine
        engine.skips()
        engine.end()
        if kept is None:
            base = self._task.build_model().module
            parameters = {name: one.detach() for name, one in base.named_parameters() if name in names}
            kept = parameters | persistent_buffers(base)
        engine.load_weights(kept)
        if engine.loss_scale:
            engine.loss_scale = LossScale(engine.device)

    def _test(self, part: Part, rates: list[float], head: float | None) -> Curve:
        """Train a part by rates that rise, until they burst its loss. Collective.

        Parameters
        ----------
        part, rates
            What is trained, and how; one step more is computed, and not taken.
        head
            Rate of the head where it is held; None where it is what is tested, or rises with the others.
        """
        engine, seed, phase = self._engine, self._job.training.seed, self._peaks(part, head)
        take, taken, losses = coupled_step if self._task.couples else plain_step, list[float](), list[float]()
        self._freezer.apply(phase)
        engine.begin(self._freezer.groups(phase, self._job.training.weight_decay), {})
        before = self._untrained(part, len(rates) + 1)
        for step, micros in self._feed.steps(0, len(rates) + 1):
            tell(self._link, f"range test of the {part.name}: step {step + 1} of at most {len(rates) + 1}")
            seed_everything(seed, step, engine.rank)
            rate = rates[min(step, len(rates) - 1)]
            engine.set_learning_rates(rate / _UNIT, held=math.inf if head is None else _HELD)
            total, units = 0.0, 0
            for micro, loss in take(engine, self._task, StepHook(), micros, (seed, step, engine.rank)):
                if micro.samples:
                    total, units = total + float(loss), units + micro.units
            losses.append(self._mean(total, units))
            curve = Curve(part.name, part.prior, [*taken], [*losses], before[: len(losses)] or losses[:1] * len(losses))
            if step == len(rates) or (taken and curve.over):
                break
            engine.step()
            taken.append(rate)
        told = ", ".join(f"{rate:.1e} {one:.3g}" for rate, one in curve.after)
        log.info("range test of the %s, loss in proportion to that of before: %s", part.name, told)
        return curve

    @torch.no_grad()
    def _untrained(self, part: Part, steps: int) -> list[float]:
        """Return the mean losses of batches by the weights of before, with the same dropout; none of losses that couple samples. Collective."""
        engine, seed, found = self._engine, self._job.training.seed, list[float]()
        if self._task.couples:
            return found
        for step, micros in self._feed.steps(0, steps):
            tell(self._link, f"range test of the {part.name}: losses of {steps} batches before it")
            seed_everything(seed, step, engine.rank)
            total, units = 0.0, 0
            for micro in micros:
                batch = engine.to_device(micro.tensors)
                with engine.autocast():
                    loss = self._task.loss(self._task.forward(engine.model, batch), batch).sum()
                if micro.samples:
                    total, units = total + float(loss), units + micro.units
            found.append(self._mean(total, units))
        return found

    def _mean(self, total: float, units: int) -> float:
        """Return the mean loss of a step over all ranks. Raises StopRequested on all of them where one is asked to stop."""
        stop = self._link is not None and self._link.stop_requested()
        figures = self._engine.all_reduce(torch.tensor([total, units, stop], dtype=torch.float64)).tolist()
        if figures[2]:
            raise StopRequested
        return float(figures[0] / max(1.0, figures[1]))

    def _peaks(self, part: Part, head: float | None) -> Phase:
        """Return the phase of a test: peaks in proportion, the highest `_UNIT`, and that of a head that is held."""
        name, given = self._plan.blocks[-1], part.phase.learning_rates
        peaks = {block: peak / part.prior * _UNIT for block, peak in given.items()}
        return replace(part.phase, learning_rates=peaks if head is None else peaks | {name: head})
