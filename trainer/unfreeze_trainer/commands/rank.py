"""`unfreeze rank`: which of a job's candidates suits its data, from frozen features alone, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from unfreeze_trainer.commands.local import job_options, read_job_here, table_or_json

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.ranking.order import RankedBase, Ranking

_GAP = "   "
_MOST_ROWS = 10_000


@click.command()
@click.option(
    "--rows",
    type=click.IntRange(10, _MOST_ROWS),
    help="Rows of the training split that features are computed of, drawn by training.seed. Default: 1000.",
)
@table_or_json
@job_options
def rank(
    file: Path,
    claim: tuple[str, ...],
    claims_folder: Path | None,
    kind: Literal["table", "json"],
    rows: int | None,
) -> None:
    """Print which of the bases in spec.model.candidates of the FineTuneJob in FILE suits its training data, best first.

    Runs some training rows through each base once and scores what its layers make of them; nothing is trained or written,
    and neither validation nor test data is looked at. A job with candidates does the same when it starts. The exit code
    is 2 when the job itself is wrong, as it is for `unfreeze run`.
    """
    from unfreeze_trainer.ranking.candidates import require_rankable

    job = read_job_here(file, claim, claims_folder)
    require_rankable(job)
    found = _ranking(job, rows)
    if kind == "json":
        click.echo(found.to_json(indent=2))
    else:
        _print(found)


def _ranking(job: ResolvedJob, rows: int | None) -> Ranking:
    from unfreeze_trainer.commands.fetch import bring_here
    from unfreeze_trainer.commands.look import look_at_models

    here = bring_here(job, offline=True, keep=False)[0]
    look_at_models(here)
    from unfreeze_trainer.ranking.rank import ROWS, rank

    return rank(here, rows or ROWS, tell=lambda text: click.echo(text, err=True))


def _print(found: Ranking) -> None:
    heads = ("BASE", "KNN", "BEHIND", "LOGME", "H-SCORE", "BEST LAYER", "PARAMETERS", "BY SIZE", "SECONDS")
    table = [heads, *(_row(base) for base in found.bases)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo(_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    guess = f"; the commonest label alone would tell {found.guess:.3f}" if found.guess else ""
    click.echo(f"\n{found.rows:,} of {found.training_rows:,} training rows, seed {found.seed}{guess}.")
    click.echo(f"In order by {found.rule}. BY SIZE is the order without a look at the data, the largest first.")
    click.echo(f"Best is {found.sentence}.")


def _row(base: RankedBase) -> tuple[str, ...]:
    best, scores = base.places[base.best_layer], base.scores
    low, high = base.behind_interval
    return (
        base.source,
        f"{scores.knn:.3f}",
        f"{base.behind_first:.3f} ({low:.3f} to {high:.3f})" if base.rank > 1 else "",
        f"{scores.logme:.3f}",
        f"{scores.h_score:.3f}",
        f"{base.best_layer} ({best.knn:.3f})",
        f"{base.parameters:,}",
        str(base.size_rank),
        f"{base.seconds:.1f}",
    )
