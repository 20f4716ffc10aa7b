"""The command `unfreeze`. What needs more than the API (`unfreeze run`) comes from entry points of its own."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path

import click

from unfreeze_api.spec import API_VERSION, KIND

COMMANDS = "unfreeze.commands"
"""Entry-point group of subcommands; the extra that an entry needs is the package it lies in, see _extra."""


class _Commands(click.Group):
    """Subcommands of other packages, imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *(entry.name for entry in entry_points(group=COMMANDS))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        found = entry_points(group=COMMANDS, name=cmd_name)
        return own if own or not found else _load(next(iter(found)))


def _load(entry: EntryPoint) -> click.Command:
    try:
        return entry.load()
    except ImportError as error:
        if error.name and error.name.partition(".")[0] == "unfreeze_api":  # our own mistake, not a missing extra
            raise
        text = f"unfreeze {entry.name} needs the {_extra(entry)} extra: pip install 'unfreeze[{_extra(entry)}]'"

        @click.command(
            entry.name,
            help=f"{text} ({error}).",
            short_help=text,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
        def missing() -> None:
            raise click.ClickException(f"{text} ({error})")

        return missing


def _extra(entry: EntryPoint) -> str:
    """Return the extra of a package: unfreeze_trainer comes with unfreeze[trainer]."""
    return entry.module.partition(".")[0].removeprefix("unfreeze_")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Transfer learning on Kubernetes, described by FineTuneJobs."""


@main.command("version")
def print_version() -> None:
    """Print the version."""
    click.echo(f"unfreeze {version('unfreeze')} ({API_VERSION})")


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def validate(files: tuple[str, ...]) -> None:
    """Judge FineTuneJobs as the API server would, without one.

    FILE is a YAML or JSON file; - reads standard input. The exit code is 1 when a job is invalid or a file cannot be
    read. Objects of other kinds are skipped.
    """
    sound = [_validate_file(file) for file in files]
    sys.exit(0 if all(sound) else 1)


def _validate_file(file: str) -> bool:
    from unfreeze_api.manifest import ManifestError, read

    try:
        text = click.get_text_stream("stdin").read() if file == "-" else Path(file).read_text(encoding="utf-8")
        documents = list(read(text))
    except OSError as error:
        click.echo(f"{file}: {error.strerror}", err=True)
        return False
    except (ManifestError, UnicodeDecodeError) as error:
        click.echo(f"{file}: {error}", err=True)
        return False
    if not documents:
        click.echo(f"{file}: no manifest in it", err=True)
    return bool(documents) and all([_validate_document(file, document.manifest) for document in documents])


def _validate_document(file: str, manifest: dict[str, object]) -> bool:
    # Imported late: building the schema costs more than `unfreeze --help` should.
    from unfreeze_api.validate import name_of, validate

    kind = manifest.get("kind")
    if kind != KIND:
        click.echo(f'{file}: {kind or "object without kind"} "{name_of(manifest)}" skipped: only {KIND} is judged here')
        return bool(kind)
    title = f'{file}: {KIND} "{name_of(manifest)}"'
    causes = validate(manifest)
    for cause in causes:
        click.echo(f"{title}: {cause}", err=True)
    if not causes:
        click.echo(f"{title} is valid")
    return not causes
