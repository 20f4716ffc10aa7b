"""One run of a container: a local process as PID 1 of its own PID, mount and UTS namespaces."""

from __future__ import annotations

# A start is a few quick calls in a row: a thread for them would cost more than it saves.
# ruff: noqa: ASYNC240
import asyncio
import ctypes
import marshal
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]

INIT = Path(__file__).parent / "container_init.py"
CLONE_NEWPID = 0x20000000

libc = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """The command cannot be executed; the message is the container's."""


class Process:
    """A started container; `wait` for its end, `send` it signals. Its death ends all its descendants."""

    def __init__(self, child: subprocess.Popen[bytes], user: tuple[int, int], root: Path) -> None:
        self.pid = child.pid
        self._user = user
        self._root = root
        self._exited = asyncio.ensure_future(wait_for_exit(child))

    @classmethod
    async def start(cls, spec: Json, folder: Path, root: Path, log: Path) -> Process:
        """Start ``spec`` (see container_init.py); ``folder`` and ``root`` are this run's own.

        Raises StartError if the command does not start.
        """
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(root, ignore_errors=True)  # of a run that lost its power before anybody heard of its start
        for layer in ("upper", "work", "merged"):
            (root / layer).mkdir(parents=True)
        path = folder / "spec"
        path.touch(mode=0o600)
        path.write_bytes(marshal.dumps(spec | {"root": str(root)}))
        reader, writer = os.pipe()
        command = [sys.executable, "-I", "-S", str(INIT), str(path), str(writer)]
        try:
            with log.open("ab") as output:
                child = spawn_in_pid_namespace(command, output.fileno(), writer)
        finally:
            os.close(writer)
        process = cls(child, (spec["uid"], spec["gid"]), root)
        try:
            problem = await read_until_closed(reader)
        except asyncio.CancelledError:
            process.send(signal.SIGKILL)
            raise
        if problem:
            await process.wait()
            raise StartError(problem)
        return process

    async def wait(self) -> int:
        """Return the exit status, negative for a signal, once every process of the container is gone."""
        status = await asyncio.shield(self._exited)
        shutil.rmtree(self._root, ignore_errors=True)
        return status

    def send(self, number: int) -> None:
        """Send a signal to the container's PID 1; SIGKILL ends the whole container."""
        if not self._exited.done():
            os.kill(self.pid, number)

    async def run_inside(self, command: list[str], env: dict[str, str], limit: float) -> tuple[int, str]:
        """Run a command in the container as its user, for ``limit`` seconds; returns exit status and output."""
        uid, gid = self._user
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-r", "-w", f"-S{uid}", f"-G{gid}", "--"]
        result = await asyncio.to_thread(
            subprocess.run, [*enter, *command], env=env, capture_output=True, timeout=limit, stdin=subprocess.DEVNULL
        )
        return result.returncode, (result.stdout + result.stderr).decode(errors="replace")


def spawn_in_pid_namespace(command: list[str], output: int, keep: int) -> subprocess.Popen[bytes]:
    """Start a command as PID 1 of a new PID namespace.

    Between the two calls every child of this thread would be born there; as a direct child, the container
    needs no process beside it that waits for it.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    try:
        _check(libc.unshare(CLONE_NEWPID), "make a PID namespace")
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={}, pass_fds=[keep]
        )
    finally:
        _check(libc.setns(own, CLONE_NEWPID), "return to the own PID namespace")
        os.close(own)


async def read_until_closed(reader: int) -> str:
    """Read a pipe until its other end is closed, and close it."""
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[None] = loop.create_future()
    content = bytearray()

    def readable() -> None:
        data = os.read(reader, 4096)
        content.extend(data)
        if not data and not closed.done():
            closed.set_result(None)

    loop.add_reader(reader, readable)
    try:
        await closed
    finally:
        loop.remove_reader(reader)
        os.close(reader)
    return content.decode(errors="replace")


async def wait_for_exit(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child without a thread of its own."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)
    exited = asyncio.Event()
    loop.add_reader(descriptor, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}")
