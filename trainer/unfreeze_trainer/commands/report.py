"""`unfreeze report`: the page of a finished run, written again, or for a run of an earlier version."""

from __future__ import annotations

from pathlib import Path

import click

from unfreeze_api.commands import explained, whole


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the page is written, in place of RUN/report.html.",
)
def report(run: Path, output: Path | None) -> None:
    """Write report.html of RUN, a run's folder: one file that opens anywhere and asks for nothing.

    Runs write it themselves at their end. Of a run of an earlier version it has what that left behind: figures of each class
    and curves come of predictions/ and history.csv.
    """
    from unfreeze_trainer.errors import JobError
    from unfreeze_trainer.exports.page import FILE, page
    from unfreeze_trainer.exports.report import read_report

    try:
        found = read_report(run)
    except JobError as error:
        raise click.ClickException(error.message) from None
    if found is None:
        raise click.ClickException(
            f"{run} has no report.json: the run has not ended well yet, or this is not a run's folder"
        )
    path = output or run / FILE
    try:
        with whole(path) as aside:
            aside.write_text(page(run, found), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"the page cannot be written: {explained(error)}") from None
    click.echo(str(path))
