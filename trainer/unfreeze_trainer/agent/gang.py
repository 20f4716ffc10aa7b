"""The gang: agents of all pods meet at pod 0's rendezvous and run the workers together, again when one of them dies.

    python -m unfreeze_trainer.agent.gang WORKER...

is a process beside an agent, which starts it by `gang_process` and talks to it through its standard input.

torch.distributed.elastic does the meeting and the starting. What it lacks is here: errors that no restart mends end all
pods at once, a stop is no failure, and a rendezvous whose host is gone is waited for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.elastic.multiprocessing.api as elastic
from torch._C._distributed_c10d import TCPStore
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler
from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters

from unfreeze_api.contracts.progress import JOB_FILE_ENV, ExitCode
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.agent.gang_process import WORKER, Ending, State, say_to
from unfreeze_trainer.agent.pod import Pod, kernel_oom_kills
from unfreeze_trainer.agent.rendezvous import open_rendezvous
from unfreeze_trainer.forks import ForkServer
from unfreeze_trainer.job_file import load_job
from unfreeze_trainer.link import AGENT_ENV, Link, WorkerError

log = logging.getLogger("unfreeze.agent")
# It warns that signals are not its business in a thread, which is why it runs in one.
logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.ERROR)

MAX_RESTARTS = 3
"""Restarts in place without a new checkpoint in between; after that the pod fails and is replaced."""
_END, _SEEN, _HANGS, _MASTER_PORT = "unfreeze/end", "unfreeze/seen", "unfreeze/hangs", "unfreeze/master-port"
_POLL_SECONDS = 0.2
_GOODBYE_SECONDS = 5.0


class Gang:
    """The part of one pod in the gang.

    Parameters
    ----------
    job, pod, link
        What runs, where, and the folder shared with the workers.
    worker
        Arguments of the interpreter that make a worker.
    server
        Forks the workers; None starts each afresh.
    tell
        Told how the workers are.
    """

    def __init__(
        self,
        job: ResolvedJob,
        pod: Pod,
        link: Link,
        *,
        worker: Sequence[str] = WORKER,
        server: ForkServer | None = None,
        tell: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._job, self._pod, self._link, self._worker = job, pod, link, tuple(worker)
        self._server, self._tell, self._state = server, tell, State()
        self._agent: _ElasticAgent | None = None
        self._failures = 0
        self._checkpoint_step = -1
        self._oom_kills = kernel_oom_kills()
        self._shared: _SharedStore | None = None
        self._silence: float | None = None

    def run(self, ended: Callable[[Ending], None]) -> None:
        """Run workers until they are done or cannot continue; `ended` is called once, perhaps from another thread."""
        while not self._link.stop_requested():
            try:
                self._join(ended)
            except (RendezvousError, dist.DistError, ConnectionError, TimeoutError) as error:
                self._no_workers()
                log.warning("the rendezvous is gone (%s): waiting for pod 0 and joining again", error)
                time.sleep(1.0)
            else:
                return

    def _join(self, ended: Callable[[Ending], None]) -> None:
        distribution = self._job.distribution
        host, port = distribution.rendezvous_host, distribution.rendezvous_port
        is_host = self._pod.index == 0
        if not is_host and not self._wait_for_port(host, port):
            return
        parameters = RendezvousParameters(
            backend="c10d",
            endpoint=f"{host}:{port}",
            run_id=self._job.name,
            min_nodes=distribution.num_nodes,
            max_nodes=distribution.num_nodes,
            local_addr=self._pod.host(self._job),
            is_host=is_host,
            join_timeout=3600,
            read_timeout=30,
            keep_alive_interval=2,
            keep_alive_max_attempt=5,
        )
        handler = open_rendezvous(parameters)
        shared = _SharedStore(host, port, distribution.num_nodes)
        shared.watch(ended, self.dump_stacks)
        self._shared = shared
        spec = WorkerSpec(
            role="worker",
            local_world_size=distribution.num_proc_per_node,
            entrypoint=sys.executable,
            args=self._worker,
            rdzv_handler=handler,
            max_restarts=MAX_RESTARTS,
            monitor_interval=_POLL_SECONDS,
        )
        self._agent = _ElasticAgent(spec, self, logs=str(self._link.folder / "elastic"), server=self._server)
        try:
            result = self._agent.run()
        finally:
            self._shared = None
            shared.close()
        if result is None or self._link.stop_requested():
            return
        ending = self._ending(result)
        if ending.exit_code == ExitCode.JOB_ERROR and ending.error:
            shared.announce(ending.error, wait=is_host)
        ended(ending)

    def _wait_for_port(self, host: str, port: int) -> bool:
        """Wait until pod 0 listens: its name resolves before that. False when asked to stop."""
        said = False
        while not self._link.stop_requested():
            try:
                with socket.create_connection((host, port), timeout=2):
                    return True
            except OSError as error:
                if not said:
                    log.info("waiting for pod 0 at %s:%d (%s)", host, port, error)
                    said = True
                time.sleep(0.25)
        return False

    def _ending(self, result: RunResult) -> Ending:
        if result.state == WorkerState.SUCCEEDED:
            return Ending(ExitCode.DONE)
        errors = self._link.errors()
        if errors:
            code = ExitCode.JOB_ERROR if errors[0].exit_code == ExitCode.JOB_ERROR else 1
            return Ending(int(code), errors[0])
        if self._silence is not None:
            message = (
                f"no step for {self._silence:.0f} s, again after each restart: the stacks of all ranks are in the logs"
            )
            return Ending(1, WorkerError(reason="Hang", message=message, rank=-1, exit_code=1))
        failed = {rank: failure.exitcode for rank, failure in result.failures.items()}
        rank, code = next(iter(failed.items()), (0, 1))
        killed = kernel_oom_kills() > self._oom_kills and -signal.SIGKILL in failed.values()
        reason = "OutOfMemory" if killed else "WorkerKilled" if code < 0 else "WorkerFailed"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        advice = ": the pod's memory limit is too low for this batch" if killed else ""
        error = WorkerError(reason=reason, message=f"the worker of rank {rank} {how}{advice}", rank=rank, exit_code=1)
        return Ending(1, error)

    # Called by the elastic agent, in the gang's thread.

    def workers_starting(self) -> None:
        """Forget the errors of workers that were there before."""
        self._link.clear_errors()
        self._silence = None
        self._link.write_activity("starting the workers, which load PyTorch")
        self._state.workers_started = time.time()

    def workers_run(self, pids: Sequence[int]) -> None:
        """Tell of workers that have been started."""
        self._state.pids = [*pids]
        self._tell(self._state)

    def _no_workers(self) -> None:
        self._state.workers_started = float("inf")
        self._tell(self._state)

    def restart_allowed(self, exit_codes: Sequence[int]) -> bool:
        """Judge a failure of workers: whether they are started again in place."""
        if self._link.stop_requested() or ExitCode.JOB_ERROR in exit_codes:
            return False
        if any(error.exit_code == ExitCode.JOB_ERROR for error in self._link.errors()):
            return False
        if ExitCode.STOPPED in exit_codes:  # another pod was asked to stop; this one waits for its successor
            return True
        progress = self._link.read_progress()
        step = progress.checkpoint.step if progress and progress.checkpoint else -1
        self._failures = 1 if step > self._checkpoint_step else self._failures + 1
        self._checkpoint_step = step
        return self._failures <= MAX_RESTARTS

    def workers_restarting(self) -> None:
        """Count a restart in place."""
        self._state.restarts += 1
        self._no_workers()

    # Called by the thread that listens to the agent, and by the one that watches the store.

    def _pids(self) -> list[int]:
        return self._agent.pids() if self._agent else []

    def dump_stacks(self) -> None:
        """Let this pod's workers write their stacks to the log."""
        for pid in self._pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGUSR1)

    def hung(self, seconds: float) -> None:
        """Take note that the workers hang; those of every pod write their stacks, before a restart here ends them."""
        self._silence = seconds
        self.dump_stacks()
        if shared := self._shared:
            shared.announce_hang()

    def kill_workers(self) -> None:
        """Kill the workers, with what they may have started."""
        for pid in self._pids():
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)  # each worker leads a session of its own


class _ElasticAgent(LocalElasticAgent):
    """torch's agent, which asks the gang what a failure means."""

    def __init__(self, spec: WorkerSpec, gang: Gang, *, logs: str, server: ForkServer | None) -> None:
        # The workers of each round meet in a store of their own. torch's default, one store of pod 0's agent for all
        # rounds, is sent to no pod that joins later, and keeps the addresses of dead workers.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        super().__init__(spec, DefaultLogsSpecs(log_dir=logs), exit_barrier_timeout=60)
        self._gang, self._server = gang, server

    def pids(self) -> list[int]:
        context = self._pcontext
        return list(context.pids().values()) if context else []

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        assert worker_group.store is not None
        if worker_group.group_rank == 0:
            worker_group.store.set(_MASTER_PORT, str(_free_port()))
        worker_group.master_port = int(worker_group.store.get(_MASTER_PORT))
        self._gang.workers_starting()
        elastic.get_subprocess_handler = partial(_Worker, self._server)
        started = super()._start_workers(worker_group)
        self._gang.workers_run(self.pids())
        return started

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        self._gang.workers_restarting()
        super()._restart_workers(worker_group)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if result.state == WorkerState.FAILED:
            codes = [failure.exitcode for failure in result.failures.values()]
            # _invoke_run restarts while this is positive, and takes one away.
            self._remaining_restarts = 1 if self._gang.restart_allowed(codes) else 0
        return result


class _Worker(SubprocessHandler):
    """A worker's process, forked where there is a server, and else as torch starts it."""

    def __init__(self, server: ForkServer | None, **place: Any) -> None:
        self._server = server
        super().__init__(**place)

    def _popen(self, args: tuple[str, ...], env: dict[str, str]) -> Any:
        if self._server:
            # A fork ends with the server, which ends with the agent.
            given = {name: value for name, value in env.items() if name != AGENT_ENV}
            try:
                return self._server.spawn(args[1:], given, name="unfreeze-worker")
            except OSError as error:
                log.warning("workers are started afresh: %s", error)
        return super()._popen(args, env)


def _free_port() -> int:
    """Return a port for the workers' own store; below those of outgoing connections, which could take it meanwhile."""
    while True:
        port = secrets.choice(range(10_000, 20_000))
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port


class _SharedStore:
    """Pods tell each other in the rendezvous' store that the job itself is wrong, which ends all, or that workers hang."""

    def __init__(self, host: str, port: int, pods: int) -> None:
        self._store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=10))
        self._pods, self._closed = pods, threading.Event()
        self._hangs = 0

    def watch(self, ended: Callable[[Ending], None], hung: Callable[[], None]) -> None:
        """Call `ended` when another pod has announced an error, `hung` when one has announced a hang."""
        threading.Thread(target=self._watch, args=(ended, hung), name="shared-store", daemon=True).start()

    def _watch(self, ended: Callable[[Ending], None], hung: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # pod 0 is gone, and with it the store
            self._hangs = self._store.add(_HANGS, 0)  # those before this pod's time
            while not self._closed.wait(_POLL_SECONDS):
                if (hangs := self._store.add(_HANGS, 0)) > self._hangs:
                    self._hangs = hangs
                    hung()
                if self._store.check([_END]):
                    error = WorkerError.read(self._store.get(_END))
                    self._store.add(_SEEN, 1)
                    ended(Ending(int(ExitCode.JOB_ERROR), error))
                    return

    def announce(self, error: WorkerError, *, wait: bool) -> None:
        """Tell the other pods; pod 0, whose end is the store's, waits a moment until they have read it."""
        with contextlib.suppress(RuntimeError):
            self._store.set(_END, error.to_json())
            seen = self._store.add(_SEEN, 1)
            until = time.monotonic() + _GOODBYE_SECONDS
            while wait and seen < self._pods and time.monotonic() < until:
                time.sleep(0.05)
                seen = self._store.add(_SEEN, 0)

    def announce_hang(self) -> None:
        """Tell the other pods that their workers are about to be started again because some of them hang."""
        with contextlib.suppress(RuntimeError):
            self._hangs = self._store.add(_HANGS, 1)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()


def main() -> None:
    """Be the gang's process until the agent has gone."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s agent: %(message)s")
    for noisy in ("torch.distributed", "torch.distributed.elastic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    link = Link.from_environment()
    assert link is not None  # the agent's
    os.environ[AGENT_ENV] = str(
        os.getpid()
    )  # workers that are no forks end with this process, which ends with the agent
    agent = socket.socket(fileno=0)
    tell = partial(say_to, agent)
    job = load_job(Path(os.environ[JOB_FILE_ENV]), say=False)
    gang = Gang(job, Pod.from_environment(), link, worker=sys.argv[1:], server=ForkServer.inherited(), tell=tell)
    threading.Thread(target=_run, args=(gang, tell), name="gang", daemon=True).start()
    with contextlib.suppress(ConnectionError), agent.makefile("r") as hangs:
        for seconds in hangs:
            gang.hung(float(seconds))
    gang.kill_workers()  # the agent has gone
    os._exit(0)


def _run(gang: Gang, ended: Callable[[Ending], None]) -> None:
    try:
        gang.run(ended)
    except BaseException as error:
        log.exception("the gang has ended")
        ended(Ending.of(error))


if __name__ == "__main__":
    main()
