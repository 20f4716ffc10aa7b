"""The gang's process, as its agent sees it: an agent imports no PyTorch, and forks nothing itself.

Through a socket that is the process's standard input it tells in lines of JSON how its workers are and how they ended, and is told
for how many seconds they have been silent. When the agent ends, so does this process, and with it its workers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from unfreeze_api.contracts.progress import ExitCode
from unfreeze_trainer import forks
from unfreeze_trainer.errors import JobError, RetryError, told_of
from unfreeze_trainer.link import WorkerError

if TYPE_CHECKING:
    from unfreeze_trainer.forks import ForkServer

log = logging.getLogger("unfreeze.agent")

WORKER = ("-m", "unfreeze_trainer.worker")
_GANG = ("-m", "unfreeze_trainer.agent.gang")


@dataclass(frozen=True)
class Ending:
    """How the gang ended on this pod."""

    exit_code: int
    error: WorkerError | None = None

    @classmethod
    def of(cls, error: BaseException) -> Ending:
        """Return the ending by an error."""
        if isinstance(error, JobError):
            code, reason = int(ExitCode.JOB_ERROR), error.reason
        else:
            code, reason = 1, error.reason if isinstance(error, RetryError) else "AgentFailed"
        message, tail = told_of(error)
        return cls(code, WorkerError(reason=reason, message=message, rank=-1, exit_code=code, log_tail=tail[-2000:]))


@dataclass
class State:
    """What the gang tells of its workers."""

    restarts: int = 0
    workers_started: float = float("inf")
    """When the workers that run now were started; infinite while there are none."""
    pids: list[int] = field(default_factory=list)


class GangProcess:
    """Starts the process, which takes part in the gang at once.

    Parameters
    ----------
    worker
        Arguments of the interpreter that make a worker.
    server
        Forks the process, and for it the workers; None starts each afresh.
    ended
        Called once, from another thread.
    """

    def __init__(self, worker: Sequence[str], server: ForkServer | None, ended: Callable[[Ending], None]) -> None:
        self.state = State()
        self._ended, self._server = ended, server  # whose forks end when nobody holds it any more
        self._way, its = socket.socketpair()
        with its:
            self._process = forks.spawn([*_GANG, *worker], os.environ, server, name="unfreeze-gang", into=its.fileno())
        threading.Thread(target=self._listen, name="gang", daemon=True).start()

    def hung(self, seconds: float) -> None:
        """Take note that the workers hang; those of every pod write their stacks, before a restart here ends them."""
        with contextlib.suppress(OSError):  # it has ended, which is reported elsewhere
            self._way.sendall(f"{seconds}\n".encode())

    def kill_workers(self) -> None:
        """Kill the workers, with what they may have started."""
        for pid in self.state.pids:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)  # each worker leads a session of its own

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._way.makefile("r") as lines:
            for line in lines:
                message = json.loads(line)
                if "exit_code" in message:
                    error = message["error"] and WorkerError.model_validate(message["error"])
                    self._ended(Ending(message["exit_code"], error))
                    return
                self.state = State(**message)
        code = self._process.wait()
        why = ": perhaps for want of memory, give the pods more" if code == -signal.SIGKILL else ""
        self._ended(Ending.of(RuntimeError(f"the process that starts the workers has ended with {code}{why}")))


def say_to(agent: socket.socket, what: State | Ending) -> None:
    """Tell an agent of something; one that has gone hears nothing."""
    line: dict[str, Any]
    if isinstance(what, Ending):
        line = {"exit_code": int(what.exit_code), "error": what.error and what.error.model_dump(mode="json")}
    else:
        line = asdict(what)
    with contextlib.suppress(OSError):
        agent.sendall(f"{json.dumps(line)}\n".encode())
