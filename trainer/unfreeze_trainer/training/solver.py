"""`solver: Closed`: the head of a phase that trains nothing else, found on what it is given of each training sample.

All ranks compute a share of the vectors and hold all of them; folds are shared out too. Rank 0 finds the head, so that the result
does not depend on where the folds were computed. Nothing is kept on the way: a start after a kill does it again, with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unfreeze_api.contracts.decision import Decision
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.features.convex import STRENGTHS, Head, Problem, few_threads, folds_of
from unfreeze_trainer.features.linear import Given, LinearHead, given
from unfreeze_trainer.features.room import available_bytes
from unfreeze_trainer.judgement.strengths import Tried, best_of, chosen, is_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.features.cached import CachedTask
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.decisions import Decisions
    from unfreeze_trainer.training.trainable import Trainable

_FIELD = "spec.strategy.solver Closed"
_WAY_OUT = "Set solver to Gradient"
_COPIES = 3
"""Of all vectors in float64, while they are turned to their axes."""


def require_solvable(task: Task, loaded: LoadedModel, phases: Sequence[Phase]) -> LinearHead | None:
    """Return the head that a solver finds in one of the phases; None where there is none to find.

    Raises
    ------
    JobError
        InvalidStrategy: it is not one linear layer, or what it is given or its loss forbids it.
    """
    if not any(phase.solved for phase in phases):
        return None
    found = LinearHead.of(loaded.module, loaded.blocks[-1])
    if isinstance(found, str):
        raise _refusal(f"needs a head of one linear layer, and {found}")
    if task.not_convex:
        raise _refusal(f"needs a loss with one minimum, and {task.not_convex}")
    if not task.repeats("train"):
        raise _refusal("needs training samples that are the same each time, and these vary from epoch to epoch")
    if task.splits["train"] < 2:  # noqa: PLR2004
        raise _refusal("needs 2 training samples at least")
    return found


def _refusal(why: str) -> JobError:
    return JobError("InvalidStrategy", f"{_FIELD} {why}. {_WAY_OUT}")


@dataclass(frozen=True)
class _Rows:
    """Vectors in the order of the folds, each fold a range of them."""

    problem: Problem
    folds: Sequence[slice]
    weights: Tensor

    def others(self, fold: int) -> list[slice]:
        """Return the rows of all folds but one."""
        held = self.folds[fold]
        return [slice(0, held.start), slice(held.stop, self.folds[-1].stop)]


class Solver:
    """Finds heads.

    Parameters
    ----------
    task, engine, state, trainable, decisions
        Of the run.
    head
        What it finds; None where it is not asked.
    seed
        Deals out the folds.
    """

    def __init__(
        self,
        task: CachedTask,
        engine: Engine,
        state: RunState,
        *,
        trainable: Trainable,
        decisions: Decisions,
        head: LinearHead | None,
        seed: int,
    ) -> None:
        self._task, self._engine, self._state = task, engine, state
        self._trainable, self._decisions, self._head, self._seed = trainable, decisions, head, seed

    def solve(self, phase: Phase, *, tell: Callable[[str], None]) -> None:
        """Have the engine hold the best head of a phase that has begun, and take note of the step that it stands for. Collective.

        Parameters
        ----------
        phase
            It trains the head alone.
        tell
            Called now and then with what goes on; may raise, on every rank.

        Raises
        ------
        JobError
            InvalidStrategy: the head is given something else than a vector of each sample, or these have no place in memory.
        """
        began, engine, state, head = time.perf_counter(), self._engine, self._state, self._head
        assert head is not None
        self._require_room(head)

        def beat(done: int, samples: int) -> None:
            tell(f"the frozen base has computed {done:,} of {samples:,} samples for its head")

        found = given(self._task, engine, head, "train", batch=self._task.batch, beat=beat)  # type: ignore[arg-type]
        if isinstance(found, str):
            raise _refusal(f"cannot be used with this model: {found}")
        with few_threads(found.vectors.numel() * head.outputs):
            tried, weights, figures = self._find(found, head, tell)
        loss, iterations, gradient = figures
        engine.skips()
        engine.end()
        engine.load_weights(weights)
        self._trainable.resume({})
        self._trainable.begin(phase)
        state.step, state.phase_steps, state.loss, state.moved = phase.first_step + phase.steps, phase.steps, loss, True
        decision = chosen(
            tried,
            samples=len(found.samples),
            iterations=iterations,
            gradient=gradient,
            seconds=time.perf_counter() - began,
            step=state.step,
        )
        self._decisions.add(engine.broadcast_json(decision, Decision))

    def _find(
        self, found: Given, head: LinearHead, tell: Callable[[str], None]
    ) -> tuple[list[Tried], dict[str, Tensor], tuple[float, int, float]]:
        """Return what was tried, the weights by name, and of the result loss, iterations and gradient. Collective."""
        engine, rows = self._engine, self._rows(found, head)
        tried: list[Tried] = []
        starts = [rows.problem.blank() for _ in rows.folds]
        while len(tried) < len(STRENGTHS) and not is_over(tried):
            strength = STRENGTHS[len(tried)]
            tell(f"looking for the strength of the regularisation: {strength:.3g}")
            tried.append(self._try(rows, strength, starts))
        tell("finding the head")
        best = tried[best_of(tried)]
        whole = slice(0, rows.folds[-1].stop)
        weights: dict[str, Tensor] = {}
        result = Head(torch.empty(0), torch.empty(0))
        if engine.rank == 0:
            result = rows.problem.solve(best.strength, rows.problem.blank(), [whole], fine=True)
            weights = head.named(*rows.problem.layer(result))
        weights = engine.broadcast_object(weights)
        figures = engine.broadcast_json((result.loss, result.iterations, result.gradient), tuple[float, int, float])
        return tried, weights, figures

    def _require_room(self, head: LinearHead) -> None:
        size = _COPIES * 8 * head.inputs * self._task.splits["train"]
        if self._engine.any_rank(size > (room := 2 * available_bytes())):
            raise _refusal(
                f"holds vectors of {self._task.splits['train']:,} training samples in memory, {size / 1e9:.1f} GB, and there is room for"
                f" {room / 1e9:.1f}: give the pods more memory"
            )

    def _rows(self, found: Given, head: LinearHead) -> _Rows:
        """Put rows into the order of their folds."""
        targets, count = found.targets, len(found.samples)
        if count < 2:  # noqa: PLR2004
            raise _refusal("needs 2 training samples at least that can be read")
        labels = targets.numpy() if targets.ndim == 1 and not targets.is_floating_point() else None
        dealt = [torch.from_numpy(fold) for fold in folds_of(count, labels, self._seed)]
        order = torch.cat(dealt)
        ordered = Given(found.vectors[order], targets[order], found.samples[order.numpy()])
        chances = self._task.chances("train")
        weights = torch.ones(count, dtype=torch.float64)
        if chances is not None:
            weights = torch.from_numpy(chances[ordered.samples]) * self._task.splits["train"]

        def loss(outputs: Tensor, part: slice) -> Tensor:
            return self._task.loss(outputs, ordered.batch(part))

        ends = torch.tensor([len(fold) for fold in dealt]).cumsum(0).tolist()
        folds = [slice(end - len(fold), end) for end, fold in zip(ends, dealt, strict=True)]
        problem = Problem(ordered.vectors, loss, weights, outputs=head.outputs, bias=head.bias)
        return _Rows(problem, folds, weights)

    def _try(self, rows: _Rows, strength: float, starts: list[Head]) -> Tried:
        """Find a head for each fold on the others, from the one with the strength before; the ranks share the folds out. Collective."""
        mine: dict[str, float] = {}
        for fold in range(self._engine.rank, len(rows.folds), self._engine.world_size):
            starts[fold] = rows.problem.solve(strength, starts[fold], rows.others(fold))
            mine[str(fold)] = rows.problem.losses(starts[fold], rows.folds[fold])
        found = {
            int(fold): loss for part in self._engine.gather_json(mine, dict[str, float]) for fold, loss in part.items()
        }
        counts = [float(rows.weights[fold].sum()) for fold in rows.folds]
        sums = [found[fold] for fold in range(len(counts))]
        return Tried(
            strength, [loss / count for loss, count in zip(sums, counts, strict=True)], sum(sums) / sum(counts)
        )
