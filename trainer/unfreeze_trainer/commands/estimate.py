"""`unfreeze estimate`: what a job needs in memory and on disk, and whether that fits, without loading or computing it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from unfreeze_api.grammar.quantities import quantity
from unfreeze_api.grammar.sizes import size
from unfreeze_trainer.commands.local import job_options, judged, open_job, read_spec, table_or_json
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.estimates.duration import CARDS, duration_of

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.estimates.duration import Duration
    from unfreeze_trainer.estimates.estimate import Estimate
    from unfreeze_trainer.estimates.ways import Way


_FILE_WIDTH = 160
"""Columns of what goes into a file or a pipe."""


class _Bytes(click.ParamType[int]):
    name = "quantity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = quantity(str(value))
        if found is None or found <= 0:
            self.fail(f"{value!r} is no quantity of Kubernetes, like 12Gi or 80G", param, ctx)
        return int(found)


@click.command()
@click.option(
    "--memory", type=_Bytes(), help="Memory limit of each pod, in place of resourcesPerNode.limits.memory: 12Gi."
)
@click.option("--accelerator-memory", type=_Bytes(), help="Memory of each accelerator: 80Gi.")
@click.option(
    "--accelerator",
    type=click.Choice([*CARDS], case_sensitive=False),
    help="What trains, for its memory and about how long it takes. Without it: this machine's cores, of a job that asks for no accelerators.",
)
@click.option(
    "--price",
    type=click.FloatRange(min=0, min_open=True),
    help="Of an hour of an accelerator, or of a pod where the job asks for none. Without it: budget.pricePerHour, where the job has one.",
)
@table_or_json
@job_options
def estimate(  # noqa: PLR0917 - click names them
    file: Path,
    claim: tuple[str, ...],
    claims_folder: Path | None,
    kind: Literal["table", "json"],
    memory: int | None,
    accelerator_memory: int | None,
    accelerator: str | None,
    price: float | None,
) -> None:
    """Print what the FineTuneJob in FILE needs in memory, whether that fits into its limits, and about how long it trains and what that costs.

    Opens the data, since its longest samples count, and of the model the configuration alone: its training runs with the
    job's engine on tensors that have sizes and no memory. The exit code is 0 when it fits or no limit is known, 1 when it
    does not or may not, 2 when the job itself is wrong.
    """
    with judged():
        job = open_job(file, claim, claims_folder)
        limit, whole = memory or _limit(file), "Model" in (read_spec(file).output.exports or ())
        if accelerator is not None and not job.distribution.accelerators_per_node:
            raise JobError(
                "InvalidJob",
                "--accelerator: the job asks for none, and would train on the CPUs of a node that has some; set"
                " spec.distribution.resourcesPerNode.limits to {nvidia.com/gpu: 1}, or leave the option out",
            )
        if accelerator is not None and accelerator_memory is None:
            accelerator_memory = CARDS[accelerator].gib << 30
        found, ways = estimated(job, limit=limit, accelerator_limit=accelerator_memory, whole=whole)
        takes = duration_of(job, found.traced, card=accelerator, price=price, tried=_tried(job, found))
    if kind == "json":
        from unfreeze_trainer.estimates.estimate import uncounted

        offered = [
            {"change": way.change, "cost": way.cost, "hostBytes": needs.host, "acceleratorBytes": needs.accelerator}
            for way, needs in ways
        ]
        click.echo(json.dumps(found.to_dict() | takes.to_dict() | {"ways": offered, "notes": uncounted(job)}, indent=2))
    else:
        _print(job, found, ways, takes)
    if found.verdict in ("DoesNotFit", "MayNotFit"):
        raise SystemExit(1)


def estimated(
    job: ResolvedJob, *, limit: int | None, accelerator_limit: int | None = None, whole: bool = False
) -> tuple[Estimate, list[tuple[Way, Estimate]]]:
    """Return what a job needs, and how it fits where it does not; `whole` as of `ways_that_fit`.

    Raises
    ------
    JobError
        What `unfreeze run` would end with before its model is loaded; InvalidModel: the model cannot be traced.
    """
    from unfreeze_trainer.estimates.aside import Aside, AsideError
    from unfreeze_trainer.estimates.estimate import estimate_of, resident
    from unfreeze_trainer.estimates.trace import Traced, trace
    from unfreeze_trainer.estimates.ways import ways_that_fit
    from unfreeze_trainer.tasks import open_task

    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # where PEFT loads DeepSpeed, it would say so amid what is printed
    if job.stages:
        raise JobError(
            "InvalidJob",
            "spec.stages: the memory of a job with stages cannot be estimated yet: remove them, and estimate each of them as a"
            " job of its own",
        )
    task = open_task(job)
    limits = {"limit": limit, "accelerator_limit": accelerator_limit}

    def ask(changed: ResolvedJob, *, heaviest: bool = False) -> Estimate:
        traced = Aside(lambda: trace(changed, task, heaviest=heaviest), Traced).result()
        return estimate_of(changed, traced, base=resident(), **limits)

    def try_to_ask(changed: ResolvedJob) -> Estimate | None:
        try:
            return ask(changed, heaviest=True)
        except AsideError:  # a combination that this model does not take
            return None

    try:
        found = ask(job)
    except AsideError as error:
        raise JobError(
            "UnsupportedModel", f"this model cannot be estimated: its training does not run on shapes alone ({error})"
        ) from error
    short = found.verdict in ("DoesNotFit", "MayNotFit")
    return found, ways_that_fit(job, try_to_ask, whole=whole) if short else []


def _tried(job: ResolvedJob, found: Estimate) -> float | None:
    """Return the seconds of a sample's forward pass here; None where accelerators train, or the model is too large to be built for that."""
    from unfreeze_trainer.agent.pod import available_cpus
    from unfreeze_trainer.estimates.trace import try_forward
    from unfreeze_trainer.features.room import available_bytes
    from unfreeze_trainer.tasks import open_task

    if job.distribution.accelerators_per_node or job.model.quantization or found.traced.loading > available_bytes():
        return None
    threads = max(1, available_cpus() // job.distribution.world_size)  # as `unfreeze run` gives each worker
    return try_forward(job, open_task(job), threads=threads)


def _limit(file: Path) -> int | None:
    """Return the memory limit of a pod, as the manifest has it."""
    limits = read_spec(file).distribution.resources_per_node.limits or {}
    found = quantity(str(limits["memory"])) if "memory" in limits else None
    return int(found) if found else None


def _print(job: ResolvedJob, found: Estimate, ways: list[tuple[Way, Estimate]], takes: Duration) -> None:
    from rich.console import Console
    from rich.table import Table

    from unfreeze_trainer.estimates.estimate import uncounted

    console, traced, place = Console(highlight=False, markup=False, soft_wrap=True), found.traced, job.distribution
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    dtypes = ", ".join(f"{size(count)} of {kind}" for kind, count in sorted(traced.weights_by_dtype.items()))
    engine = f"{place.engine}{f' at stage {place.zero_stage}' if place.engine == 'DeepSpeed' else ''}"
    console.print(
        f"{job.name}: {traced.parameters:,} parameters ({dtypes}), {place.world_size} workers with {engine},"
        f" {job.training.batch_size} samples a step"
    )
    table = Table("phase", "trains", "weights", "optimizer", "activations", "step", "evaluation", "checkpoint", "peak")
    for column in table.columns[1:]:
        column.justify = "right"
    for phase in traced.phases:
        sizes = (phase.weights, phase.optimizer, phase.activations, phase.step, phase.evaluation, phase.snapshot)
        table.add_row(phase.name, f"{phase.trainable_parameters:,}", *map(size, sizes), size(phase.peak))
    console.print(table)
    console.print(
        f"Loading takes {size(traced.loading)}, exporting {size(traced.exporting)}; on disk a checkpoint has"
        f" {size(traced.checkpoint)}, the exports {size(traced.export)}."
    )
    if beside := found.beside():
        console.print(beside)
    for note in uncounted(job):
        console.print(note)
    if text := takes.sentence():
        console.print(text)
    console.print(f"Of rank 0, beside {size(found.base)} of each worker's process. {found.sentence()}")
    for way, needs in ways:
        console.print(f"  fits with {way.change} ({way.cost}): {needs.sentence()}")
