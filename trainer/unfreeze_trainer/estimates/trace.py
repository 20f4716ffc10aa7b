"""Runs a job's stages on fake tensors, with the engine and the steps that it will have, and counts what each holds."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.engines.base import persistent_buffers
from unfreeze_trainer.engines.bits import BESIDE
from unfreeze_trainer.estimates.joined import Joined, every_row
from unfreeze_trainer.estimates.ledger import Ledger
from unfreeze_trainer.estimates.operations import TRIED, first_batches, forward_operations, forward_seconds, passes_of
from unfreeze_trainer.estimates.pretended import exchange_nothing, pretended
from unfreeze_trainer.estimates.said import hold_said, longest_said
from unfreeze_trainer.estimates.skeleton import plain, skeletons
from unfreeze_trainer.feed import Feed, MicroBatch
from unfreeze_trainer.judgement.rates import steps_for
from unfreeze_trainer.models.activations import checkpoint_activations
from unfreeze_trainer.models.batch_norm import accept_single_values
from unfreeze_trainer.models.keeping import pretend, widen_first
from unfreeze_trainer.models.own_type import held, mapped_bytes
from unfreeze_trainer.objectives.base import LEARNED
from unfreeze_trainer.phases.compile import Phase, compile_phases
from unfreeze_trainer.phases.freezer import Freezer
from unfreeze_trainer.training.coupled import coupled_step
from unfreeze_trainer.training.cuts import find_cuts
from unfreeze_trainer.training.dry_run import gradients
from unfreeze_trainer.training.hold import copy_below_head
from unfreeze_trainer.training.loop import plain_step
from unfreeze_trainer.training.plan import Plan
from unfreeze_trainer.training.range_test import parts
from unfreeze_trainer.training.solver import vectors_of, with_solver
from unfreeze_trainer.training.trials import trial_batches

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.tasks import Batch, Task

_MICRO_BATCHES = 2
"""Of a step, at most: a third one holds what the second one does."""
_FLOAT32 = 4


@dataclass(frozen=True)
class PhaseBytes:
    """What rank 0, which also writes checkpoints, holds in a phase."""

    name: str
    trainable_parameters: int
    weights: int
    """Of the model, or this rank's share of them."""
    optimizer: int
    """Beside them between steps: moments, the engine's masters and buffers."""
    activations: int
    """More than that at the end of the forward pass."""
    step: int
    """Most during a step."""
    evaluation: int
    """Most during an evaluation."""
    snapshot: int
    """Of a checkpoint, while it is written."""
    peak: int
    """Most of all: a step while a checkpoint is being written."""
    saying: int = 0
    """Most while the model says texts by itself; within the evaluation."""


@dataclass(frozen=True)
class Traced:
    """What rank 0 of a job holds, in bytes of tensors."""

    parameters: int
    weights_by_dtype: dict[str, int]
    loading: int
    """Most while the model is loaded, tried on a batch, and divided."""
    phases: list[PhaseBytes] = field(default_factory=list)
    exporting: int = 0
    """Most while the best weights are written."""
    checkpoint: int = 0
    """Of the largest checkpoint on disk."""
    export: int = 0
    """Of all exports on disk."""
    planned_steps: int = 0
    """Optimizer steps of all phases."""
    test_steps: int = 0
    """Steps that a range test of learning rates takes before them; 0 without one."""
    forward: float = 0.0
    """Operations of a training sample's forward pass; 0 where they were not counted (see `operations`)."""
    passes: int = 0
    """About how many of those all phases are worth."""
    solver: int = 0
    """Of what a frozen base gives of all samples, in the host's memory of each worker while a head is solved; 0 without a solver."""

    @property
    def peak(self) -> int:
        """Most of all."""
        return max(self.loading, self.exporting, *(phase.peak for phase in self.phases))

    @property
    def peak_of_others(self) -> int:
        """Most of all without what rank 0 alone does: to write checkpoints and exports."""
        return max(self.loading, *(max(phase.step, phase.evaluation) for phase in self.phases))


def trace(job: ResolvedJob, task: Task, *, heaviest: bool = False, steps_alone: bool = False) -> Traced:
    """Return what a job holds: nothing is loaded or computed. In a process that has joined no group.

    Parameters
    ----------
    job
        As it will run. What it compiles is traced as it stands.
    task
        Of the same job, with its data: the longest samples are read.
    heaviest
        Look at the phase alone that trains the most.
    steps_alone
        Look at its steps alone: what evaluations, checkpoints and exports take is 0. It takes half of the time.
    """
    if job.distribution.engine == "DeepSpeed":
        from unfreeze_trainer.engines.deepspeed import import_deepspeed

        import_deepspeed()
    if task.couples:
        task = Joined(task, several=bool(job.model.towers))  # type: ignore[assignment]
    feed = _feed(job, task)
    whole = plain(job)
    taken = trial_batches(task.extents("train"), feed.sizes())[0], _evaluated(task, feed, job.distribution.world_size)
    [batch] = task.batches("train", taken[:1], epoch_seed=0)
    [held_out] = task.batches("validation", taken[1:])
    if not steps_alone:  # what is learned most need not stand in the longest samples
        for split, each, samples in zip(("train", "validation"), (batch, held_out), taken, strict=True):
            if LEARNED in each:
                most = int(np.sort(task.units(split))[-len(samples) :].sum())
                each[LEARNED] = torch.zeros(max(most, len(each[LEARNED])), 2, dtype=torch.int64)
    asked, first = longest_said(job, task), {} if steps_alone else first_batches(feed, 1)[0]
    rows = every_row() if task.couples else nullcontext()
    with pretended(job.distribution.world_size) as fake, skeletons(task, job), rows:
        batches: list[Batch] = [
            {name: fake.from_tensor(tensor) for name, tensor in each.items()}
            for each in (batch, held_out, asked, first)
        ]
        return _Trace(whole, task, feed, *batches).run(heaviest=heaviest, steps_alone=steps_alone)


def try_forward(job: ResolvedJob, task: Task, *, threads: int) -> float:
    """Return the seconds of a training sample's forward pass on this machine, of a model with random weights, which is built."""
    batches = first_batches(_feed(job, task), TRIED)
    with skeletons(task, job):
        half = job.training.precision == "BFloat16"
        return forward_seconds(task.build_model().module, task, batches, half=half, threads=threads)


def _feed(job: ResolvedJob, task: Task) -> Feed:
    training = job.training
    return Feed(
        task,
        seed=training.seed,
        batch_size=training.batch_size,
        accumulate=training.gradient_accumulation_steps,
        rank=0,
        world_size=job.distribution.world_size,
        group_by_length=bool(training.group_by_length),
    )


def _evaluated(task: Task, feed: Feed, world_size: int) -> list[int]:
    """Return the validation samples of the largest batch of an evaluation (see Feed.evaluation)."""
    size = feed.evaluation_size
    total = -(-task.splits["validation"] // world_size)
    order = task.lengths("validation").argsort(kind="stable")[::-1]
    found: list[int] = order[: min(size, total)].tolist()
    return found


class _Trace:
    def __init__(  # noqa: PLR0917 - of one place
        self, job: ResolvedJob, task: Task, feed: Feed, batch: Batch, held_out: Batch, said: Batch, first: Batch
    ) -> None:
        self._job, self._task, self._feed = job, task, feed
        self._batch, self._held_out, self._said, self._first = batch, held_out, said, first
        self._ledger = Ledger(copying=not job.distribution.accelerators_per_node)

    def run(self, *, heaviest: bool, steps_alone: bool) -> Traced:
        with self._ledger as ledger:
            loaded = self._task.build_model()
            pretend(self._job, loaded)
            ledger.restart()  # files are mapped, and not copied
            module = loaded.module
            names = [block.name for block in loaded.blocks]
            self._job = with_solver(self._job, self._task, loaded, runs=False)
            found = compile_phases(self._job, names, self._feed.steps_per_epoch, headless=loaded.headless)
            freezer = Freezer(
                module,
                loaded.blocks,
                loaded.adapter_parameters,
                loaded.rate_factors,
                locked=loaded.locked,
                frozen_dropout=self._job.semantics.dropout == "Everywhere",
            )
            sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
            trains = [sum(sizes[name] for name in freezer.trainable_names(phase)) for phase in found]
            frozen = {*held(module)}
            dtypes: dict[str, int] = {}
            for parameter in module.parameters():
                kind = str(parameter.dtype).removeprefix("torch.")
                dtypes[kind] = dtypes.get(kind, 0) + parameter.nbytes
            forward = forward_operations(module, self._task, self._first) if self._first else 0.0
            if self._job.training.gradient_checkpointing:
                checkpoint_activations(module)
            if min(self._feed.sizes()) == 1:
                accept_single_values(module)
            engine = open_engine(self._job)
            chosen = {name for phase in found for name in freezer.chosen_names(phase)}
            # One worker alone waits for no gradient: what gets none has no moments either.
            used = chosen if steps_alone and engine.world_size == 1 else self._try(engine, module, chosen)
            if not steps_alone:
                with suppress(Exception):  # a value decides: what was held until then counts
                    find_cuts(self._job, self._task, loaded, phases=found, freezer=freezer, autocast=engine.autocast)
            freezer.unused = frozenset(chosen - used)
            widen_first(self._job, module, chosen, divides=engine.divides)
            engine.attach(module, loaded.blocks, freezer.unused)
            holds = self._job.guard is not None and self._job.guard.type == "Hold"
            base = copy_below_head(loaded, engine, chosen if holds else ())
            gc.collect()  # as worker.work does
            ledger_peak, phases, everything = ledger.peak, [], set[str]()
            for phase in [max(found, key=lambda phase: trains[phase.index])] if heaviest else found:
                everything |= {*freezer.trainable_names(phase)}
                look = self._steps if steps_alone else self._phase
                phases.append(look(phase, engine, freezer, loaded, everything, trains[phase.index]))
            plan = Plan.of(
                self._job,
                names,
                samples=self._feed.samples,
                steps_per_epoch=self._feed.steps_per_epoch,
                headless=loaded.headless,
            )
            tested = 0
            if self._job.strategy.learning_rate.rates == "Auto":
                tests = len(parts(self._job, plan, freezer))
                tested = tests * steps_for(plan.total_steps, tests=tests) if tests else 0
            exporting = 0 if steps_alone else self._export(engine, sum(sizes[name] for name in everything))
            del base
        return Traced(
            parameters=sum(sizes.values()),
            weights_by_dtype=dtypes,
            loading=ledger_peak,
            phases=phases,
            exporting=exporting,
            checkpoint=max(phase.snapshot for phase in phases),
            export=self._exported(sizes, loaded, frozen & (sizes.keys() - everything)),
            planned_steps=plan.total_steps,
            test_steps=tested,
            forward=forward,
            passes=passes_of(plan, self._job, self._task, tested=tested),
            solver=vectors_of(self._task, loaded) if any(phase.solved for phase in found) else 0,
        )

    def _try(self, engine: Engine, module: nn.Module, chosen: set[str]) -> frozenset[str]:
        """Do as training.unused does; return the parameters that get a gradient."""
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in chosen)
        module.train()

        def loss() -> Tensor:
            with engine.autocast():
                return self._task.loss(self._task.forward(module, self._batch), self._batch).sum()

        return gradients(module, loss)

    def _steps(  # noqa: PLR0917 - of one place
        self,
        phase: Phase,
        engine: Engine,
        freezer: Freezer,
        loaded: LoadedModel,
        names: set[str],  # noqa: ARG002 - of checkpoints
        trainable: int,
    ) -> PhaseBytes:
        """Return what the second step of a phase holds, the first one with moments."""
        self._begin(phase, engine, freezer, loaded)
        weights = _held(engine.module)
        self._step(engine, loaded)
        self._ledger.restart()
        between = self._ledger.live
        forward = self._step(engine, loaded)
        step, saying = self._ledger.peak, self._saying(engine)
        freezer.train_mode()
        peak = max(step, saying)
        return PhaseBytes(
            phase.name, trainable, weights, between - weights, forward - between, step, 0, 0, peak, saying
        )

    def _saying(self, engine: Engine) -> int:
        """Return the most that is held while the model says texts by itself; 0 where it is asked for none."""
        if not self._said:
            return 0
        self._ledger.restart()
        hold_said(engine, self._said)
        return self._ledger.peak

    def _begin(self, phase: Phase, engine: Engine, freezer: Freezer, loaded: LoadedModel) -> None:
        freezer.apply(phase)
        self._ledger.restart()
        engine.begin(freezer.groups(phase, self._job.training.weight_decay))
        loaded.hook.begin(phase.steps)
        exchange_nothing(engine)

    def _phase(  # noqa: PLR0917 - of one place
        self,
        phase: Phase,
        engine: Engine,
        freezer: Freezer,
        loaded: LoadedModel,
        names: set[str],
        trainable: int,
    ) -> PhaseBytes:
        ledger = self._ledger
        self._begin(phase, engine, freezer, loaded)
        begun, weights = ledger.peak, _held(engine.module)
        self._step(engine, loaded)
        self._step(engine, loaded)  # with moments, and with DDP's final buckets
        ledger.restart()
        between = ledger.live
        forward = self._step(engine, loaded)
        step = ledger.peak
        ledger.restart()
        self._evaluate(engine)
        evaluation = ledger.peak
        saying = self._saying(engine)
        evaluation = max(evaluation, saying)
        freezer.train_mode()
        ledger.restart()
        before = ledger.live
        kept = engine.weights(names), engine.optimizer_state(), _copies(engine.module)
        saving, snapshot = ledger.peak, ledger.live - before
        look = between + min(BESIDE, 2 * max(each.nbytes for _, each in engine.held()))  # the guard's, behind a step
        peak = max(begun, step + snapshot, evaluation + snapshot, look + snapshot, saving)
        del kept
        gc.collect()
        states, activations = between - weights, forward - between
        return PhaseBytes(phase.name, trainable, weights, states, activations, step, evaluation, snapshot, peak, saying)

    def _step(self, engine: Engine, loaded: LoadedModel) -> int:
        """Take a step; return the bytes at the end of the forward pass of its last micro batch."""
        count = min(_MICRO_BATCHES, self._job.training.gradient_accumulation_steps)
        micros = [MicroBatch(self._batch, 1.0, 1, 1, number == count) for number in range(1, count + 1)]
        take = coupled_step if self._task.couples else plain_step
        live, backward = 0, engine.backward

        def watched(loss: Tensor, *, last: bool) -> None:
            nonlocal live
            live = self._ledger.live
            backward(loss, last=last)

        engine.backward = watched  # type: ignore[method-assign]
        engine.set_learning_rates(1.0)
        for _ in take(engine, self._task, loaded.hook, micros, (0, 0, 0)):
            pass
        engine.step()
        engine.backward = backward  # type: ignore[method-assign]
        return live

    @torch.no_grad()
    def _evaluate(self, engine: Engine) -> None:
        engine.module.eval()
        with engine.autocast():
            logits = self._task.forward(engine.module, self._held_out)
            self._task.loss(logits, self._held_out)

    def _export(self, engine: Engine, trained: int) -> int:
        """Do as exports.exporter does; return the most that this holds."""
        engine.end()
        library: Any = self._task.library  # type: ignore[attr-defined]  # of a task that is composed, as all are
        module = self._task.build_model().module
        # Its weights lie in pages of the base's files that the first model has too, but for those that are written to.
        job, shared = self._job, 0
        alone = library.name == "transformers" and not job.model.towers and job.model.initialization != "Random"
        if alone and not engine.divides:
            shared = mapped_bytes(module, job.model.weights_path)
        self._ledger.restart()
        if "Merged" in self._job.output.export:
            shared = 0  # all of them may be written
            library.merged(module)
        return self._ledger.peak - max(0, shared - _FLOAT32 * trained)

    def _exported(self, sizes: dict[str, int], loaded: LoadedModel, halved: AbstractSet[str]) -> int:
        own = sum(sizes[name] for name in loaded.adapter_parameters)
        whole = sum(sizes.values())
        each = {"Model": whole, "Merged": whole - own, "Adapter": own}
        spared = _FLOAT32 // 2 * sum(sizes[name] for name in halved)
        return sum(_FLOAT32 * each[kind] - spared * (kind == "Model") for kind in self._job.output.export)


def _held(module: nn.Module) -> int:
    """Return the bytes of weights and buffers that a rank holds, in shares where they lie in such."""
    shares = [getattr(each, "ds_tensor", each) for each in (*module.parameters(), *module.buffers())]
    return sum(getattr(share, "_local_tensor", share).nbytes for share in shares)


def _copies(module: nn.Module) -> Sequence[Tensor]:
    return [buffer.clone() for buffer in persistent_buffers(module).values()]
