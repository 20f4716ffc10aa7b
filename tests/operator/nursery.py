"""Operators as forks of a process that has read their modules already: reading them is most of what a start costs.

`spawn` is for tests; run as a program this module is that process. For each operator it is sent a request, and for each
it forks a keeper, which forks the operator, tells who it is, and tells how it ended.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

MAX_BYTES = 1 << 20


class Forked:
    """An operator's process, with what the tests use of `subprocess.Popen`."""

    def __init__(self, told: int) -> None:
        self._told = os.fdopen(told, "rb")
        self.pid = int(self._told.readline())
        self._code: int | None = None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        if self._code is None and select.select([self._told], [], [], 0)[0]:
            self._code = self._ended()
        return self._code

    def wait(self, timeout: float) -> int:
        """Return its exit code once it has ended; raises TimeoutExpired."""
        if self._code is None and not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("the operator", timeout)
        code = self.poll()
        assert code is not None
        return code

    def _ended(self) -> int:
        with self._told:
            return int(self._told.readline())


def spawn(arguments: list[str], environment: dict[str, str], log: Path) -> Forked:
    """Start `unfreeze-operator` with these arguments and nothing but this environment; its log goes to a file's end."""
    mine, told = os.pipe()
    try:
        request = json.dumps({"arguments": arguments, "environment": environment}).encode()
        with log.open("ab") as file:
            socket.send_fds(_nursery(), [request], [file.fileno(), told])
    finally:
        os.close(told)
    return Forked(mine)


@functools.cache
def _nursery() -> socket.socket:
    """Return the way to the process that forks; it ends when this one has."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        subprocess.Popen([sys.executable, "-m", __name__, str(its.fileno())], pass_fds=[its.fileno()])
    return ours


def main() -> None:
    """Fork operators until nobody can ask for one any more."""
    import unfreeze_operator.main

    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers end by themselves
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        while True:
            request, files, _, _ = socket.recv_fds(asked, MAX_BYTES, 2)
            if not request:
                return
            if os.fork() == 0:
                asked.close()
                break
            for file in files:
                os.close(file)
    log, told = files
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        _keep(pid, told)
    os.close(told)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    wanted = json.loads(request)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    from kubernetes.aio.config import kube_config  # as much of it as the operator has imported

    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ["KUBECONFIG"]  # which was read at the import
    unfreeze_operator.main.main(wanted["arguments"], prog_name="unfreeze-operator")


def _keep(pid: int, told: int) -> None:
    """Tell of an operator until it has ended, and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the operator's
    os.write(told, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
