"""The watch of FineTuneJobs: kopf's event handler feeds the cache, and an audit notices what a watch can miss."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import aiohttp
import kopf
from kopf._core.reactor.inventory import ResourceMemories  # `memories` of kopf.operator takes it
from kubernetes.aio.client import Configuration

from unfreeze_operator.cluster import connection
from unfreeze_operator.cluster.api import Api, ApiError
from unfreeze_operator.cluster.backoff import backoff
from unfreeze_operator.cluster.informer import PAGE, Cache
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS
from unfreeze_operator.objects.views import FineTuneJobView, fine_tune_job_view
from unfreeze_operator.settings.options import Settings

logger = logging.getLogger(__name__)

MAX_FAILURES = 5
"""Failures of kopf in a row after which the process ends, and Kubernetes restarts it."""
LASTING_SECONDS = 60.0
"""A kopf that has lived so long did work: its failure is the first one."""
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


def kopf_settings(silence: float) -> kopf.OperatorSettings:
    """Return settings under which kopf only watches: it writes nothing to any object."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True  # needs no rights on CRDs and namespaces
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = silence
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    settings.queueing.idle_timeout = 0.05  # so long an object's task outlives its event, with the raw object
    settings.queueing.worker_limit = None
    return settings


class _Backoffs:
    """Pauses between kopf's tries of a request, without end: an API server that is away comes back."""

    def __iter__(self) -> Iterator[float]:
        return (backoff(failures) for failures in itertools.count(1))


class _NoDiffBase(kopf.DiffBaseStorage):  # type: ignore[misc]
    """Remembers nothing: only change handlers would need it, and they write to the object."""

    def build(self, **_: Any) -> dict[str, Any]:
        # Kopf's own copies the whole object, for each event.
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoMemories(ResourceMemories):  # type: ignore[misc]
    """Keeps nothing of an object between two events: that is for change handlers, timers and daemons."""

    async def recall(self, raw_body: Any, **options: Any) -> Any:
        return await super().recall(raw_body, **{**options, "ephemeral": True})


def kopf_registry(
    cache: Cache[FineTuneJobView], audit: Audit, load: Callable[[], Awaitable[Configuration]]
) -> kopf.OperatorRegistry:
    """Return the only handlers that kopf runs.

    Notes
    -----
    Kopf swallows exceptions of event handlers, so the handler does nothing that could fail: retries are the queue's.
    """
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection.for_kopf(await load())

    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] in ("ADDED", "MODIFIED") and cache.has(event["object"]["metadata"]):
            return
        view = fine_tune_job_view(dict(event["object"]))
        if event["type"] == "DELETED":
            cache.remove(view)
        elif event["type"] is None and cache.knows(view):
            # Kopf lists again only when its watch could not continue: objects may have gone meanwhile.
            audit.request()
            cache.put(view)
        else:
            cache.put(view)

    kopf.on.login(registry=registry)(login)
    kopf.on.event(FINE_TUNE_JOBS.api_version, FINE_TUNE_JOBS.plural, registry=registry)(on_event)
    return registry


async def run_kopf(
    cache: Cache[FineTuneJobView],
    audit: Audit,
    load: Callable[[], Awaitable[Configuration]],
    options: Settings,
    stop: asyncio.Event,
) -> None:
    """Watch until the process is asked to stop; the signals are handled by kopf.

    Kopf gives up on answers that only mean that it has to list again: 410 at the start of a watch, an error within one,
    a server that is away for a minute. It is restarted then, and lists; only when it dies again and again does the
    process end.
    """
    failures = 0
    while True:
        began = asyncio.get_running_loop().time()
        tasks = await kopf.spawn_tasks(
            registry=kopf_registry(cache, audit, load),
            settings=kopf_settings(options.watch_silence),
            memories=_NoMemories(),
            # Else kopf asks for the user's name, which a numeric user in a container does not have.
            identity="unfreeze-operator",
            clusterwide=not options.namespaces,
            namespaces=options.namespaces,
            stop_flag=stop,
        )
        try:
            await _first(tasks)
        except Exception as error:
            lived = asyncio.get_running_loop().time() - began
            failures = 1 if lived > LASTING_SECONDS else failures + 1
            if failures > MAX_FAILURES:
                raise
            pause = backoff(failures)
            logger.warning("Watching FineTuneJobs failed, starting again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)
        else:
            return


async def _first(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Wait until one of kopf's tasks ends, and end the others; raise what it ended with.

    Not `kopf.run_tasks`, which at its end cancels whatever else has been started in this loop: the queue's workers.
    """
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled():
            task.result()


async def wait_for_crd(api: Api, pause: float = 1.0) -> None:
    """Wait until the API server serves FineTuneJobs, so that the order of an installation does not matter."""
    path = f"/apis/{FINE_TUNE_JOBS.api_version}"
    while True:
        try:
            served = await api.get(path)
            if any(resource["name"] == FINE_TUNE_JOBS.plural for resource in served["resources"]):
                return
            logger.warning("The API server does not serve %s: is the CRD installed?", FINE_TUNE_JOBS.plural)
        except ApiError as error:
            if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise
            logger.warning("The API server does not serve %s: is the CRD installed?", path)
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("The API server does not answer: %s", error)
        await asyncio.sleep(pause)


async def reachable(api: Api, namespaces: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of some namespaces whose FineTuneJobs can be listed.

    The operator's Role in a namespace goes with it: one that is deleted must not take the operator away from all others.
    """
    found = []
    for namespace in namespaces:
        try:
            await api.list(FINE_TUNE_JOBS.path(namespace), params={"limit": "1"}, accept=NAMES_ONLY)
        except ApiError as error:
            if error.status not in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                raise
            logger.warning("Namespace %s is left out until its FineTuneJobs can be listed: %s", namespace, error)
        else:
            found.append(namespace)
    return tuple(found)


async def until_reachable(
    api: Api, namespaces: tuple[str, ...], stop: asyncio.Event, known: tuple[str, ...] = (), pause: float = 5.0
) -> tuple[str, ...]:
    """Look until one more of some namespaces than those that are known can be looked after, or until `stop` is set; return all of them."""
    while not stop.is_set():
        try:
            found = await reachable(api, namespaces)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("Whether namespaces can be looked after is not known: %s", error)
        else:
            if set(found) - set(known):
                return found
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()
    return known


class Audit:
    """Compares the known FineTuneJobs with the API server's list, by names and UIDs only.

    Kopf does not say when its first listing is complete, nor does it tell of objects that were deleted while a watch
    was interrupted.

    Parameters
    ----------
    api
        The client.
    cache
        The known jobs.
    namespaces
        Which to compare; none for all.
    """

    def __init__(self, api: Api, cache: Cache[FineTuneJobView], namespaces: tuple[str, ...]) -> None:
        self._api = api
        self._cache = cache
        self._namespaces = namespaces
        self._wanted = asyncio.Event()
        self.synced = asyncio.Event()

    def request(self) -> None:
        """Ask for a comparison soon."""
        self._wanted.set()

    async def run(self, interval: float) -> None:
        """Compare until every job is known, then when asked to and once in a while, for ever."""
        failures = 0
        while True:
            self._wanted.clear()
            pause = interval
            try:
                missing = sum([await self.compare(namespace) for namespace in self._namespaces or (None,)])
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                failures += 1
                pause = backoff(failures, error)
                logger.warning("Listing FineTuneJobs failed, trying again in %.1f s: %s", pause, error)
            else:
                failures = 0
                if missing and not self.synced.is_set():
                    pause = 0.2
                else:
                    self.synced.set()
            try:
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def compare(self, namespace: str | None) -> int:
        """Forget jobs that are no longer listed; return how many listed ones are not known yet."""
        listed: set[str] = set()
        token, version = "", 0
        while True:
            params = {"limit": str(PAGE), **({"continue": token} if token else {})}
            page = await self._api.list(FINE_TUNE_JOBS.path(namespace), params=params, accept=NAMES_ONLY)
            listed |= {item["metadata"]["uid"] for item in page["items"] or ()}  # null when empty
            version = version or int(page["metadata"]["resourceVersion"])
            token = page["metadata"].get("continue", "")
            if not token:
                break
        known = [view for view in self._cache.all() if namespace in (None, view.namespace)]
        for view in known:
            if view.uid not in listed and view.version <= version:
                logger.warning("FineTuneJob %s/%s was deleted unnoticed.", view.namespace, view.name)
                self._cache.remove(view)
        return len(listed - {view.uid for view in known})
