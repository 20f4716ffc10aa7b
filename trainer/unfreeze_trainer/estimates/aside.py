"""Runs a function in a copy of this process: what it leaves behind in libraries ends with it."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_SECONDS = 0.5
"""How often somebody who waits asks whether to go on."""


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
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._be_copy(function, write, parent)
        os.close(write)

    def _be_copy(self, function: Callable[[], Any], write: int, parent: int) -> None:
        code = 1
        try:
            if sys.platform == "linux":  # whoever kills the parent need not know of the copy
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(code)
            if torch := sys.modules.get("torch"):  # OpenMP's other threads have stayed behind, and would be waited for
                torch.set_num_threads(1)
            gc.freeze()  # looking through what the parent has made takes most of a second, and writes into pages that are shared
            with os.fdopen(write, "wb") as file:
                try:
                    file.write(b"=" + self._adapter.dump_json(function()))
                except Exception as error:  # noqa: BLE001 - reported to the one who asked
                    file.write(f"!{type(error).__name__}: {error}".encode())
            code = 0
        finally:
            os._exit(code)

    def result(self, most: float | None = None, stop: Callable[[], bool] | None = None) -> Any:
        """Wait for what the function returns. Once.

        Parameters
        ----------
        most
            Seconds after which its process is ended; None waits for ever.
        stop
            Asked now and then whether nobody wants it any more.

        Raises
        ------
        AsideError
            It has raised, or its process has ended otherwise.
        """
        try:
            content = self._read_all(most, stop)
        except BaseException:
            os.kill(self._pid, signal.SIGKILL)
            raise
        finally:
            os.waitpid(self._pid, 0)
        if not content.startswith(b"="):
            raise AsideError(content[1:].decode() or "its process was ended")
        return self._adapter.validate_json(content[1:])

    def _read_all(self, most: float | None, stop: Callable[[], bool] | None) -> bytes:
        content, until = b"", None if most is None else time.monotonic() + most
        with os.fdopen(self._read, "rb", buffering=0) as file:
            while True:
                left = None if until is None else max(0.0, until - time.monotonic())
                wait = left if stop is None else min(_LOOK_SECONDS, _LOOK_SECONDS if left is None else left)
                if select.select([file], [], [], wait)[0]:
                    if not (part := file.read(2**16)):
                        return content
                    content += part
                elif stop is not None and stop():
                    raise AsideError("the job was asked to stop")
                elif until is not None and time.monotonic() >= until:
                    raise AsideError(f"it took more than {most:.0f} s")


class AsideError(Exception):
    """What went wrong in the copy, in a line."""
