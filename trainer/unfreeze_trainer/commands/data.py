"""`unfreeze data`: what a job would read, without training and without a cluster."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from unfreeze_api.claims import claim_options
from unfreeze_api.contracts.progress import ExitCode
from unfreeze_trainer.commands.local import judged, read_job_here, table_or_json
from unfreeze_trainer.errors import JobError, one_line

if TYPE_CHECKING:
    from unfreeze_trainer.commands.survey import Count

_JOBS = (".yaml", ".yml", ".json")
FILES = 2000
_LOOKED = 1 << 20
"""Characters of a file that tell what it holds."""
_BROKEN_ROWS = "unfreeze_trainer.data.unread"
"""Who logs that rows are left out."""


class DataPath(click.Path):
    """A path that is there, or a pattern of tables."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it as a path; BadParameter where there is none."""
        from unfreeze_trainer.data.shards import is_pattern

        value = str(value).removeprefix("file://")
        return Path(value) if is_pattern(value) else super().convert(value, param, ctx)


def require_other(output: Path | None, data: Path | None) -> None:
    """Raise ClickException where a file that is to be written is the data that are read, or one of several files of it."""
    from unfreeze_trainer.data.shards import is_pattern, is_table_folder, shards

    if not output or not data or not output.exists():
        return
    several = is_pattern(str(data)) or is_table_folder(str(data))
    files = shards(str(data), str(data)) if several else [data]
    if any(output.samefile(file) for file in files):
        raise click.ClickException(f"{output} is the data that are asked of: --output has to name another file")


column_option = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=NAME",
    help="Column of a table for a field of spec.data.train.columns, like label=kind; may be given several times.",
)
"""Option of commands that guess columns."""
task_option = click.option("--task", help="Type of the task. Default: what the data look like.")


@click.command()
@table_or_json
@task_option
@column_option
@click.option(
    "--tokenizer",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a model whose tokenizer counts tokens. Default: that of a job's model; without one none are counted.",
)
@click.option(
    "--files",
    type=click.IntRange(1),
    default=FILES,
    show_default=True,
    help="Pictures or clips of each source that are read whole; of more, so many at even distances.",
)
@claim_options
@click.argument("path", type=DataPath(exists=True, path_type=Path))
def data(
    *,
    path: Path,
    kind: Literal["table", "json"],
    task: str | None,
    columns: tuple[str, ...],
    tokenizer: Path | None,
    files: int,
    claim: tuple[str, ...],
    claims_folder: Path | None,
) -> None:
    """Print what a job would read at PATH, without training.

    PATH is a table, a pattern of tables ('train-*.parquet'), a folder of tables, pictures or audio files, or the file of a FineTuneJob, whose splits are shown. Of tables and
    folders it is said which task and columns were taken; --task and --column say otherwise. The exit code is 2 where something
    would end a job, else 0; what is merely worth a look is a warning.
    """
    from unfreeze_trainer.commands.fetch import bring_here
    from unfreeze_trainer.commands.survey import survey

    with judged():
        if path.suffix.lower() in _JOBS and path.is_file() and not _holds_rows(path):
            job, _ = bring_here(read_job_here(path, claim, claims_folder), offline=True)
            decided, counter = (
                list[str](),
                token_counter(tokenizer) if tokenizer else _counter_of(Path(job.model.bases[0][2])),
            )
        else:
            from unfreeze_trainer.commands.draft import draft, job_of

            drafted = draft(path, task=task, columns=named(columns))
            job, decided = job_of(drafted), drafted.said
            counter = token_counter(tokenizer) if tokenizer else None
        with logged() as messages:
            found = survey(job, count_tokens=counter, files=files, decided=decided)
        found = found.model_copy(update={"warnings": [*dict.fromkeys([*found.warnings, *messages])]})
    if kind == "json":
        click.echo(found.to_json(indent=2))
    else:
        from unfreeze_trainer.commands.show_data import print_survey

        print_survey(found)
    if found.problem:
        click.echo(f"Error: {found.problem}", err=True)
        sys.exit(int(ExitCode.JOB_ERROR))


def _holds_rows(path: Path) -> bool:
    """Return whether a file of JSON holds rows, by its first object: that of a job says what it is."""
    if path.suffix.lower() != ".json":
        return False
    with path.open("rb") as file:
        text = file.read(_LOOKED).decode("utf-8-sig", errors="replace").lstrip()
    if text.startswith("["):
        return True
    try:
        first = json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):  # whoever reads the job says so
        return False
    return isinstance(first, dict) and not first.keys() & {"apiVersion", "kind", "spec"}


@contextmanager
def logged(*, broken_rows: bool = False) -> Iterator[list[str]]:
    """Collect what the readers log, but for broken rows, which a survey lists, unless that is asked for."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if broken_rows or record.name != _BROKEN_ROWS:
                messages.append(record.getMessage())

    log, collector = logging.getLogger("unfreeze_trainer"), Collector(logging.WARNING)
    propagated, log.propagate = log.propagate, False
    log.addHandler(collector)
    try:
        yield messages
    finally:
        log.removeHandler(collector)
        log.propagate = propagated


def named(columns: Sequence[str]) -> dict[str, str]:
    """Return what --column says."""
    found = {}
    for text in columns:
        name, equals, column = text.partition("=")
        if not (name and equals and column):
            raise click.BadParameter(f"{text!r} is not FIELD=NAME", param_hint="--column")
        found[name] = column
    return found


def _counter_of(model: Path) -> Count | None:
    """Return what counts a job's tokens; None where its model is not here, is broken, or there is no library for it."""
    try:
        return token_counter(model) if (model / "config.json").is_file() else None
    except (ImportError, JobError):  # whoever runs the job says so
        return None


def token_counter(folder: Path) -> Count:
    """Return what counts the tokens of texts, or pairs of them, special ones included."""
    file = folder / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        try:
            fast = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises no narrower one
            raise JobError("InvalidModel", f"{file}: the tokenizer cannot be loaded: {one_line(error)}") from error
        fast.no_truncation()
        fast.no_padding()
        return lambda texts: [
            len(one) for one in fast.encode_batch([both if len(both) > 1 else both[0] for both in texts])
        ]
    from unfreeze_trainer.models.text import load_tokenizer

    slow = load_tokenizer(str(folder), str(folder))
    return lambda texts: [len(ids) for ids in slow(*map(list, zip(*texts, strict=True)))["input_ids"]]
