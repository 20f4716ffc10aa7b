"""`unfreeze features`: what a model makes of each row before its head, as numbers for search, clustering or classical models."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unfreeze_api.claims import claim_options
from unfreeze_api.commands import whole
from unfreeze_trainer.commands.data import DataPath, column_option, named, require_other
from unfreeze_trainer.commands.local import judged, open_job
from unfreeze_trainer.commands.predict import BATCH_SIZE
from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_trainer.ranking.extract import Extracted

SPLITS = ("train", "validation", "test")
SUFFIX = ".parquet"


@click.command()
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Parquet file that is written.",
)
@click.option(
    "--layer",
    metavar="NAME",
    help="Block whose output is taken, like layer.5, averaged over tokens, frames or places; `unfreeze phases` has the names."
    " Default: what the head reads.",
)
@click.option(
    "--split", type=click.Choice(SPLITS), default="train", show_default=True, help="Of a job: the rows that are asked."
)
@click.option("--inputs", is_flag=True, help="Write the texts, or the paths of files, beside the features.")
@click.option("--force", is_flag=True, help="Overwrite the file that is there.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=BATCH_SIZE,
    show_default=True,
    help="Samples that go through the model at once; those of alike length together.",
)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="With DATA: what becomes of a row that cannot be read. A job says so itself (data.onError).",
)
@click.option("--device", help="Where it computes, like cpu or cuda:0. Default: an accelerator if there is one.")
@column_option
@claim_options
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("data", required=False, type=DataPath(exists=True, path_type=Path))
def features(
    *,
    model: Path,
    data: Path | None,
    output: Path,
    layer: str | None,
    split: str,
    inputs: bool,
    force: bool,
    batch_size: int,
    on_error: str,
    device: str | None,
    columns: tuple[str, ...],
    claim: tuple[str, ...],
    claims_folder: Path | None,
) -> None:
    """Write the features of each row: one vector of what MODEL makes of it before its head.

    MODEL is the file of a FineTuneJob, whose base is asked about the rows of its --split as training reads them; or the
    folder of a finished model, as of `unfreeze predict`, which is asked about DATA. Columns of the file: where each row
    stands, its label where the data say one, and features, float32 of one width. Nothing is trained.
    """
    if output.suffix.lower() != SUFFIX:
        raise click.BadParameter(f"{output}: the file ends in {SUFFIX}", param_hint="--output")
    if output.exists() and not force:  # before anything is computed
        raise click.ClickException(f"{output} is there already: --force overwrites it, --output names another file")
    require_other(output, data)
    if model.is_dir() and data is None:
        raise click.UsageError(f"{model} is a folder: DATA has to say what the model is asked of")
    if not model.is_dir() and data is not None:
        raise click.UsageError(f"{model} is a job, whose data are its own: leave {data} out, and choose a --split")
    with judged():
        if data is None:
            if columns:
                raise click.UsageError("--column is for DATA: a job names its columns in spec.data.train.columns")
            found = _of_job(model, split, claim, claims_folder, device)
        else:
            found = _of_model(model, data, columns, device, skip=on_error == "skip")
        _write(found, output, layer, batch_size, inputs=inputs)
        if left_out := found.left_out:
            click.echo(f"{left_out:,} rows of {data or split} could not be read and were left out", err=True)


def _of_job(
    file: Path, split: str, claim: tuple[str, ...], claims_folder: Path | None, device: str | None
) -> Extracted:
    from unfreeze_trainer.commands.asked import device_of
    from unfreeze_trainer.ranking.extract import Extracted
    from unfreeze_trainer.tasks import open_task

    job = open_job(file, claim, claims_folder)
    _require_vectors(job.task.type)
    place = device_of(device)
    task = open_task(job.model_copy(update={"adapter": None}))  # it is the base that is asked
    if split not in task.splits:
        raise JobError("InvalidJob", f"--split {split}: the job has no spec.data.{split}")
    return Extracted(task, split, place, labelled=True)  # type: ignore[arg-type]


def _of_model(folder: Path, data: Path, columns: Sequence[str], device: str | None, *, skip: bool) -> Extracted:
    from unfreeze_trainer.commands.asked import SPLIT, ask, tell_cut
    from unfreeze_trainer.commands.finished import find_model
    from unfreeze_trainer.ranking.extract import Extracted
    from unfreeze_trainer.runs.destination import MARKER

    try:
        finished = find_model(folder, None)
    except JobError as error:
        if (folder / MARKER).is_file():
            raise
        hint = "the features of a base that was not trained yet are asked for by the file of a job that names it, in place of its folder"
        raise JobError(error.reason, f"{error.marked} ({hint})") from error
    _require_vectors(finished.described.task["type"])
    if finished.adapter:
        raise JobError(
            "InvalidModel",
            f"{finished.folder}: of an adapter no features are taken: export the merged model (output.export Merged), and name its"
            " folder",
        )
    asked = ask(finished, data, columns=named(tuple(columns)), labelled=False, skip=skip, device=device)
    tell_cut(asked.task, data)
    return Extracted(asked.task, SPLIT, asked.device, labelled=False)


def _require_vectors(task: str) -> None:
    from unfreeze_api.tasks import TASKS, task_type

    if not task_type(task).rankable:
        known = ", ".join(one.name for one in TASKS if one.rankable)
        raise JobError("InvalidJob", f"task.type {task}: features are one vector for each row, as of {known}")


def _write(found: Extracted, output: Path, layer: str | None, batch_size: int, *, inputs: bool) -> None:
    """Write a file that is there whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    with whole(output) as aside:
        try:
            for columns in _counted(found, found.columns(layer, batch_size, inputs=inputs)):
                table = pa.table(columns)
                if writer is None:
                    encoded = [name for name in table.schema.names if name not in ("features", "row")]
                    writer = pq.ParquetWriter(aside, table.schema, compression="zstd", use_dictionary=encoded)
                writer.write_table(table.cast(writer.schema), row_group_size=max(1, len(table)))
            if writer is None:
                raise JobError("InvalidData", "there is no row that can be read")
        finally:
            if writer is not None:
                writer.close()


def _counted(found: Extracted, parts: Iterator[dict[str, pa.Array]]) -> Iterator[dict[str, pa.Array]]:
    """Say how far it is, where somebody looks."""
    done = 0
    for columns in parts:
        yield columns
        done += len(columns["features"])
        if sys.stderr.isatty():
            click.echo(f"\r{done:,} of {found.samples:,} rows", err=True, nl=done >= found.samples)
