"""What a model has lost of what its base could: the base is looked at before the first step, the model at the end of each phase.

Both see the same few rows in the same batches, whatever the number of workers, so that what has not changed shows no difference at all.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.judgement.forgetting import (
    ANCHOR_LOSS,
    ANSWERS,
    DIVERGENCE,
    NEIGHBOURHOODS,
    PAIRS,
    Forgotten,
    Measured,
    cka,
    decided,
    neighbours_lost,
    none_lost,
    of_towers,
    pairs_lost,
)
from unfreeze_trainer.models.blocks import of_head
from unfreeze_trainer.runs.pull import steps_between
from unfreeze_trainer.training.looks import Look, Seen

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_api.contracts.decision import Decision
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.plan import Plan

MAX_SHARE = 0.03
"""Of the time of the training that the gauges take."""
MAX_ROWS, MIN_ROWS = 256, 32
_PASSES = 2.0
"""Forward passes that a step takes for each sample, at least: forward and backward are about three."""
_ALIKE = 1e-4
"""Nats of KL divergence at which outputs are those of the base but for rounding and steps that are none."""
FEWEST = 8
"""Rows that are replayed, and as many that are measured then."""


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


def require_read(read: int, rows: int, split: str) -> None:
    """Raise JobError where too few of the rows that are looked at can be read: of none it would be said that nothing is lost."""
    if read < FEWEST:
        field = "evidence.forgetting.anchor.source" if split == "anchor" else "data.validation"
        raise JobError(
            "InvalidData",
            f"spec.{field}: {read} of the {rows} rows that are looked at can be read, which tell nothing of what a model has lost:"
            f" correct the others, {FEWEST} are needed",
        )


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
        self._base: Seen | None = None
        self._newest: tuple[tuple[int, int], Forgotten] | None = None
        self._told: tuple[int, int] | None = None
        self.seconds = 0.0
        """Time of the look at the base, in this process."""
        self.mixed: dict[str, Tensor] = {}
        """Of guard Interpolate, what stands in the place of the best checkpoint's weights, by name."""
        if self.on:
            self.split, self.total = task.looked_at()

    @property
    def watches(self) -> bool:
        """Whether there is something that may be forgotten: weights below the head train."""
        return self.on and any(self.moves(index) for index in range(len(self._plan.phases)))

    @property
    def stops(self) -> bool:
        """Whether the training ends at an evaluation beyond the budget."""
        return self.guard in ("Stop", "Hold") and self.watches

    @property
    def follows(self) -> bool:
        """Whether evaluations look too."""
        return self.stops or (self.guard == "Replay" and self.watches)

    def moves(self, index: int) -> bool:
        """Return whether a phase trains anything below the head."""
        return index in self._moving

    @cached_property
    def _moving(self) -> frozenset[int]:
        head = frozenset() if self._task.heads_of_base else of_head(self._loaded.blocks)
        chosen = self._freezer.chosen_names
        return frozenset(phase.index for phase in self._plan.phases if not head.issuperset(chosen(phase)))

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
        moving = [phase for phase in plan.phases if self.moves(phase.index)]
        steps = sum(phase.steps for phase in moving)  # those of a head on cached features take no time
        evaluations = steps // plan.evaluate_every if self.follows else 0
        grid = 6 if self.guard == "Interpolate" else 0
        steering = steps // steps_between(steps, plan.evaluate_every) if self.guard == "Hold" else 0
        total = self.total // 2 if self.guard == "Replay" else self.total  # the others are replayed
        if self.guard == "Replay" and total < FEWEST:
            raise JobError(
                "InvalidData",
                f"spec.evidence.forgetting.anchor.source: of {self.total} rows one half is to be replayed and the other one measured: give"
                f" {2 * FEWEST} or more",
            )
        samples = steps * min(self._job.training.batch_size, plan.samples)
        count = rows_for(total, samples=samples, looks=2 + len(moving) + max(evaluations, steering) + grid)
        drawn = np.random.default_rng(self._job.training.seed).permutation(self.total)[:count]
        head = self._task.own_head()
        if head:
            head.to(self._engine.device)
        parts = self._job, self._task, self._loaded, self._engine
        self.look = Look(*parts, split=self.split, rows=np.sort(drawn), head=head)
        base = self.look.at_base()
        if not base.places and base.losses is None:
            raise JobError(
                "InvalidModel",
                f"spec.model.source {self._job.model.source}: no layer of it gives one vector for each sample, so nothing can be said of"
                " what it loses: remove spec.evidence.forgetting",
            )
        self.kept = self.look.read()
        require_read(int(self.kept.sum()), len(drawn), self.split)
        self._base = base
        self.seconds = time.perf_counter() - began

    @property
    def base(self) -> Seen:
        """What the base makes of the rows, once it has been looked at."""
        assert self._base is not None
        return self._base

    def forget_figures(self) -> None:
        """Measure again at this step, since the weights are others than those that it was measured with."""
        self._newest = None

    def news(self) -> bool:
        """Return whether the newest figures are of a step that was not asked about before."""
        before, self._told = self._told, self._newest[0] if self._newest else None
        return self._told is not None and self._told != before

    def measure(self, state: RunState, *, again: bool = False, until: int | None = None) -> Forgotten | None:
        """Return what the model has lost by now, None where nothing can be; Collective.

        Parameters
        ----------
        state
            Of the run.
        again
            Whether the weights are others than those that this step was measured with.
        until
            Phase that the weights come from: what those after it have trained is not in them. None for the present one.
        """
        last = state.phase_index if until is None else until
        if self._base is None or not any(self.moves(index) for index in range(last + 1)):
            return None
        place = (state.step, len(state.rollbacks))
        if self._newest and self._newest[0] == place and not again:
            return self._newest[1]
        began = time.perf_counter()
        found = self.compared(self._base, self.look.at(self._base))
        self._newest = None if again else (place, found)
        state.gauge_seconds += time.perf_counter() - began
        return found

    def decision(
        self, state: RunState, found: Forgotten | None, *, done: str = "", otherwise: str = "", undone: bool = False
    ) -> Decision:
        """Return what is to be said of the finished weights. Parameters as of `decided`."""
        if found is None:
            return none_lost(state.step, done)
        seconds = self.seconds + state.gauge_seconds + state.guard_seconds
        return decided(
            found, budget=self.budget, step=state.step, seconds=seconds, done=done, unguarded=otherwise, undone=undone
        )

    def compared(self, base: Seen, now: Seen) -> Forgotten:
        """Return what has been lost between two looks."""
        kept, gauges = self.kept, list[Measured]()
        alike = {name: cka(base.places[name][kept], now.places[name][kept]) for name in base.places}
        anchored = self.split == "anchor"
        if anchored and base.losses is not None and now.losses is not None and base.units is not None:
            gauges.append(Measured.of(ANCHOR_LOSS, (now.losses - base.losses)[kept], base.units[kept]))
        if now.divergence is not None and now.changed is not None:
            divergence = Measured.of(DIVERGENCE, now.divergence[kept])
            answers = Measured.of(ANSWERS, now.changed[kept], answers=bool((now.divergence[kept] > _ALIKE).any()))
            gauges += [divergence, answers] if base.losses is not None else [answers, divergence]
        if self._task.joins:
            alike, gauges = of_towers(base.places, now.places, kept)
            if anchored and self._task.heads_of_base:
                gauges.append(Measured.of(PAIRS, pairs_lost(base.places, now.places, kept)))
        elif base.places:
            top = list(base.places)[-1]
            gauges.append(Measured.of(NEIGHBOURHOODS, neighbours_lost(base.places[top][kept], now.places[top][kept])))
        unseen = tuple(name for name in base.places if name not in alike)
        return Forgotten(tuple(gauges), alike, int(kept.sum()), anchored, unseen)
