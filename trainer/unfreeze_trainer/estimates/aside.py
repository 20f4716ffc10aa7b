"""Runs a function in a copy of this process: what it leaves behind in libraries ends with it."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


class Aside:
    """A function that runs in a copy of this process, beside it.

    Parameters
    ----------
    function
        Returns what pydantic can write as JSON. It must compute nothing with several threads: a copy has one.
    kind
        Type of what it returns.
    """

    def __init__(self, function: Callable[[], Any], kind: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
        self._read, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._be_copy(function, write)
        os.close(write)

    def _be_copy(self, function: Callable[[], Any], write: int) -> None:
        code = 1
        try:
            with os.fdopen(write, "wb") as file:
                try:
                    file.write(b"=" + self._adapter.dump_json(function()))
                except Exception as error:  # noqa: BLE001 - reported to the one who asked
                    file.write(f"!{type(error).__name__}: {error}".encode())
            code = 0
        finally:
            os._exit(code)

    def result(self, most: float | None = None) -> Any:
        """Wait for what the function returns. Once.

        Parameters
        ----------
        most
            Seconds after which its process is ended; None waits for ever.

        Raises
        ------
        AsideError
            It has raised, or its process has ended otherwise.
        """
        content, until = b"", None if most is None else time.monotonic() + most
        with os.fdopen(self._read, "rb", buffering=0) as file:
            while True:
                if not select.select([file], [], [], None if until is None else max(0.0, until - time.monotonic()))[0]:
                    os.kill(self._pid, signal.SIGKILL)
                    content = f"!it took more than {most:.0f} s".encode()
                    break
                if not (part := file.read(2**16)):
                    break
                content += part
        os.waitpid(self._pid, 0)
        if not content.startswith(b"="):
            raise AsideError(content[1:].decode() or "its process was ended")
        return self._adapter.validate_json(content[1:])


class AsideError(Exception):
    """What went wrong in the copy, in a line."""
