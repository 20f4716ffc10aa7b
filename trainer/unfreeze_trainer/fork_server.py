"""Forks processes from one that has imported what they need; run as a script of its own: `forks` starts it and asks it.

It imports nothing of Unfreeze, computes nothing and starts no thread: a fork is what a Python is that has imported the plain
libraries, and nothing else. Arguments: the numbers of sockets to serve, a comma between them, and the modules to import.

A request is one datagram with five files: a pipe with the request as JSON, a pipe that the fork's process id and then its exit
code are written to, and its standard input, output and error. The server never reads the JSON, which may hold secrets: the fork does.
Whoever has asked holds a socket; when it is closed, its forks are killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import runpy
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENV = "UNFREEZE_FORK_SERVER"
"""Environment variable with the number of a process's own socket to the server; "off": none is used."""
FILES = 5
_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1  # linux/prctl.h
_DEVICE = re.compile(r"/dev/(nvidia|kfd|dri/|accel)")


@dataclass
class Fork:
    """A process that runs, for whoever has asked for it."""

    owner: socket.socket
    answers: int
    """Pipe for its exit code."""


class Server:
    """Serves until nobody can ask any more, and no fork is left.

    Parameters
    ----------
    sockets
        Of those who may ask.
    """

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._forks: dict[int, Fork] = {}
        self._selector = selectors.DefaultSelector()
        self._ended, waker = socket.socketpair()
        for end in (self._ended, waker):
            end.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._ended, selectors.EVENT_READ)
        for asked in sockets:
            self._selector.register(asked, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any]:
        """Serve; return in a fork only, with what is asked of it."""
        while len(self._selector.get_map()) > 1 or self._forks:
            for key, _ in self._selector.select():
                if key.fileobj is self._ended:
                    self._reap()
                elif wanted := self._answer(key.fileobj):  # type: ignore[arg-type]
                    return wanted
        os._exit(0)

    def _reap(self) -> None:
        """Tell how forks have ended."""
        with contextlib.suppress(BlockingIOError):
            self._ended.recv(1024)
        while self._forks:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            answers = self._forks.pop(pid).answers
            with contextlib.suppress(BrokenPipeError):
                os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(answers)

    def _answer(self, owner: socket.socket) -> dict[str, Any] | None:
        """Fork for a request, or kill the forks of one who has gone; return in the fork, with what is asked of it."""
        try:
            asked, files, _, _ = socket.recv_fds(owner, 1, FILES)
        except ConnectionError:
            asked, files = b"", []
        if not asked:
            self._selector.unregister(owner)
            for pid, fork in self._forks.items():
                if fork.owner is owner:
                    os.kill(pid, signal.SIGKILL)  # not reaped yet: the number is its own
            owner.close()
            return None
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # no memory, or no process: who has asked finds its pipe closed
            pid = -1
        if pid == 0:
            self._leave(mine)
            return _begin(files, theirs, server)
        theirs.close()
        request, answers, *streams = files
        for number in (request, *streams):
            os.close(number)
        if pid < 0:
            os.close(answers)
            mine.close()
            return None
        self._forks[pid] = Fork(owner, answers)
        self._selector.register(mine, selectors.EVENT_READ)
        return None

    def _leave(self, mine: socket.socket) -> None:
        """Close, in a fork, what is the server's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._waker.close()
        mine.close()
        for fork in self._forks.values():
            os.close(fork.answers)


def _begin(files: list[int], link: socket.socket, server: int) -> dict[str, Any]:
    """Leave the server's session, in a fork; tell who it is, and return what is asked of it."""
    request, answers, *streams = files
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it died before the line above
        os._exit(1)
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with os.fdopen(request, "rb") as file:
        wanted: dict[str, Any] = json.loads(file.read())
    libc.prctl(_PR_SET_NAME, wanted["name"].encode()[:15])
    os.write(answers, f"{os.getpid()}\n".encode())
    os.close(answers)
    os.environ.clear()
    os.environ.update(wanted["environment"] | {ENV: str(link.detach())})
    os.chdir(wanted["folder"])
    return wanted


def run(arguments: list[str]) -> None:
    """Be `python ARGUMENTS`: `-m MODULE ...` or `SCRIPT ...`."""
    _set_threads()
    gc.enable()
    if arguments[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(sys.argv[0], run_name="__main__")


def _set_threads() -> None:
    """Have torch compute in as many threads as the environment says; it has read the server's."""
    if torch := sys.modules.get("torch"):
        count = os.environ.get("OMP_NUM_THREADS", "")
        torch.set_num_threads(int(count) if count.isdecimal() and int(count) else len(os.sched_getaffinity(0)))


def _clean() -> bool:
    """Return whether forks of this process can do what a fresh one can: no thread is lost, no accelerator is open."""
    devices = [
        file
        for file in Path("/proc/self/fd").iterdir()
        if file.is_char_device() and _DEVICE.match(str(file.readlink()))
    ]
    return len(list(Path("/proc/self/task").iterdir())) == 1 and not devices


def main(numbers: str, *modules: str) -> None:
    """Import, then serve."""
    sockets = [socket.socket(fileno=int(number)) for number in numbers.split(",")]
    gc.disable()
    for name in modules:
        with contextlib.suppress(ImportError):  # whoever needs it says so
            importlib.import_module(name)
    if not _clean():
        os._exit(1)  # whoever asks starts fresh ones
    gc.collect()
    gc.freeze()  # forks share what is there now
    run(Server(sockets).serve()["arguments"])


if __name__ == "__main__":
    main(*sys.argv[1:])
