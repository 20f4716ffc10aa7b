"""`unfreeze verify`: whether an exported model is still what the run wrote."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from unfreeze_api.commands import explained


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
def verify(model: Path) -> None:
    """Compare the files of MODEL, the folder of an export, with the hashes that the run wrote beside them.

    The exit code is 0 when all are the same, 1 when one was changed, is missing or was added, 2 when there is nothing to
    compare with, or something cannot be read. It tells accidents, not attacks: whoever can change the model can change the
    hashes.
    """
    from unfreeze_trainer.exports.seal import SealError, compare

    try:
        found = compare(model)
    except (SealError, OSError) as error:
        click.echo(f"Error: {explained(error) if isinstance(error, OSError) else error}", err=True)
        sys.exit(2)
    for name in found.changed:
        click.echo(f"changed: {name}", err=True)
    for name in found.missing:
        click.echo(f"missing: {name}", err=True)
    for name in found.added:
        click.echo(f"added: {name}", err=True)
    if found:
        sys.exit(1)
    click.echo(f"{model}: {found.files} files, each as the run wrote it")
