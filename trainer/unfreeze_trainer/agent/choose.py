"""Which of its candidates a job trains: pod 0 ranks them once, and every pod and every later start keeps to its choice."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from unfreeze_trainer.agent.bring import await_shared, hand_on
from unfreeze_trainer.agent.pod import available_cpus
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.choice import Choice, read_choice, store_choice
from unfreeze_trainer.runs.events import Events

if TYPE_CHECKING:
    from unfreeze_api.contracts.reasons import TrainerReason
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.agent.pod import Pod
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.ranking.order import Ranking
    from unfreeze_trainer.runs.generation import Generation
    from unfreeze_trainer.runs.recipe import Start

log = logging.getLogger("unfreeze.agent")

_LOOK_SECONDS = 0.1


def chosen_before(
    job: ResolvedJob, start: Start, pod: Pod, link: Link, stopping: threading.Event
) -> ResolvedJob | None:
    """Return a job with the base that its run has chosen; other pods than the first wait for it.

    Parameters
    ----------
    job, start
        As it was handed over, and as the run folder has it.
    pod, link
        Where, and the folder shared with the workers.
    stopping
        Set when this pod is asked to stop.

    Returns
    -------
    ResolvedJob or None
        The job itself where it has no candidates or, on pod 0, has not chosen yet; None when asked to stop meanwhile.
    """
    if not job.model.candidates:
        return job
    folder = Path(job.output.path)

    def known() -> str:
        choice = read_choice(folder, start.fingerprint)
        return choice.source if choice else start.job.model.source

    if not known() and pod.index == 0:
        return job
    if not await_shared(job, lambda: bool(known()), stopping, link, "waiting for pod 0 to rank the candidates"):
        return None
    return hand_on(job.with_base(known()), link)


def choose(
    job: ResolvedJob, link: Link, *, fingerprint: str, stopping: threading.Event, take: Callable[[], Generation]
) -> ResolvedJob | None:
    """Rank a job's candidates, whose files are here, and keep the choice; return the job with its base, None when asked to stop.

    Parameters
    ----------
    fingerprint
        Of the run.
    link, stopping, take
        As of `bring`.

    Raises
    ------
    JobError
        As of `ranking.rank`.
    """
    folder = Path(job.output.path)
    generation = take()  # before the ranking: a start that comes meanwhile puts an end to this one
    choice = read_choice(folder, fingerprint)
    if choice is None:
        found = _ranked(link, stopping)
        if found is None:
            return None
        choice = read_choice(folder, fingerprint) or _keep(found, generation, folder, fingerprint)
    log.info("base: %s", choice.decision.message)
    return hand_on(job.with_base(choice.source), link)


def _keep(found: Ranking, generation: Generation, folder: Path, fingerprint: str) -> Choice:
    """Write the choice of a ranking's first into a run folder; return it."""
    choice = Choice(
        fingerprint=fingerprint,
        source=found.bases[0].source,
        decision=found.decision,
        ranking=found.model_dump(mode="json", by_alias=True),
    )
    store_choice(choice, generation, folder)
    Events(folder, generation).add("ranking", base=choice.source, ranking=choice.ranking)
    return choice


def _ranked(link: Link, stopping: threading.Event) -> Ranking | None:
    """Rank in a process of its own; None when asked to stop."""
    file = link.folder / "ranked.json"
    command = [sys.executable, "-m", "unfreeze_trainer.ranking.process", str(file)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(available_cpus())})
    try:
        while process.poll() is None:
            if stopping.wait(_LOOK_SECONDS):
                return None
    finally:
        process.kill()
        process.wait()
    from unfreeze_trainer.ranking.process import Answer

    if not file.exists():
        raise RuntimeError(
            f"the ranking of the candidates ended with code {process.returncode}: the pod's log says more"
        )
    answer = Answer.read(file.read_bytes())
    if answer.ranking is None:
        raise JobError(cast("TrainerReason", answer.reason), answer.message)
    return answer.ranking
