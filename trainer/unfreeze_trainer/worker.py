"""The process around the training loop; an agent starts one for each accelerator.

By hand:

UNFREEZE_JOB=job.json python -m unfreeze_trainer.worker
UNFREEZE_JOB=job.json torchrun --nproc-per-node 2 -m unfreeze_trainer.worker
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_api.contracts.progress import CONFIG_FOLDER, JOB_FILE_ENV, ExitCode
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError, one_line, told_of
from unfreeze_trainer.estimates.check import check_memory
from unfreeze_trainer.job_file import load_job
from unfreeze_trainer.link import AGENT_ENV, Link, WorkerError, tell
from unfreeze_trainer.models.keeping import say_types, why_float32
from unfreeze_trainer.models.own_type import own_types
from unfreeze_trainer.runs.recipe import open_recipe
from unfreeze_trainer.runs.spent import require_known
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.run import Run
from unfreeze_trainer.training.tracking import check_trackers
from unfreeze_trainer.training.trials import out_of_memory

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.tasks import Task

log = logging.getLogger("unfreeze.worker")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def work(job: ResolvedJob, open_task: Callable[[ResolvedJob], Task], link: Link | None) -> ExitCode:
    """Open the data and the model, join the other ranks, train; return how it ended.

    What a rank can check alone is checked before it joins, so that every pod fails with the same message.
    """
    check_trackers(job)
    job = open_recipe(job).job
    require_known(job.budget)
    if job.stages:
        return _through_stages(job, open_task, link)
    return _work(job, open_task, link)


def _through_stages(job: ResolvedJob, open_task: Callable[[ResolvedJob], Task], link: Link | None) -> ExitCode:
    from unfreeze_trainer.training.stages import Chain, check_stages

    tell(link, "reading the data of all stages")
    seen = check_stages(job, open_task)
    engine = open_engine(job)
    chain = Chain(job, engine, link, open_task)
    try:
        chain.train()
    except StopRequested:
        engine.barrier()
        return ExitCode.STOPPED
    last = chain.link
    if last:
        last.beat()
    return _work(chain.job, open_task, last, engine, seen)


def _work(
    job: ResolvedJob,
    open_task: Callable[[ResolvedJob], Task],
    link: Link | None,
    engine: Engine | None = None,
    seen: Mapping[str, int] | None = None,
) -> ExitCode:
    tell(link, "reading data and tokenizer" if task_type(job.task.type).reads_text else "reading the data")
    task = open_task(job)
    if seen:
        task.overlaps = {**task.overlaps, **seen}
    check_memory(job, task, link)
    if os.environ.get("RANK", "0") == "0":
        task.pin_beside()
    tell(link, "loading the model")
    with own_types(wanted=why_float32(job) is None):
        loaded = task.build_model()
    if said := say_types(job, loaded):
        log.info("%s", said)
    tell(link, f"starting {job.distribution.engine}")
    engine = engine or open_engine(job)
    task.check_samples(engine.rank, engine.world_size)
    try:
        run = Run(job, task, loaded, engine, link)
    except StopRequested:  # before the first step: there is nothing to write
        engine.barrier()
        return ExitCode.STOPPED
    gc.collect()
    gc.freeze()  # what is loaded now stays: the collector passes over it, in the loop and at phase changes
    try:
        train(run)
        finish(run)
    except StopRequested:
        run.milestones.save()
        run.saver.wait()
        run.reporter.stopped()
        run.spending.note()
        engine.barrier()
        return ExitCode.STOPPED
    finally:
        run.saver.close()  # whatever went wrong, a checkpoint that is under way is worth its time
    engine.close()
    return ExitCode.DONE


def main(open_task: Callable[[ResolvedJob], Task] | None = None) -> None:
    """Be a worker: exit with a code of ExitCode, or 1; what went wrong is left behind for the agent."""
    _die_with_agent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent decides when to stop
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the agent asks for stacks when nothing moves
    rank = int(os.environ.get("RANK", "0"))
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING, format=f"%(asctime)s rank {rank}: %(message)s", force=True
    )
    link = Link.from_environment()
    code = 1
    try:
        job_file = Path(os.environ.get(JOB_FILE_ENV, f"{CONFIG_FOLDER}/job.json"))
        job = load_job(job_file, say=rank == 0 and link is None)  # otherwise the agent says it
        from unfreeze_trainer import tasks

        code = work(job, open_task or tasks.open_task, link)
    except Exception as error:  # noqa: BLE001 - every way to end is reported to the agent
        code = _tell(error, rank, link)
    # Without the interpreter's teardown: a rank that failed must not wait for others in a library's destructor.
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def _tell(error: Exception, rank: int, link: Link | None) -> int:
    """Log an error and leave it behind for the agent; return the exit code."""
    tail = told_of(error)[1]
    if out_of_memory(error):
        error = JobError(
            "OutOfMemory",
            f"rank {rank} ran out of memory: {one_line(error)}. Raise training.gradientAccumulationSteps (the"
            " recipe stays the same), lower training.batchSize, train fewer blocks or with an adapter, or give the pods"
            " more memory",
        )
    if isinstance(error, JobError):
        code, reason = int(ExitCode.JOB_ERROR), error.reason
        log.error("%s: %s", reason, error.message)
    else:
        code, reason = 1, "WorkerFailed"
        log.error("%s", "".join(traceback.format_exception(error)))
    if link:
        message, _ = told_of(error)
        link.write_error(
            WorkerError(
                reason=reason, message=message, rank=rank, exit_code=code, log_tail=tail[-3000:], time=time.time()
            )
        )
    return code


def _die_with_agent() -> None:
    """Ask the kernel to kill this process with the agent: an orphan would hold its accelerator."""
    agent = os.environ.get(AGENT_ENV)
    if sys.platform == "linux" and agent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(agent):  # it died before the line above
            os._exit(1)


if __name__ == "__main__":
    main()
