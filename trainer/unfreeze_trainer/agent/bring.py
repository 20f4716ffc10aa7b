"""What an agent does for sources that lie elsewhere: pod 0 pins them, all pods bring the same, workers see files."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_api.contracts.progress import JOB_FILE_ENV, OFFLINE_ENV, Progress
from unfreeze_api.grammar.sizes import share
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.link import write_atomically
from unfreeze_trainer.runs.sources import read_pins, store_pins
from unfreeze_trainer.sources.asking import release
from unfreeze_trainer.sources.pins import pins_from_json
from unfreeze_trainer.sources.schemes import fetch_sources, pin_sources, pinned_sources
from unfreeze_trainer.sources.wanted import Bringing

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.agent.pod import Pod
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.runs.generation import Generation

log = logging.getLogger("unfreeze.agent")

PINS_ENV = "UNFREEZE_PINS"
"""Environment variable with a file of the pins, where whoever started this agent has brought the sources."""
_LOOK_SECONDS = 1.0
_SHARED_SECONDS = 60.0
"""Time after which what pod 0 has written would be seen on a volume that both share."""


def bring(
    job: ResolvedJob,
    pod: Pod,
    link: Link,
    *,
    fingerprint: str,
    credentials: Mapping[str, str],
    stopping: threading.Event,
    take: Callable[[], Generation],
) -> ResolvedJob | None:
    """Bring what a job reads; return it with where that lies, None when asked to stop meanwhile.

    Parameters
    ----------
    job, fingerprint
        What runs, and whose the run folder is.
    pod, link
        Where, and the folder shared with the workers, who get a job.json with the paths.
    credentials
        Of hubs and stores, by environment variable.
    stopping
        Set when this pod is asked to stop.
    take
        Takes the right to write to the run folder, on pod 0.
    """
    folder = Path(job.output.path)
    if given := os.environ.get(PINS_ENV):
        pins = pins_from_json(Path(given).read_bytes())
        if pins and pod.index == 0 and read_pins(folder, fingerprint) != pins:
            store_pins(pins, take(), folder, fingerprint)
        return job
    offline = os.environ.get(OFFLINE_ENV, "").split(",")
    how = Bringing(credentials=credentials, offline=offline, tell=_teller(link))
    names = [wanted.source for wanted in pinned_sources(job)]
    pins = read_pins(folder, fingerprint) if names else {}
    if pod.index == 0 and not pins.keys() >= set(names):
        pins = pin_sources(job, how, pins)
        store_pins(pins, take(), folder, fingerprint)
    else:

        def pinned() -> bool:
            return read_pins(folder, fingerprint).keys() >= set(names)

        if not await_shared(job, pinned, stopping, link, "waiting for pod 0 to look the sources up"):
            return None
    brought = fetch_sources(job, how, read_pins(folder, fingerprint) if names else {})
    if names:
        release()
        link.write_progress(Progress())
    return hand_on(brought, link) if brought is not job else job


def hand_on(job: ResolvedJob, link: Link) -> ResolvedJob:
    """Have this pod's workers read another job.json than the pod was given; return the job."""
    file = link.folder / "job.json"
    write_atomically(file, job.to_json())
    os.environ[JOB_FILE_ENV] = str(file)
    return job


def _teller(link: Link) -> Callable[[str, int, int], None]:
    """Return what tells people, and who asks for /progress, how far the fetching is."""

    def tell(text: str, done: int, total: int) -> None:
        link.write_activity(f"{text}: {share(done, total)}" if total else text)
        link.write_progress(Progress(fetched_bytes=done, total_bytes=total) if total else Progress())

    return tell


def await_shared(
    job: ResolvedJob, is_there: Callable[[], bool], stopping: threading.Event, link: Link, activity: str
) -> bool:
    """Wait until what pod 0 writes into the run folder is there; return False when asked to stop.

    Raises
    ------
    JobError
        OutputNotShared: pod 0 is past it, and nothing is to be seen here.
    """
    listening = None
    while not is_there():
        link.write_activity(activity)
        if stopping.wait(_LOOK_SECONDS):
            return False
        if not _listens(job):
            listening = None
        elif time.monotonic() - (listening := listening or time.monotonic()) > _SHARED_SECONDS:
            raise JobError(
                "OutputNotShared",
                f"pod 0 trains, and what it has written to output.destination {job.output.source} is not to be seen here: use"
                " a claim that all pods can write to (ReadWriteMany)",
            )
    return True


def _listens(job: ResolvedJob) -> bool:
    """Return whether pod 0 is past bringing its sources."""
    try:
        with socket.create_connection((job.distribution.rendezvous_host, job.distribution.rendezvous_port), timeout=1):
            return True
    except OSError:
        return False
