"""`unfreeze fetch`, and what other commands do first: models and data of hubs and stores come into this machine's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unfreeze_api.grammar.sizes import size
from unfreeze_api.sources import needs
from unfreeze_trainer.commands.local import job_options, read_job_here

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.sources.pins import Pin
    from unfreeze_trainer.sources.wanted import Bringing

_PATIENCE_SECONDS = 30.0
"""Pauses between tries of a hub that does not answer, all together: somebody waits for it."""


@click.command()
@job_options
def fetch(file: Path, claim: tuple[str, ...], claims_folder: Path | None) -> None:
    """Fetch the model and the data that the FineTuneJob in FILE names at a hub or in a store, into the cache that `unfreeze run` reads.

    What is there already is checked by its hashes, and not fetched again. Afterwards `unfreeze run --offline FILE` needs no network.
    """
    folder = claims_folder if claims_folder or claim else Path()  # nothing that lies on a claim is looked at
    job = read_job_here(file, claim, folder)
    pins = bring_here(job, offline=False, keep=False)[1]
    for source, pin in pins.items():
        of = f"commit {pin.revision}, " if "hf" in needs(source).schemes else ""
        click.echo(f"{source}: {of}{len(pin.files)} files, {size(pin.size)}")
    if not pins:
        click.echo("nothing to fetch: the job names no source at a hub or in a store")


def bring_here(job: ResolvedJob, *, offline: bool, keep: bool = True) -> tuple[ResolvedJob, dict[str, Pin]]:
    """Return a job with where its sources lie on this machine, once they are here, and their pins.

    Parameters
    ----------
    offline
        Whether only the cache is asked.
    keep
        Whether a run that has begun keeps the commits that it began with.

    Raises
    ------
    JobError, RetryError
        They cannot be brought.
    """
    from unfreeze_trainer.sources.schemes import fetch_sources, pin_sources, pinned_sources

    if not pinned_sources(job):
        return fetch_sources(job), {}
    from unfreeze_trainer.runs.recipe import open_recipe
    from unfreeze_trainer.runs.sources import read_pins

    known = read_pins(Path(job.output.path), open_recipe(job).fingerprint) if keep else {}
    with _shown(offline=offline) as how:
        pins = pin_sources(job, how, known)
        return fetch_sources(job, how, pins), pins


@contextmanager
def _shown(*, offline: bool) -> Iterator[Bringing]:
    """Show what is fetched: a bar on a terminal, else a line for each source."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError as error:  # where `unfreeze validate --claims` alone is installed
        raise click.ClickException(
            f"sources at a hub need the trainer's packages, and {error.name} is missing: pip install '.[trainer]'"
        ) from error
    from unfreeze_trainer.sources.wanted import Bringing

    console = Console(highlight=False, markup=False, soft_wrap=True, stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    said: set[str] = set()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)

        def tell(text: str, done: int, total: int) -> None:
            bar.update(task, description=text, completed=done, total=total or None, visible=True)
            if not console.is_terminal and text not in said:
                said.add(text)
                console.print(text)

        stores = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "unfreeze", "stores")
        yield Bringing(cache=HF_HUB_CACHE, stores=str(stores), offline=offline, patience=_PATIENCE_SECONDS, tell=tell)
