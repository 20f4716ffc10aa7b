"""A node without processes: it reports of each pod that is bound to it what a kubelet would, and ends it as the pod's fate says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar

import aiohttp

from bench.support.leaders import address, progress
from bench.support.plane import Json
from tests.cluster.api import Api, ApiError, Store, pod_path
from tests.operator.process import IMAGE
from unfreeze_api.contracts.names import INDEX_ANNOTATION
from unfreeze_api.contracts.progress import CheckpointInfo, ExitCode, TerminationMessage
from unfreeze_operator.objects.resources import CONTAINER, JOB_LABEL

T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the API server answers; raises ApiError for what it refuses, not for what it has no time for."""
    while True:
        try:
            return await ask()
        except (TimeoutError, aiohttp.ClientError):
            pass
        except ApiError as error:
            if error.status < HTTPStatus.TOO_MANY_REQUESTS:
                raise
        await asyncio.sleep(1)


@dataclass(frozen=True)
class Fate:
    """What becomes of a pod: so many seconds, then an exit code; None for one that goes on until somebody ends it."""

    seconds: float | None
    code: int = ExitCode.DONE
    reason: str = "Completed"


class Kubelet:
    """Plays all pods of a cluster that have a node.

    Parameters
    ----------
    api
        A client of the API server.
    fate
        Tells, by the job's name and the pod's index, what becomes of a pod; asked once as it starts.
    places
        How many of `leaders.address` are served; pods take them in turn.
    """

    def __init__(self, api: Api, fate: Callable[[str, int], Fate], places: int) -> None:
        self._api = api
        self._fate = fate
        self._places = places
        self._started = 0
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._pods = Store(api, "/api/v1/pods", self._changed)

    async def run(self) -> None:
        """Play until cancelled."""
        try:
            await self._pods.run()
        finally:
            for life in self._lives.values():
                life.cancel()

    def _changed(self, kind: str, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            if life := self._lives.pop(uid, None):
                life.cancel()
        elif pod["spec"].get("nodeName") and uid not in self._lives:
            self._lives[uid] = asyncio.ensure_future(self._live(pod))

    async def _live(self, pod: Json) -> None:
        with contextlib.suppress(ApiError):  # of one that is gone meanwhile
            await self._play(pod)

    async def _play(self, pod: Json) -> None:
        index = int(pod["metadata"]["annotations"][INDEX_ANNOTATION])
        ip, began = address(self._started % self._places), datetime.now(UTC)
        self._started += 1
        fate = self._fate(pod["metadata"]["labels"][JOB_LABEL], index)
        if not self._deleted(pod):
            await self._tell(pod, "Running", {"running": {"startedAt": _text(began)}}, ip, began)
            end = None if fate.seconds is None else asyncio.get_running_loop().time() + fate.seconds
            while not self._deleted(pod) and (end is None or asyncio.get_running_loop().time() < end):  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.1)
        if self._deleted(pod):
            fate = Fate(0, ExitCode.STOPPED, "Stopped")
        done = fate.code == ExitCode.DONE
        said = TerminationMessage(
            outcome="Succeeded" if done else "Stopped" if fate.code == ExitCode.STOPPED else "Failed",
            reason=fate.reason,
            exit_code=fate.code,
            checkpoint=CheckpointInfo(step=100, time=began.replace(microsecond=0)),
            progress=progress(100).model_copy(update={"results": {"test.accuracy": 0.93} if done else {}}),
        )
        over = {
            "exitCode": int(fate.code),
            "reason": "Completed" if done else "Error",
            "message": said.to_termination_log() if index == 0 or not done else "",
            "startedAt": _text(began),
            "finishedAt": _text(datetime.now(UTC)),
        }
        await self._tell(pod, "Succeeded" if done else "Failed", {"terminated": over}, ip, began)
        while not self._deleted(pod):  # noqa: ASYNC110 - ends with the pod
            await asyncio.sleep(0.5)
        await patiently(lambda: self._api.delete(pod_path(pod), {"gracePeriodSeconds": 0}))

    def _deleted(self, pod: Json) -> bool:
        """Whether somebody has deleted a pod."""
        found = self._pods.items.get((pod["metadata"]["namespace"], pod["metadata"]["name"]))
        return found is None or "deletionTimestamp" in found["metadata"]

    async def _tell(self, pod: Json, phase: str, state: Json, ip: str, began: datetime) -> None:
        ready = "True" if phase == "Running" else "False"
        container = {"name": CONTAINER, "image": IMAGE, "imageID": "sha256:0", "ready": phase == "Running"}
        status = {
            "phase": phase,
            "startTime": _text(began),
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": type_, "status": ready} for type_ in ("ContainersReady", "Ready")],
            "containerStatuses": [{**container, "restartCount": 0, "state": state}],
        }
        await patiently(lambda: self._api.patch(pod_path(pod, "/status"), {"status": status}))


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
