"""`unfreeze phases`: what a job would train when, without training it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from unfreeze_api.grammar.sizes import size
from unfreeze_trainer.commands.local import job_options, open_job, table_or_json
from unfreeze_trainer.runs.stages import stage_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.plan import Plan

_FLOAT32 = 4
_ENDLESS = 1e12  # epochs in which every phase has its turn
_FILE_WIDTH = 160
"""Columns of what goes into a file or a pipe."""
_PADDING_SHOWN = 0.1
"""Share of padding that is worth a line."""
_MOMENTS = {"AdamW": 2, "SGD": 1}
"""Tensors that the optimizer keeps beside each parameter."""


@dataclass(frozen=True)
class Kept:
    """What a phase keeps of the outputs of frozen blocks."""

    blocks: list[str]
    """That compute once for each sample, from input to output."""
    bytes: int
    """Of all samples that are read more than once, on each worker."""
    passes: float
    """Over the training samples that these blocks are spared."""
    reused: float | None = None
    """Share of the training samples that earlier jobs have left in the cache, by those at the beginning; None where none is looked for."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        found: dict[str, Any] = {"blocks": self.blocks, "bytes": self.bytes, "passes": self.passes}
        return found if self.reused is None else found | {"reused": round(self.reused, 4)}


@dataclass(frozen=True)
class Padding:
    """What of an epoch's computation is padding, from 0 to 1."""

    share: float
    """As the job is."""
    grouped: float
    """With training.groupByLength."""


@dataclass(frozen=True)
class Preview:
    """The plan of a job."""

    samples: int
    """Of the training split."""
    steps_per_epoch: int
    blocks: dict[str, int]
    """Parameters of each block, from input to output."""
    phases: list[Phase]
    trainable: list[int]
    """Parameters that each phase trains."""
    optimizer_bytes: list[int]
    """Moments and gradients of each phase on one worker."""
    weight_bytes: list[int] | None
    """Of the whole model in each phase, where some lie frozen in the type of their files; None where all are alike throughout."""
    cached: list[Kept | None]
    """What each phase computes once for each sample; None where it computes all blocks in each step."""
    unreached: list[str]
    """Names of the phases that training.epochs ends before."""
    padding: Padding | None
    """None where all samples are as long, or share rows."""
    range_steps: int | None = None
    """Steps that range tests take at most before the first phase; None where rates are given."""

    @property
    def weights(self) -> Sequence[int | None]:
        """Bytes of the whole model in each phase; None where they are the same throughout."""
        return self.weight_bytes or [None] * len(self.phases)

    def to_json(self) -> str:
        """Return it as JSON in camelCase."""
        total = sum(self.blocks.values())
        phases: list[dict[str, Any]] = [
            {
                "name": phase.name,
                "blocks": list(phase.trainable),
                "part": phase.part,
                "rung": phase.rung or None,
                "solver": "Closed" if phase.solved else None,
                "trainableParameters": trainable,
                "trainableShare": round(trainable / total, 6),
                "learningRates": phase.learning_rates,
                "adapterLearningRate": phase.adapter_rate,
                "firstStep": phase.first_step,
                "steps": phase.steps,
                "untilPlateau": phase.plateau and phase.plateau.model_dump(by_alias=True),
                "optimizerBytes": optimizer_bytes,
                "cached": cached and cached.to_dict(),
                "weightBytes": weight_bytes,
            }
            for phase, trainable, optimizer_bytes, weight_bytes, cached in zip(
                self.phases, self.trainable, self.optimizer_bytes, self.weights, self.cached, strict=True
            )
        ]
        padding = self.padding and {"share": round(self.padding.share, 4), "grouped": round(self.padding.grouped, 4)}
        head = {
            "trainingSamples": self.samples,
            "stepsPerEpoch": self.steps_per_epoch,
            "parameters": total,
            "padding": padding,
        }
        if self.range_steps is not None:
            head["rangeTestSteps"] = self.range_steps
        return json.dumps(head | {"blocks": self.blocks, "phases": phases, "unreached": self.unreached}, indent=2)


@click.command()
@table_or_json
@job_options
def phases(file: Path, claim: tuple[str, ...], claims_folder: Path | None, kind: Literal["table", "json"]) -> None:
    """Print the phases of the FineTuneJob in FILE without training it.

    Opens the data to count its samples and labels, and builds the model. The exit code is 2 when the job itself is
    wrong, as it is for `unfreeze run`.
    """
    job = open_job(file, claim, claims_folder)
    plan, stages = preview(job), [(stage, preview(stage)) for stage in stage_jobs(job)]
    if kind == "json":
        whole = json.loads(plan.to_json())
        if job.stages:
            whole["stages"] = {
                one.name: json.loads(found.to_json()) for one, (_, found) in zip(job.stages, stages, strict=True)
            }
        click.echo(json.dumps(whole, indent=2))
        return
    for number, (one, (stage, found)) in enumerate(zip(job.stages or (), stages, strict=True), 1):
        click.echo(f"Stage {number} of {len(stages) + 1}, {one.name}{', if it helps' * (one.keep == 'IfHelps')}:")
        _print(stage, found)
        click.echo()
    if stages:
        click.echo(f"Stage {len(stages) + 1} of {len(stages) + 1}, the job itself:")
    _print(job, plan)


def preview(job: ResolvedJob) -> Preview:
    """Open a job's data, build its model and compile its strategy.

    Raises
    ------
    JobError
        What `unfreeze run` would end with before its first step.
    """
    from unfreeze_trainer.feed import Feed
    from unfreeze_trainer.models.keeping import why_float32
    from unfreeze_trainer.models.own_type import own_types
    from unfreeze_trainer.models.quantized import elements
    from unfreeze_trainer.phases.compile import compile_phases
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.plan import Plan
    from unfreeze_trainer.training.solver import require_solvable, with_solver

    task = open_task(job)
    with own_types(wanted=why_float32(job) is None):
        loaded = task.build_model()
    asked, job = job, with_solver(job, task, loaded)
    feed = Feed(task, seed=0, batch_size=job.training.batch_size, accumulate=1, rank=0, world_size=1)
    sizes = {name: elements(parameter) for name, parameter in loaded.module.named_parameters()}
    freezer = Freezer(
        loaded.module,
        loaded.blocks,
        loaded.adapter_parameters,
        loaded.rate_factors,
        locked=loaded.locked,
        frozen_dropout=job.semantics.dropout == "Everywhere",
    )
    names = [block.name for block in loaded.blocks]
    headless = loaded.headless
    found = compile_phases(job, names, feed.steps_per_epoch, headless=headless)
    require_solvable(task, loaded, found, asked=asked.strategy.solver is not None)
    endless = job.model_copy(update={"training": job.training.model_copy(update={"epochs": _ENDLESS})})
    trainable = [sum(sizes[name] for name in freezer.trainable_names(phase)) for phase in found]
    plan = Plan.of(job, names, samples=feed.samples, steps_per_epoch=feed.steps_per_epoch, headless=headless)
    return Preview(
        samples=feed.samples,
        steps_per_epoch=feed.steps_per_epoch,
        blocks={
            block.name: sum(sizes[name] for name in block.parameters) for block in loaded.blocks if block.parameters
        },
        phases=found,
        trainable=trainable,
        optimizer_bytes=[optimizer_bytes(job, count) for count in trainable],
        weight_bytes=_weight_bytes(job, loaded, freezer, found),
        cached=_kept(job, task, loaded, freezer, plan),
        unreached=[
            phase.name
            for phase in compile_phases(endless, names, feed.steps_per_epoch, headless=headless)[len(found) :]
        ],
        padding=_padding(job, task),
        range_steps=_range_steps(job, plan, freezer),
    )


def _weight_bytes(job: ResolvedJob, loaded: LoadedModel, freezer: Freezer, phases: list[Phase]) -> list[int] | None:
    """Return the bytes of a model's weights in each phase: what trains in one is float32 from there on."""
    from unfreeze_trainer.models.keeping import widen_first
    from unfreeze_trainer.models.own_type import held

    place, names = job.distribution, [{*freezer.trainable_names(phase)} for phase in phases]
    divides = place.engine == "FSDP" or place.zero_stage == 3  # noqa: PLR2004
    if not held(loaded.module):
        return None
    widen_first(job, loaded.module, set().union(*names), divides=divides)
    sizes = {name: parameter.nbytes for name, parameter in loaded.module.named_parameters()}
    halves, size, trained = held(loaded.module), sum(sizes.values()), set[str]()
    found = []
    for each in names:
        trained |= each
        found.append(size + sum(sizes[name] for name in halves if name in trained))
    return found


def _range_steps(job: ResolvedJob, plan: Plan, freezer: Freezer) -> int | None:
    from unfreeze_trainer.judgement.rates import steps_for
    from unfreeze_trainer.training.range_test import parts

    if job.strategy.learning_rate.rates != "Auto":
        return None
    tests = len(parts(job, plan, freezer))
    return tests * steps_for(plan.total_steps, tests=tests)


def _padding(job: ResolvedJob, task: Task) -> Padding | None:
    from unfreeze_trainer.feed import Feed

    if not task.pads:
        return None
    training = job.training
    share, grouped = (
        Feed(
            task,
            seed=training.seed,
            batch_size=training.batch_size,
            accumulate=training.gradient_accumulation_steps,
            rank=0,
            world_size=job.distribution.world_size,
            group_by_length=grouped,
        ).padding()
        for grouped in (bool(training.group_by_length), True)
    )
    return Padding(share, grouped) if share else None


def _kept(job: ResolvedJob, task: Task, loaded: LoadedModel, freezer: Freezer, plan: Plan) -> list[Kept | None]:
    import torch

    from unfreeze_trainer.engines.base import compute_dtype
    from unfreeze_trainer.features.cached import split_bytes, worth_it
    from unfreeze_trainer.features.keys import computes
    from unfreeze_trainer.features.reuse import Place, share_kept
    from unfreeze_trainer.training.cuts import find_cuts, keys_of, share_cuts

    cuts = find_cuts(job, task, loaded, phases=plan.phases, freezer=freezer)
    place = Place.of(job)
    cuts, plan = share_cuts(cuts, plan, task, loaded.module, loaded.blocks, place=place)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    computed = computes(device, compute_dtype(job.training.precision, device))
    keys = keys_of(job, loaded.module, cuts, phases=plan.phases, freezer=freezer, computed=computed)
    found: list[Kept | None] = []
    for phase in plan.phases:
        cut, reads = cuts.get(phase.index), plan.reads_of(phase.index)
        if cut is None or not (splits := worth_it(task, reads)):
            found.append(None)
            continue
        blocks = cut.blocks(loaded.module, loaded.blocks)
        size = sum(split_bytes(task, cut, split) for split in splits)
        key = keys.get(phase.index) if "train" in splits else None
        reused = share_kept(place, key, task) if place and key else None
        found.append(Kept(blocks, size, plan.spared(phase.index) if "train" in splits else 0.0, reused))
    return found


def optimizer_bytes(job: ResolvedJob, parameters: int) -> int:
    """Return what moments and gradients of trainable float32 parameters take on one worker, in bytes.

    ZeRO 1 shares out the moments, every other sharded engine the gradients too (Rajbhandari et al. 2020, arXiv
    1910.02054, figure 1).
    """
    place = job.distribution
    moments = _FLOAT32 * _MOMENTS[job.training.optimizer] * parameters
    gradients = _FLOAT32 * parameters
    if place.engine == "FSDP" or place.zero_stage:
        moments = -(-moments // place.world_size)
        gradients = gradients if place.zero_stage == 1 else -(-gradients // place.world_size)
    return moments + gradients


def _print(job: ResolvedJob, plan: Preview) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    total = sum(plan.blocks.values())
    console.print(
        f"{job.name}: {job.strategy.type}{f' with {job.adapter.type}' if job.adapter else ''}, {sum(phase.steps for phase in plan.phases):,} steps of"
        f" {job.training.batch_size} samples ({plan.samples:,} in training, {plan.steps_per_epoch:,} steps an epoch)"
    )
    console.print(f"{total:,} parameters in the blocks {', '.join(plan.blocks)}")
    weights = ["weights"] * (plan.weight_bytes is not None)
    columns = ("phase", "blocks", "trainable parameters", "share", "peak learning rate", "steps")
    table = Table(*columns, *weights, "optimizer memory", "cached")
    for column in table.columns[2:]:
        column.justify = "right"
    rows = zip(plan.phases, plan.trainable, plan.optimizer_bytes, plan.weights, plan.cached, strict=True)
    for phase, trainable, states, held, kept in rows:
        rates = sorted({*phase.learning_rates.values(), phase.adapter_rate or 0} - {0}, reverse=True)
        table.add_row(
            phase.name,
            _runs(phase, list(plan.blocks)),
            f"{trainable:,}",
            f"{100 * trainable / total:.2f} %",
            "solved" if phase.solved else " ... ".join(f"{rate:.3g}" for rate in dict.fromkeys((rates[0], rates[-1]))),
            f"{'up to ' if phase.plateau or (phase.rung and phase.index) else ''}{phase.steps:,}",
            *[size(held or 0)] * len(weights),
            size(states),
            f"{size(kept.bytes)}, to {kept.blocks[-1]}" if kept else "",
        )
    console.print(table)
    _print_cached(job, plan, console)
    if plan.padding and plan.padding.share >= _PADDING_SHOWN:
        less = f"; with training.groupByLength {plan.padding.grouped:.0%} would be"
        told = "" if job.training.group_by_length else less
        console.print(f"{plan.padding.share:.0%} of what an epoch computes is padding{told}".replace("%", " %"))
    if plan.unreached:
        console.print(
            f"spec.training.epochs {job.training.epochs:g} ends before {', '.join(plan.unreached)}: raise it, or make the"
            " phases shorter"
        )
    if all(phase.solved for phase in plan.phases):
        console.print(
            "The head is solved, and nothing trains by steps: learning rates and spec.training.epochs have no part in it"
        )
    elif plan.range_steps is not None:
        console.print(
            f"A range test of up to {plan.range_steps} steps chooses the learning rates before the first phase; those above are what it"
            " starts from"
            if plan.range_steps
            else "The training is too short for a range test, and keeps these learning rates: raise spec.training.epochs for one"
        )
    types = "Weights: frozen ones in the type of their files, those that train or have trained in float32.\n"
    console.print(
        types * bool(weights)
        + "Optimizer memory: moments and gradients on each worker, beside weights and activations."
    )


def _print_cached(job: ResolvedJob, plan: Preview, console: Console) -> None:
    for phase, kept in zip(plan.phases, plan.cached, strict=True):
        if kept:
            spared = (
                "and the head is solved"
                if phase.solved
                else f"and are spared {kept.passes:.3g} {'pass' if kept.passes == 1 else 'passes'} over the training data"
            )
            console.print(
                f"{phase.name}: {len(kept.blocks)} of {len(plan.blocks)} blocks compute once for each sample, {spared}"
            )
            if kept.reused and job.cache:
                console.print(
                    f"{phase.name}: {100 * kept.reused:.3g} % of the training samples are in the cache {job.cache.source} and need not"
                    " compute"
                )


def _runs(phase: Phase, order: Sequence[str]) -> str:
    """Return the blocks of a phase with runs of neighbours shortened: embeddings, layer.2 ... head."""
    runs: list[list[str]] = []
    for name in phase.trainable:
        if runs and order.index(name) == order.index(runs[-1][-1]) + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    text = ", ".join(run[0] if len(run) == 1 else f"{run[0]} ... {run[-1]}" for run in runs)
    if phase.adapter_rate is not None:
        return f"adapter everywhere, {text}"
    return text if phase.part == "All" else f"biases and norms of {text}"
