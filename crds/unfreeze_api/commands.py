"""Groups of commands that end in one line, not in a traceback, for whatever people, disks and installations can do."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click


class Commands(click.Group):
    """A group whose commands may fail with OSError or ImportError."""

    def extra_of(self, command: str | None) -> str:
        """Return the extra of the package that a command needs."""
        raise NotImplementedError

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Read the command line, and print help."""
        with self._in_one_line():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a terminal that lacks a character gets its number
                stream.reconfigure(errors="backslashreplace")
        with self._in_one_line(ctx):
            return super().invoke(ctx)

    @contextmanager
    def _in_one_line(self, ctx: click.Context | None = None) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            command = ctx.invoked_subcommand if ctx else None  # known once it is called
            name = f"{ctx.info_name} {command}" if ctx else "this command"
            raise click.ClickException(missing(name, self.extra_of(command), error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read has gone, and click ends without a word
                raise
            raise click.ClickException(explained(error)) from error


def missing(command: str, extra: str, error: ImportError) -> str:
    """Say which extra of the package a command lacks."""
    return f"{command} needs the {extra} extra: pip install '.[{extra}]' in Unfreeze's folder ({error})"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write at, which takes the place of a file at the end; what goes wrong leaves nothing, and its OSError names the file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        full = error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT)  # which does not say whose
        if full or str(error.filename) == str(aside):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def explained(error: OSError) -> str:
    """Return what the system has against a file, with its name, and what to do where that is known."""
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    advice = {
        errno.EACCES: "; run this as a user who may, or have its rights changed",
        errno.ENOSPC: "; make room there",
        errno.EDQUOT: "; make room there",
        errno.EROFS: "; choose another place",
    }.get(error.errno or 0, "")
    return f"{names}{': ' if names else ''}{error.strerror or error}{advice}"
