"""`unfreeze-trainer`: PID 1 of a trainer pod.

    UNFREEZE_JOB=job.json JOB_COMPLETION_INDEX=0 unfreeze-trainer

Serves /healthz, /progress and /metrics from the first moment, joins the gang, and leaves with a termination message and
one of the exit codes of `unfreeze_api.contracts.progress.ExitCode`, or 1.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze_api.contracts.progress import JOB_FILE_ENV, ExitCode, Progress, TerminationMessage
from unfreeze_api.sources import access_of
from unfreeze_trainer.agent.hang import HangWatch
from unfreeze_trainer.agent.http import Server
from unfreeze_trainer.agent.pod import Pod, threads_per_worker
from unfreeze_trainer.errors import SHOW_VALUES_ENV, JobError, told_of
from unfreeze_trainer.forks import ForkServer
from unfreeze_trainer.link import AGENT_ENV, LINK_ENV, STARTED_ENV, Link
from unfreeze_trainer.sources.schemes import pinned_sources
from unfreeze_trainer.sources.secrecy import close_to_others

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.agent.gang_process import Ending, GangProcess
    from unfreeze_trainer.runs.generation import Generation
    from unfreeze_trainer.runs.ownership import Heart

log = logging.getLogger("unfreeze.agent")

STACKS_SECONDS = 2.0
"""Time that the workers of all pods get to write their stacks before they are killed."""


class Agent:
    """One pod's agent."""

    def __init__(self, pod: Pod, worker: Sequence[str] | None = None) -> None:
        self._pod, self._worker, self._started = pod, worker, time.time()
        self._folder = Path(tempfile.mkdtemp(prefix="unfreeze-"))
        self._link = Link(self._folder)
        self._stopping = threading.Event()
        # No SimpleQueue: its get() waits for ever when a signal's handler outlasts the timeout.
        self._endings: queue.Queue[Ending] = queue.Queue()
        self._gang: GangProcess | None = None
        self._heart: Heart | None = None
        self._credentials: dict[str, str] = {}
        """Of hubs and stores, taken out of the environment before anything else is started."""
        self._hangs = HangWatch(None)
        self._final: Progress | None = None
        self._silent = True
        """Whether the workers at hand have not given any news yet."""
        self._server = Server(pod.ip, pod.http_port, self.progress, self._link.read_activity)

    def progress(self) -> Progress:
        """Return what /progress serves."""
        progress = self._final or self._link.read_progress() or Progress()
        return progress.model_copy(update={"restarts": self._gang.state.restarts if self._gang else 0})

    def run(self) -> int:
        """Be the agent until the end; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._server.start()
        try:
            from unfreeze_trainer.job_file import load_job  # after the server: the first answer does not wait for it
            from unfreeze_trainer.runs.spent import require_known

            job = load_job(self._pod.job_file, say=True)
            require_known(job.budget)
            self._prepare_environment(job)
            self._hangs = HangWatch(job.hang_timeout_seconds)
            threading.Thread(target=self._run_gang, args=(job,), name="gang", daemon=True).start()
            message = self._message(self._wait(), job)
        except JobError as error:
            message = TerminationMessage(
                outcome="Failed", reason=error.reason, message=told_of(error)[0], exit_code=ExitCode.JOB_ERROR
            )
        except Exception as error:
            tail = traceback.format_exc()
            log.exception("the agent failed")
            message = TerminationMessage(
                outcome="Failed", reason="AgentFailed", message=str(error), exit_code=1, log_tail=tail[-2000:]
            )
        if self._gang:
            self._gang.kill_workers()
        self._leave(message)
        return message.exit_code

    def _prepare_environment(self, job: ResolvedJob) -> None:
        os.environ[LINK_ENV], os.environ[AGENT_ENV] = str(self._folder), str(os.getpid())
        os.environ[STARTED_ENV] = str(self._started)
        os.environ[JOB_FILE_ENV] = str(self._pod.job_file)
        os.environ["OMP_NUM_THREADS"] = str(threads_per_worker(job))
        os.environ.setdefault("TORCH_ELASTIC_WORKER_IDENTICAL", "1")  # no round of questions who has how many workers
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if job.data.show_values:
            os.environ[SHOW_VALUES_ENV] = "1"
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # as the image has it
        shown = {
            name for wanted in pinned_sources(job) for access in access_of(wanted.source) for name in access.credentials
        }
        self._credentials = {name: os.environ.pop(name) for name in shown & os.environ.keys()}
        if self._credentials:
            close_to_others()
        if self._pod.ip.startswith("127."):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

    def _stop(self, number: int, _frame: Any) -> None:
        self._stop_workers(signal.Signals(number).name)

    def _stop_workers(self, why: str) -> None:
        log.info("%s: the workers agree on a step and write a checkpoint", why)
        self._link.request_stop()
        self._stopping.set()

    def _run_gang(self, job: ResolvedJob) -> None:
        try:
            from unfreeze_trainer.agent.choose import chosen_before
            from unfreeze_trainer.agent.finished import clear_finished, finished_before
            from unfreeze_trainer.agent.gang_process import WORKER, Ending, GangProcess
            from unfreeze_trainer.agent.libraries import is_certain, libraries_of
            from unfreeze_trainer.runs.recipe import open_recipe

            start = open_recipe(job)  # before anything is taken or written
            known = chosen_before(job, start, self._pod, self._link, self._stopping)
            if known is None:
                return
            server = ForkServer.inherited()
            if server is None and pinned_sources(known) and is_certain(known):  # they come meanwhile
                server = ForkServer.start(libraries_of(known))
            brought = self._brought(known, start.fingerprint)
            if brought is None:
                return
            job = brought
            if (progress := finished_before(job)) is not None:
                self._final = progress
                if self._pod.index == 0:
                    clear_finished(job)
                self._endings.put(Ending(ExitCode.DONE))
                return
            self._link.write_activity("loading PyTorch")
            server = server or ForkServer.start(libraries_of(job))
            if self._pod.index == 0:  # rank 0 is here, and writes
                self._take_folder(job, start.fingerprint)
            if not self._stopping.is_set():
                self._gang = GangProcess(self._worker or WORKER, server, self._endings.put)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            self._fail(error)

    def _brought(self, job: ResolvedJob, fingerprint: str) -> ResolvedJob | None:
        """Return a job whose sources are here and whose base is chosen; None when asked to stop meanwhile."""
        from unfreeze_trainer.agent.bring import bring
        from unfreeze_trainer.agent.choose import choose

        take = partial(self._take_folder, job, fingerprint)
        brought = bring(
            job,
            self._pod,
            self._link,
            fingerprint=fingerprint,
            credentials=self._credentials,
            stopping=self._stopping,
            take=take,
        )
        if brought is None or brought.model.source or not brought.model.candidates:
            return brought
        return choose(brought, self._link, fingerprint=fingerprint, stopping=self._stopping, take=take)

    def _take_folder(self, job: ResolvedJob, fingerprint: str) -> Generation:
        """Take the right to write to the run folder, once."""
        from unfreeze_trainer.runs.generation import GENERATION_ENV, Generation
        from unfreeze_trainer.runs.ownership import Heart, Owner, take_folder

        folder = Path(job.output.path)
        if self._heart is not None:
            return Generation(folder, int(os.environ[GENERATION_ENV]))
        generation = take_folder(folder, Owner.of(job, fingerprint))
        os.environ[GENERATION_ENV] = str(generation.number)
        self._heart = Heart(generation)
        return generation

    def _fail(self, error: BaseException) -> None:
        from unfreeze_trainer.agent.gang_process import Ending

        log.error("%s", "".join(traceback.format_exception(error)))
        self._endings.put(Ending.of(error))

    def _wait(self) -> Ending | None:
        """Wait for the end; None when this pod was asked to stop and its workers have."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._endings.get(timeout=0.1)
            if self._pod.orphaned() and not self._stopping.is_set():
                self._stop_workers(f"process {self._pod.parent}, which started this one, is gone")
            if self._stopping.is_set():
                if not self._workers_may_write():
                    return None
            elif self._gang:
                self._watch_for_hang(self._gang)

    def _workers_may_write(self) -> bool:
        """Whether workers run that train: others have nothing to write that is not there already."""
        gang, progress, age = self._gang, self._link.read_progress(), self._link.progress_age()
        if gang is None or progress is None or age is None or not _any_alive(gang.state.pids):
            return False
        return progress.activity in ("Training", "Evaluating") and time.time() - age >= gang.state.workers_started

    def _watch_for_hang(self, gang: GangProcess) -> None:
        age = self._link.progress_age()
        if age is None or (written := time.time() - age) < gang.state.workers_started:
            self._silent = True
            return
        if self._hangs.news(written) and (progress := self._link.read_progress()):
            self._hangs.heard(written, progress.activity, restarted=self._silent)
            self._silent = False
        if age < self._hangs.limit:
            return
        log.error("no news from the workers for %.0f s: stacks of all ranks follow, then they are started again", age)
        gang.hung(age)
        time.sleep(STACKS_SECONDS)
        gang.kill_workers()
        gang.state.workers_started = float("inf")

    def _message(self, ending: Ending | None, job: ResolvedJob) -> TerminationMessage:
        progress = self.progress().for_operators()
        reported: dict[str, Any] = {"checkpoint": progress.checkpoint, "progress": progress}
        if ending is None:
            step = f"at step {progress.checkpoint.step}" if progress.checkpoint else "none was due yet"
            return TerminationMessage(
                outcome="Stopped",
                reason="Stopped",
                message=f"asked to stop; checkpoint: {step}",
                exit_code=ExitCode.STOPPED,
                **reported,
            )
        if ending.exit_code == ExitCode.DONE:
            from unfreeze_trainer.agent.finished import outcome_of

            return TerminationMessage(
                outcome="Succeeded",
                reason="Completed",
                message=outcome_of(job) if self._pod.index == 0 else "",
                exit_code=ExitCode.DONE,
                **reported,
            )
        error = ending.error
        assert error is not None  # every failure has one
        return TerminationMessage(
            outcome="Failed",
            reason=error.reason[:64],
            message=error.message,
            exit_code=ending.exit_code,
            rank=error.rank if error.rank >= 0 else None,
            log_tail=error.log_tail,
            **reported,
        )

    def _leave(self, message: TerminationMessage) -> None:
        log.info("%s: %s %s", message.outcome, message.reason, message.message)
        if self._heart:
            self._heart.stop()
        try:
            self._pod.termination_log.write_text(message.to_termination_log())
        except OSError as error:
            log.warning("the termination message could not be written: %s", error)
        shutil.rmtree(self._folder, ignore_errors=True)


def _any_alive(pids: Sequence[int]) -> bool:
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            return True
    return False


def main(worker: Sequence[str] | None = None) -> None:
    """Be a pod's agent; the process exits with the job's code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s agent: %(message)s")
    for noisy in ("torch.distributed", "torch.distributed.elastic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    code = Agent(Pod.from_environment(), worker).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that wait for other pods must not hold this one


if __name__ == "__main__":
    main()
