"""Processes as forks of one that has imported PyTorch and transformers already, which is most of what a start costs.

Where there is no such server, or it has gone, and on systems other than Linux, a process is started afresh: it does the same,
later.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from unfreeze_trainer import fork_server
from unfreeze_trainer.fork_server import ENV

_FOUND = {"PATH", "VIRTUAL_ENV", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "TZ", "XDG_CACHE_HOME"}
_SETTINGS = re.compile(
    r"(LC|LD|PYTHON|TORCH|PYTORCH|OMP|GOMP|KMP|MKL|OPENBLAS|ATEN|DNNL|ONEDNN|MALLOC|NCCL|GLOO|CUDA|HIP|ROCR|HSA|TRITON|HF|"
    r"TRANSFORMERS|ACCELERATE|TOKENIZERS|TIMM)_?.*"
)
_SECRET = re.compile(r"TOKEN(?!IZERS)|KEY|SECRET|PASS|CREDENTIAL|AUTH")


class Forked:
    """A fork, with what is used here of `subprocess.Popen`.

    Parameters
    ----------
    answers
        Pipe in which it tells its process id, and the server its exit code.
    """

    def __init__(self, answers: int) -> None:
        self._answers = os.fdopen(answers, "rb")
        self.pid = int(self._answers.readline() or -1)
        if self.pid < 0:
            self._answers.close()
            raise ConnectionError("the fork server has gone")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            with self._answers:
                self.returncode = int(self._answers.readline() or -signal.SIGKILL)  # killed with the server
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended.

        Raises
        ------
        subprocess.TimeoutExpired
            It has not.
        """
        if self.returncode is None and not select.select([self._answers], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The way of one process to the server that forks; what has been forked by it ends with this process, killed."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked

    def spawn(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        name: str,
        into: int = 0,
        out: int = 1,
        err: int = 2,
    ) -> Forked:
        """Start `python ARGUMENTS` in a session of its own, with nothing but an environment; return it.

        Parameters
        ----------
        arguments
            `-m MODULE ...`, or a script and its arguments.
        name
            That `ps` shows, 15 characters.
        into, out, err
            Files of its standard input, output and error.

        Raises
        ------
        OSError
            The server has gone, or cannot fork.
        """
        wanted = {"arguments": [*arguments], "environment": {**environment}, "name": name, "folder": str(Path.cwd())}
        (request, given), (mine, answers) = os.pipe(), os.pipe()
        try:
            with os.fdopen(given, "wb") as pipe:
                try:
                    socket.send_fds(self._asked, [b"1"], [request, answers, into, out, err])
                finally:
                    os.close(request)
                    os.close(answers)
                pipe.write(json.dumps(wanted).encode())
        except OSError:
            os.close(mine)
            raise
        return Forked(mine)

    @staticmethod
    @functools.cache
    def inherited() -> ForkServer | None:
        """Return the server that this process was given a way to, None without one."""
        number = os.environ.get(ENV, "")
        if not number.isdecimal():
            return None
        del os.environ[ENV]  # what this process starts has not got the socket
        return ForkServer(socket.socket(fileno=int(number)))

    @classmethod
    def start(cls, modules: Sequence[str]) -> ForkServer | None:
        """Start a server that imports modules; None where a fork would not be safe. It ends with this process."""
        _, ways = start(modules)
        return cls(ways[0]) if ways else None


def start(
    modules: Sequence[str], users: int = 1, *, quiet: bool = False
) -> tuple[subprocess.Popen[bytes] | None, list[socket.socket]]:
    """Start a server; return it with a socket for each of its users, None and none where a fork would not be safe."""
    if sys.platform != "linux" or os.environ.get(ENV) == "off":
        return None, []
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(users)]
    served = [its.fileno() for _, its in pairs]
    # A session of its own: Ctrl-C in a terminal is not for it. -P: a script's own folder is not searched for modules.
    server = subprocess.Popen(
        [sys.executable, "-P", fork_server.__file__, ",".join(map(str, served)), *modules],
        env=_settings(os.environ) | _SERVER,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
        pass_fds=served,
        start_new_session=True,
    )
    for _, its in pairs:
        its.close()
    return server, [mine for mine, _ in pairs]


def spawn(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    server: ForkServer | None,
    *,
    name: str,
    into: int = subprocess.DEVNULL,
    out: int = 1,
    err: int = 2,
) -> Forked | subprocess.Popen[bytes]:
    """Start `python ARGUMENTS` by a server, or afresh where there is none any more; what is given is as of ForkServer.spawn."""
    if server:
        with contextlib.suppress(OSError), open(os.devnull) as empty:  # noqa: PTH123 - no path of ours
            source = empty.fileno() if into == subprocess.DEVNULL else into
            return server.spawn(arguments, environment, name=name, into=source, out=out, err=err)
    # -P: a script's own folder is not searched for modules.
    command = [sys.executable, *([] if arguments[0] == "-m" else ["-P"]), *arguments]
    return subprocess.Popen(command, env=environment, stdin=into, stdout=out, stderr=err, start_new_session=True)


def run(arguments: Sequence[str], environment: Mapping[str, str], *, name: str, seconds: float) -> tuple[int, str, str]:
    """Run `python ARGUMENTS` with nothing but an environment, and without input; return its exit code, output and errors.

    Raises
    ------
    subprocess.TimeoutExpired
        It took longer; it has been killed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = {"out": out.fileno(), "err": err.fileno()}
        process = spawn(arguments, environment, ForkServer.inherited(), name=name, **files)
        try:
            code = process.wait(seconds)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return code, _text(out), _text(err)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


_SERVER = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""Of the server: a thread that an import starts, and a driver that it opens, would not come along into forks."""


def _settings(whole: Mapping[str, str]) -> dict[str, str]:
    """Return what libraries read when they are imported; no secret, since forks have what the server has."""
    kept = {name: value for name, value in whole.items() if name in _FOUND or _SETTINGS.match(name)}
    return {"HF_HUB_OFFLINE": "1"} | {name: value for name, value in kept.items() if not _SECRET.search(name)}
