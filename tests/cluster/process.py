"""One run of a container: a local process as PID 1 of its own PID, mount and UTS namespaces."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]

INIT = Path(__file__).parent / "container_init.py"
NAMESPACES = ("--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private")


class StartError(Exception):
    """The command cannot be executed; the message is the container's."""


class Process:
    """A started container; `wait` for its end, `send` it signals. Its death ends all its descendants."""

    def __init__(self, parent: subprocess.Popen[bytes], folder: Path) -> None:
        self.pid = 0
        self.user = (0, 0)
        self._parent = parent
        self._folder = folder
        self._exited = asyncio.ensure_future(wait_for_exit(parent))

    @classmethod
    async def start(cls, spec: Json, folder: Path, root: Path, log: Path) -> Process:
        """Start ``spec`` (see container_init.py); ``folder`` and ``root`` are this run's own.

        Raises StartError if the command does not start.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for layer in ("upper", "work", "merged"):
            (root / layer).mkdir(parents=True)
        report = folder / "report"
        os.mkfifo(report)
        path = folder / "spec.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(spec | {"report": str(report), "root": str(root)}))
        # unshare stays as the parent of PID 1 and hands on its exit status; setpriv ties it to the node.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES]
        command += [sys.executable, "-I", "-S", str(INIT), str(path)]
        with open(log, "ab") as output:
            reader = os.open(report, os.O_RDONLY | os.O_NONBLOCK)
            parent = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={}
            )
        process = cls(parent, root)
        process.user = (spec["uid"], spec["gid"])
        try:
            text = await process._read_report(reader)
        except asyncio.CancelledError:
            parent.kill()
            raise
        finally:
            os.close(reader)
        if "error " in text:
            await process.wait()
            raise StartError(text.partition("error ")[2].strip())
        if not text.startswith("pid "):
            await process.wait()
            raise StartError(f"the container's namespaces cannot be made; see {log}")
        process.pid = int(text.split()[1])
        return process

    async def wait(self) -> int:
        """Return the exit status, negative for a signal, once every process of the container is gone."""
        status = await asyncio.shield(self._exited)
        shutil.rmtree(self._folder, ignore_errors=True)
        return status

    def send(self, number: int) -> None:
        """Send a signal to the container's PID 1; SIGKILL ends the whole container."""
        if self._exited.done():
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def kill_now(self) -> None:
        """End the container although it may not have started completely."""
        if not self._exited.done():
            self._parent.kill()
            self.send(signal.SIGKILL)

    async def run_inside(self, command: list[str], env: dict[str, str], timeout: float) -> tuple[int, str]:
        """Run a command in the container as its user; returns exit status and output."""
        uid, gid = self.user
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-r", "-w", f"-S{uid}", f"-G{gid}", "--"]
        process = await asyncio.to_thread(
            subprocess.run, [*enter, *command], env=env, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
        return process.returncode, (process.stdout + process.stderr).decode(errors="replace")

    async def _read_report(self, reader: int) -> str:
        """Read what PID 1 reports until it closes the pipe by executing the command, or dies."""
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
            await asyncio.wait({closed, self._exited}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(reader)
        if not closed.done():
            content.extend(os.read(reader, 4096))
        return content.decode(errors="replace")


async def wait_for_exit(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child without a thread of its own."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)
    exited: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: exited.done() or exited.set_result(None))
    try:
        await exited
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()
