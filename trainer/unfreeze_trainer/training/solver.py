"""`solver: Closed`: the head of a phase that trains nothing else, found on what it is given of each training sample.

All ranks compute a share of the vectors and hold all of them; folds are shared out too. Rank 0 finds the head, so that the result
does not depend on where the folds were computed. Nothing is kept on the way: a start after a kill does it again, with the same bits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.spec.strategy import AutoSpec
from unfreeze_api.tasks import task_type
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.features.convex import STRENGTHS, Head, Problem, few_threads, folds_of
from unfreeze_trainer.features.linear import Given, LinearHead, given
from unfreeze_trainer.features.room import available_bytes
from unfreeze_trainer.judgement.strengths import Tried, best_of, chosen, is_over
from unfreeze_trainer.models.modes import to_evaluation
from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.training.beside import on_each
from unfreeze_trainer.training.dry_run import traceless

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.features.cached import CachedTask
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.decisions import Decisions
    from unfreeze_trainer.training.trainable import Trainable

log = logging.getLogger(__name__)

_FIELD = "spec.strategy.solver Closed"
_WAY_OUT = "Set solver to Gradient"
_COPIES = 3
"""Of all vectors in float64, while they are turned to their axes."""
_COMPARED = 8
_ROUNDING = {torch.float32: 1e-2, torch.bfloat16: 0.1, torch.float16: 0.1}
"""What outputs may differ by from those of the head alone, as a share of the largest."""
_UNASKED_BYTES = 2**31
"""Of all vectors with their copies, that a solver takes which nobody has asked for."""
_TRIED = 8
"""Samples on which a model shows whether its head can be solved, at most."""
_ALIKE = 0.01
"""Share of their size by which vectors of samples differ at least: a head that tells apart what is more alike has weights of thousands, by which the
gradients of all blocks below it grow, and which no rate moves that is sane for them. MiniLM gives .94, with random weights .25, a tiny BERT
with random ones .002."""


def require_solvable(
    task: Task, loaded: LoadedModel, phases: Sequence[Phase], *, asked: bool = True
) -> LinearHead | None:
    """Return the head that a solver finds in one of the phases; None where there is none to find.

    Parameters
    ----------
    task, loaded, phases
        Of the job.
    asked
        Whether the job asks for a solver by name: then samples that vary are refused. Of those of Auto the solver reads what
        evaluations read.

    Raises
    ------
    JobError
        InvalidStrategy: it is not one linear layer, or what it is given or its loss forbids it.
    """
    if not any(phase.solved for phase in phases):
        return None
    found = _solvable(task, loaded)
    if isinstance(found, str):
        raise _refusal(found)
    if asked and not task.repeats("train"):
        raise _refusal("needs training samples that are the same each time, and these vary from epoch to epoch")
    return found


def _solvable(task: Task, loaded: LoadedModel) -> LinearHead | str:
    """Return the head of a model, or why no solver finds it, as a part of a message."""
    found = LinearHead.of(loaded.module, loaded.blocks[-1])
    if isinstance(found, str):
        return f"needs a head of one linear layer, and {found}"
    if task.not_convex:
        return f"needs a loss with one minimum, and {task.not_convex}"
    if task.splits["train"] < 2:  # noqa: PLR2004
        return "needs 2 training samples at least"
    return found


def with_solver(
    job: ResolvedJob,
    task: Task,
    loaded: LoadedModel,
    *,
    runs: bool = True,
    any_rank: Callable[[bool], bool] = bool,
) -> ResolvedJob:
    """Return a job of Auto that says how the head of its first rung is found, where it does not: solved, if that is possible.

    It is where the rung is a FeatureExtraction without epochs and without an adapter, the head one linear layer whose outputs are the
    model's, the loss convex, and the vectors of all samples small. Collective with `any_rank`.

    Parameters
    ----------
    job, task, loaded
        The model as `task.build_model()` made it.
    runs
        Whether the model can compute, and is tried on a few samples.
    any_rank
        Returns whether something is so on any rank.
    """
    auto = job.strategy.of(AutoSpec)
    if auto is None or job.strategy.solver:
        return job
    why = _unsolved(job, auto, task, loaded, runs=runs)
    if any_rank(bool(why)):
        log.info("the head of the first rung is found by steps: %s", why or "another worker says so")
        return job.with_solver("Gradient")
    return job.with_solver("Closed")


def _unsolved(job: ResolvedJob, auto: AutoSpec, task: Task, loaded: LoadedModel, *, runs: bool) -> str:
    """Return why the head of the first rung is not solved; empty where it is."""
    first = (auto.completed().rungs or [])[0]
    if first.type != "FeatureExtraction" or first.epochs is not None:
        return "the first rung is no FeatureExtraction without epochs"
    if job.adapter is not None or not task_type(job.task.type).rankable:
        return "an adapter trains, or the task has no label or number of each sample"
    if not task.repeats("train") and task_type(job.task.type).name != "ImageClassification":
        return "the training samples vary from epoch to epoch"
    head = _solvable(task, loaded)
    if isinstance(head, str):
        return head
    if (size := _bytes_of(head, task)) > _UNASKED_BYTES:
        return f"vectors of all samples take {size / 1e9:.1f} GB"
    return _foreign(task, loaded.module, head) if runs else ""


def vectors_of(task: Task, loaded: LoadedModel) -> int:
    """Return the bytes of the vectors from which a worker solves the head of a model, with their copies; 0 where nothing solves it."""
    head = LinearHead.of(loaded.module, loaded.blocks[-1])
    return 0 if isinstance(head, str) else _bytes_of(head, task)


def _bytes_of(head: LinearHead, task: Task) -> int:
    return _COPIES * 8 * head.inputs * task.splits["train"]


@torch.no_grad()
def _foreign(task: Task, module: nn.Module, head: LinearHead) -> str:
    """Return why a few samples show that a head is better found by steps; empty where they do not.

    It is where their outputs are not those of a linear layer on a vector of each, or these vectors are nearly the same.
    """
    layer = module.get_submodule(head.path)
    assert isinstance(layer, nn.Linear)
    with traceless(module):
        module.eval()
        [found] = task.batches("train", [list(range(min(_TRIED, task.splits["train"])))])
        batch = {name: tensor.to(layer.weight.device) for name, tensor in found.items()}
        if TARGETS not in batch:
            return "its batches have no targets"
        try:
            outputs = task.forward(module, batch).float()
            with head.absent(module):
                vectors = task.forward(module, batch)
        except Exception as error:  # noqa: BLE001 - a few samples are no reason to end a job
            return f"the model fails at its first samples: {error!r}"
    if vectors.shape != (len(batch[TARGETS]), head.inputs):
        return f"its head, {head.path}, is not given one vector of each sample"
    if (spread := _spread(vectors)) < _ALIKE:
        return f"what its head is given of samples differs by {spread:.2g} of its size: a head on that could not be trained further"
    expected = layer(vectors.to(layer.weight.dtype)).float()
    limit = _ROUNDING[torch.float32] * max(float(expected.abs().max()), 1.0)
    alike = outputs.shape == expected.shape and float((outputs - expected).abs().max()) <= limit
    return "" if alike else f"the model's outputs are not those of its head, {head.path}"


def _spread(vectors: Tensor) -> float:
    """Return by how much vectors, (samples, inputs), differ from their mean, as a share of their size."""
    vectors = vectors.double()
    return float((vectors - vectors.mean(dim=0)).norm() / vectors.norm().clamp(min=1e-30))


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
            InvalidStrategy: the head is given something else than a vector of each sample, these have no place in memory, or the
            model's outputs are not those of its head. InvalidModel: numbers of a vector are not finite.
        """
        began, engine, state, head = time.perf_counter(), self._engine, self._state, self._head
        assert head is not None
        self._require_room(head)

        def beat(done: int, samples: int) -> None:
            tell(f"the frozen base has computed {done:,} of {samples:,} samples for its head")

        found = given(self._task, engine, head, "train", batch=self._task.batch, beat=beat)  # type: ignore[arg-type]
        if isinstance(found, str):
            raise _refusal(f"cannot be used with this model: {found}")
        if not (finite := torch.isfinite(found.vectors).all(dim=1)).all():
            sample = self._task.name_of("train", int(found.samples[int(torch.nonzero(~finite)[0])]))
            raise JobError(
                "InvalidModel",
                f"{sample}: the frozen base gives its head numbers that are not finite. Set training.precision to Float32, remove the"
                " sample, or choose another model",
            )
        with few_threads(found.vectors.numel() * head.outputs):
            tried, weights, figures = self._find(found, head, tell)
        loss, iterations, gradient = figures
        engine.skips()
        engine.end()
        engine.load_weights(weights)
        self._trainable.resume({})
        self._trainable.begin(phase)
        self._require_linear(found, head, weights)
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

    @torch.no_grad()
    def _require_linear(self, found: Given, head: LinearHead, weights: Mapping[str, Tensor]) -> None:
        """Raise JobError unless the model's outputs of a few samples are those of its head. Collective."""
        engine, task = self._engine, self._task
        [batch] = task.batches("train", [found.samples[:_COMPARED].tolist()])
        to_evaluation(engine.module)  # an evaluation follows
        with engine.autocast():
            outputs = task.forward(engine.module, engine.to_device(dict(batch))).float().cpu()
        weight, bias = weights[f"{head.path}.weight"], weights.get(f"{head.path}.bias", 0.0)
        expected = found.vectors[:_COMPARED] @ weight.T + bias
        largest = float(expected.abs().max())
        limit = _ROUNDING[engine.dtype] * max(largest, 1.0)
        if outputs.shape != expected.shape or not float((outputs - expected).abs().max()) <= limit:
            raise _refusal(f"cannot be used with this model: its outputs are not those of its head, {head.path}")

    def _find(
        self, found: Given, head: LinearHead, tell: Callable[[str], None]
    ) -> tuple[list[Tried], dict[str, Tensor], tuple[float, int, float]]:
        """Return what was tried, the weights by name, and of the result loss, iterations and gradient. Collective."""
        engine, rows = self._engine, self._rows(found, head)
        tried: list[Tried] = []
        starts = [rows.problem.blank() for _ in rows.folds]
        while len(tried) < len(STRENGTHS) and not is_over(tried):
            strength = STRENGTHS[len(tried)]
            look = partial(tell, f"looking for the strength of the regularisation: {strength:.3g}")
            look()
            tried.append(self._try(rows, strength, starts, look))
        tell("finding the head")
        best = tried[best_of(tried)]
        whole = slice(0, rows.folds[-1].stop)
        weights: dict[str, Tensor] = {}

        def solved() -> Head:
            if engine.rank:
                return Head(torch.empty(0), torch.empty(0))
            return rows.problem.solve(best.strength, rows.problem.blank(), [whole], fine=True)

        result = on_each(engine, "head", solved, partial(tell, "finding the head"))
        if engine.rank == 0:
            weights = head.named(*rows.problem.layer(result))
        weights = engine.broadcast_object(weights)
        figures = engine.broadcast_json((result.loss, result.iterations, result.gradient), tuple[float, int, float])
        return tried, weights, figures

    def _require_room(self, head: LinearHead) -> None:
        size = _bytes_of(head, self._task)  # type: ignore[arg-type]
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

    def _try(self, rows: _Rows, strength: float, starts: list[Head], look: Callable[[], None]) -> Tried:
        """Find a head for each fold on the others, from the one with the strength before; the ranks share the folds out. Collective."""

        def losses() -> dict[str, float]:
            mine: dict[str, float] = {}
            for fold in range(self._engine.rank, len(rows.folds), self._engine.world_size):
                starts[fold] = rows.problem.solve(strength, starts[fold], rows.others(fold))
                mine[str(fold)] = rows.problem.losses(starts[fold], rows.folds[fold])
            return mine

        mine = on_each(self._engine, "folds", losses, look)
        found = {
            int(fold): loss for part in self._engine.gather_json(mine, dict[str, float]) for fold, loss in part.items()
        }
        counts = [float(rows.weights[fold].sum()) for fold in rows.folds]
        sums = [found[fold] for fold in range(len(counts))]
        return Tried(
            strength, [loss / count for loss, count in zip(sums, counts, strict=True)], sum(sums) / sum(counts)
        )
