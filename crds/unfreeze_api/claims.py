"""Volume claims without a cluster: the options that say which folders stand for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unfreeze_api.commands import explained

if TYPE_CHECKING:  # building the models costs more than `unfreeze --help` should
    from unfreeze_api.spec.job import FineTuneJobSpec


def claim_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --claims DIR and --claim NAME=DIR, as `claims_folder` and `claim`."""
    claims = click.option(
        "--claims",
        "claims_folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder with a sub-folder for each volume claim.",
    )
    claim = click.option(
        "--claim",
        "claim",
        multiple=True,
        metavar="NAME=DIR",
        help="Folder that stands for a volume claim; may be given several times.",
    )
    return claim(claims(command))


def claim_folders(spec: FineTuneJobSpec, given: tuple[str, ...], parent: Path | None, *, write: bool) -> dict[str, str]:
    """Return the folder of each volume claim of a job.

    Parameters
    ----------
    given, parent
        What --claim and --claims say.
    write
        Whether the claim that is written to is made where it is missing; else it need not be there.

    Raises
    ------
    click.ClickException
        With the option that is missing, or the folder.
    """
    from unfreeze_api.resolve import claims

    folders: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise click.BadParameter(f"{text!r} is not NAME=DIR", param_hint="--claim")
        folders[name] = path
    found = {}
    for name, writable in claims(spec).items():
        folder = Path(folders.get(name) or (parent / name if parent else ""))
        if not folders.get(name) and parent is None:
            raise click.UsageError(
                f"the job uses the volume claim {name} (pvc://{name}/...): say which folder stands for it, --claim"
                f" {name}=DIR, or --claims DIR when the folder is DIR/{name}"
            )
        if writable and write:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = f"cannot be made: {explained(error)}"
                raise click.UsageError(f"the folder {folder} for the volume claim {name} {why}") from error
        if not folder.is_dir() and (write or not writable):
            raise click.UsageError(f"there is no folder {folder} for the volume claim {name}")
        found[name] = str(folder.resolve())
    return found
