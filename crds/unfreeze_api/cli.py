"""The command `unfreeze`. What needs more than the API (`unfreeze run`) comes from entry points of its own."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import EntryPoint, EntryPoints, entry_points, version
from pathlib import Path

import click

from unfreeze_api.claims import claim_options
from unfreeze_api.commands import Commands, explained
from unfreeze_api.relative import absolute

COMMANDS = "unfreeze.commands"
"""Entry-point group of subcommands. Their modules import what is heavy within their functions."""
LOOKS = "unfreeze.looks"
"""Entry-point group of what `unfreeze validate --claims` calls with each valid job and the folders of its claims."""


class _Commands(Commands):
    """Subcommands of other packages, imported only when they are called or described."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_entries(COMMANDS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _entry(cmd_name)
        return super().get_command(ctx, cmd_name) if entry is None else _load(entry)

    def extra_of(self, command: str | None) -> str:
        entry = _entry(command or "")
        return _extra(entry) if entry else "data"


@cache
def _entries(group: str) -> EntryPoints:
    """Return the entry points of a group, once: the files of all installed packages are read for them."""
    return entry_points(group=group)


def _entry(name: str) -> EntryPoint | None:
    return next(iter(_entries(COMMANDS).select(name=name)), None)


def _load(entry: EntryPoint) -> click.Command:
    try:
        command: click.Command = entry.load()
    except ImportError as error:
        problem = error  # Python forgets `error` at the end of this block

        def fail(**_: object) -> None:
            raise problem

        anything = {"ignore_unknown_options": True, "allow_extra_args": True}
        needs = f"unfreeze {entry.name} needs the {_extra(entry)} extra"
        return click.Command(entry.name, callback=fail, short_help=needs, context_settings=anything)
    return command


def _extra(entry: EntryPoint) -> str:
    return entry.module.partition(".")[0].removeprefix("unfreeze_")  # unfreeze_trainer comes with unfreeze[trainer]


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Transfer learning on Kubernetes, described by FineTuneJobs."""


@main.command("version")
def print_version() -> None:
    """Print the version."""
    from unfreeze_api.contracts.names import API_VERSION

    click.echo(f"unfreeze {version('unfreeze')} ({API_VERSION})")


@main.command()
@claim_options
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def validate(files: tuple[str, ...], claim: tuple[str, ...], claims_folder: Path | None) -> None:
    """Judge FineTuneJobs as the API server would, without one.

    FILE is a YAML or JSON file; - reads standard input. With --claims or --claim what the jobs read is looked at too:
    folders, headers, columns and labels. The exit code is 1 when a job is invalid or a file cannot be read. Objects of
    other kinds are skipped.
    """
    look = partial(_look, claim, claims_folder) if claim or claims_folder else None
    sound = [_validate_file(file, look) for file in files]
    sys.exit(0 if all(sound) else 1)


def _look(claim: tuple[str, ...], claims_folder: Path | None, manifest: dict[str, object]) -> str:
    """Return what is seen of a valid job's model and data; ClickException where something is wrong with them."""
    from unfreeze_api.apiserver.validate import load_job

    (entry,) = _entries(LOOKS)
    seen: str = entry.load()(load_job(manifest), claim, claims_folder)
    return seen


def _validate_file(file: str, look: Callable[[dict[str, object]], str] | None) -> bool:
    from unfreeze_api.apiserver.manifest import ManifestError, read

    try:
        content = _standard_input() if file == "-" else Path(file).read_bytes()
        text = content.decode("utf-8-sig")
        documents = list(read(text))
    except OSError as error:
        click.echo(f"{file}: {error.strerror}", err=True)
        return False
    except UnicodeDecodeError as error:
        click.echo(f"{file}: not UTF-8 text: {error}", err=True)
        return False
    except ManifestError as error:
        click.echo(f"{file}: {error}", err=True)
        return False
    if not documents:
        click.echo(f"{file}: no manifest in it", err=True)
    sound = [_validate_document(file, document.manifest, look) for document in documents]
    return bool(documents) and all(sound)


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def _validate_document(file: str, manifest: dict[str, object], look: Callable[[dict[str, object]], str] | None) -> bool:
    # Imported late: building the schema costs more than `unfreeze --help` should.
    from unfreeze_api.apiserver.validate import hints, name_of, validate, warnings
    from unfreeze_api.contracts.names import KIND

    kind = manifest.get("kind")
    if kind != KIND:
        click.echo(f'{file}: {kind or "object without kind"} "{name_of(manifest)}" skipped: only {KIND} is judged here')
        return bool(kind)
    title = f'{file}: {KIND} "{name_of(manifest)}"'
    given = manifest
    if look:  # on this machine, where paths may be relative
        manifest = absolute(manifest, Path() if file == "-" else Path(file).parent)
    causes = validate(manifest)
    for cause in causes:
        click.echo(f"{title}: {cause}", err=True)
    for hint in hints(manifest, causes):
        click.echo(f"  {hint}", err=True)
    for warning in warnings(manifest):
        click.echo(f"{title}: Warning: {warning}", err=True)
    if causes:
        return False
    try:
        seen = f"; {look(manifest)}" if look else ""
    except (click.ClickException, OSError) as error:
        click.echo(f"{title}: {explained(error) if isinstance(error, OSError) else error.message}", err=True)
        return False
    where = "" if manifest == given else " on this machine (no cluster takes relative paths)"
    click.echo(f"{title} is valid{where}{seen}")
    return True
