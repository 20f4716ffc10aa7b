"""Caches of the children: list, then watch, and list again whenever the watch cannot continue.

Kopf's indices are not used for them: they make starting up quadratic and keep objects that were deleted during a gap.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import Generic, Protocol, TypeVar

import aiohttp

from unfreeze_operator.cluster.api import ApiError
from unfreeze_operator.cluster.backoff import backoff
from unfreeze_operator.objects.resources import SELECTOR, Key, Manifest, Resource
from unfreeze_operator.objects.views import View

logger = logging.getLogger(__name__)

PAGE = 100
"""Objects of a page. As raw dicts they take much more memory than the views of all others."""
SERVER_SECONDS = 300
"""After this time the server ends a watch, so that connections spread over its replicas."""
SHORTEST_SECONDS = 1.0
"""A watch that ends sooner without a word is a failure, after which to pause."""
ABSENT_SECONDS = 60.0
"""How long to wait before looking again for a kind that the server does not have."""
REMEMBERED_SECONDS = 60.0
"""How long the end of an object is remembered: twice as long as the answer to a write can be under way."""

_ABSENT = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)

V = TypeVar("V", bound=View)


class Cache(Generic[V]):
    """Views of one kind of object, by name and by FineTuneJob.

    Parameters
    ----------
    on_change
        Called with the key of a job when a view of it has come, gone or changed in a way that matters.
    keep
        Which views, as the watch reports their end, are kept in `departed` until they are forgotten: those that say
        something which nobody may have looked at yet.
    suffix
        What the names of these objects add to that of their job.
    place
        What a view may have in common with others of its namespace; empty where that is nothing.
    clock
        Seconds that only grow.
    """

    def __init__(
        self,
        on_change: Callable[[Key], None],
        *,
        keep: Callable[[V], bool] = lambda _: False,
        suffix: str = "",
        place: Callable[[V], str] = lambda _: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_change = on_change
        self._suffix = suffix
        self._place = place
        self._clock = clock
        self._places: dict[tuple[str, str], tuple[V, ...]] = {}
        self._keep = keep
        self._by_name: dict[tuple[str, str], V] = {}
        # Only of what does not bear its job's name with the suffix, as most do. A tuple is the smallest container.
        self._others: dict[Key, tuple[V, ...]] = {}
        # The version of each end, and when: an answer to a write can arrive after it. What was only without its label may come back.
        self._gone: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._departed: dict[Key, list[V]] = {}
        self._served: set[str | None] = set()

    def __len__(self) -> int:
        return len(self._by_name)

    def of(self, key: Key) -> list[V]:
        """Return the views of a job."""
        own = self._by_name.get(self._name_of(key))
        return [*([own] if own is not None and own.key == key else ()), *self._others.get(key, ())]

    def named(self, name: tuple[str, str]) -> V | None:
        """Return the view of the object of a namespace and name."""
        return self._by_name.get(name)

    def beside(self, view: V) -> list[V]:
        """Return the other views of its namespace that have the same place."""
        return [other for other in self._places.get(self._place_of(view), ()) if other.uid != view.uid]

    def _name_of(self, key: Key) -> tuple[str, str]:
        return (key[0], key[1] + self._suffix) if self._suffix else key

    def _place_of(self, view: V) -> tuple[str, str]:
        return view.namespace, self._place(view)

    def departed(self, key: Key) -> list[V]:
        """Return the kept views of a job's objects that are gone."""
        return list(self._departed.get(key, ()))

    def forget(self, key: Key, views: Iterable[V] | None = None) -> None:
        """Forget departed views of a job that have been taken note of, or all."""
        noted = set() if views is None else {view.uid for view in views}
        left = [] if views is None else [view for view in self.departed(key) if view.uid not in noted]
        if left:
            self._departed[key] = left
        else:
            self._departed.pop(key, None)

    def serve(self, namespace: str | None, *, served: bool) -> None:
        """Note whether the server has this kind, and shows it to the operator, in a namespace or in all."""
        (self._served.add if served else self._served.discard)(namespace)

    def is_served(self, namespace: str) -> bool:
        """Whether the server has this kind for a namespace."""
        return bool(self._served & {namespace, None})

    def all(self) -> Iterable[V]:
        """Return all views."""
        return self._by_name.values()

    def knows(self, view: V) -> bool:
        """Whether this very object is in the cache, in whatever version."""
        old = self._by_name.get((view.namespace, view.name))
        return old is not None and old.uid == view.uid

    def has(self, meta: Manifest) -> bool:
        """Whether the object of this metadata is known in this version, or a newer one: then `put` would do nothing."""
        old = self._by_name.get((meta.get("namespace", ""), meta["name"]))
        return old is not None and old.version >= int(meta["resourceVersion"])

    def put(self, view: V) -> None:
        """Store a view, unless a newer one of the same object, or its end, is known."""
        old = self._by_name.get((view.namespace, view.name))
        end, _ = self._gone.get(view.uid, (-1, 0))
        if view.version <= end or (old is not None and old.version >= view.version):
            return
        if old is not None:
            self._drop(old)
        name, key = (view.namespace, view.name), view.key
        self._by_name[name] = view
        if self._name_of(key) != name:
            self._others[key] = (*self._others.get(key, ()), view)
        if self._place(view):
            self._places[self._place_of(view)] = (*self._places.get(self._place_of(view), ()), view)
        if old != view:
            self._on_change(view.key)
        if old is not None and old.key != key:  # somebody has changed the label
            self._on_change(old.key)
        if old is None:
            self._wake_beside(view)

    def remove(self, view: V, version: float = inf) -> None:
        """Forget an object, unless another one of its name has taken its place.

        Parameters
        ----------
        version
            Newest resourceVersion in which it does not come back; by default it never does.
        """
        now = self._clock()
        known, _ = self._gone.pop(view.uid, (version, now))
        self._gone[view.uid] = max(version, known), now
        while next(iter(self._gone.values()))[1] < now - REMEMBERED_SECONDS:
            self._gone.popitem(last=False)
        old = self._by_name.get((view.namespace, view.name))
        if old is not None and old.uid == view.uid:
            self._drop(old)
            if self._keep(view):
                self._departed.setdefault(old.key, []).append(view)
            self._on_change(old.key)
            self._wake_beside(old)

    def replace(self, namespace: str | None, views: list[V], version: int) -> None:
        """Store a whole list, of one namespace or of all; what is not in it was deleted unnoticed.

        Parameters
        ----------
        version
            resourceVersion of the list; what was written later is not in it and stays.
        """
        listed = {view.uid for view in views}
        for old in list(self._by_name.values()):
            if namespace in (None, old.namespace) and old.uid not in listed and old.version <= version:
                self.remove(old, version)
        for view in views:
            self.put(view)

    def clear(self, namespace: str | None) -> None:
        """Forget what can no longer be seen, of one namespace or of all: it may live on, and be seen again."""
        for view in list(self._by_name.values()):
            if namespace in (None, view.namespace):
                self._drop(view)
                self._on_change(view.key)
                self._wake_beside(view)

    def _wake_beside(self, view: V) -> None:
        for other in self.beside(view):
            self._on_change(other.key)

    def _drop(self, view: V) -> None:
        del self._by_name[view.namespace, view.name]
        if beside := tuple(self.beside(view)):
            self._places[self._place_of(view)] = beside
        else:
            self._places.pop(self._place_of(view), None)
        left = tuple(other for other in self._others.get(view.key, ()) if other is not view)
        if left:
            self._others[view.key] = left
        else:
            self._others.pop(view.key, None)


class ListWatch(Protocol):
    """The part of the API client that a reflector needs."""

    async def list(self, path: str, *, params: dict[str, str] | None = None, accept: str = "") -> Manifest:
        """Return one page."""

    def watch(self, path: str, params: dict[str, str], *, silence: float) -> AsyncIterator[Manifest]:
        """Yield events."""


class _Expired(Exception):  # noqa: N818 - in the course of things
    """The server no longer knows the version that the watch should continue from."""


@dataclass(frozen=True)
class Kind(Generic[V]):
    """What is watched."""

    resource: Resource
    view: Callable[[Manifest], V]
    """Makes a view of a raw object."""
    selector: str = SELECTOR
    """Labels of the objects that matter."""
    optional: bool = False
    """Whether the server may do without it, or keep it from the operator."""
    former: Resource | None = None
    """The same kind in an older version, for servers that do not have this one; of optional kinds."""


class Reflector(Generic[V]):
    """Keeps one cache, or one namespace of it, like the server.

    Parameters
    ----------
    api
        The client.
    kind
        What to watch.
    cache
        Where the views go.
    namespace
        Which namespace; None for all.
    silence
        Seconds after which a watch that says nothing is dead.
    pages
        Held while a page is read; reflectors that share it read one page at a time.
    """

    def __init__(
        self,
        api: ListWatch,
        kind: Kind[V],
        cache: Cache[V],
        namespace: str | None,
        *,
        silence: float,
        pages: asyncio.Lock | None = None,
    ) -> None:
        self._api = api
        self._turns = 0
        self._paths = deque(resource.path(namespace) for resource in (kind.resource, kind.former) if resource)
        self._kind = kind
        self._cache = cache
        self._namespace = namespace
        self._silence = silence
        self._pages = pages or asyncio.Lock()
        self.synced = asyncio.Event()

    @property
    def path(self) -> str:
        """The collection that is watched, in the version that was asked for last."""
        return self._paths[0]

    async def run(self) -> None:
        """List and watch for ever; failures are retried with growing, jittered pauses."""
        version, failures, loop = "", 0, asyncio.get_running_loop()
        while True:
            heard = False
            try:
                if not version:
                    version = await self._list()
                    self._cache.serve(self._namespace, served=True)
                    self.synced.set()
                began = loop.time()
                async for newest in self._watch(version):
                    version, failures, heard = newest, 0, True
                if heard or loop.time() >= began + SHORTEST_SECONDS:
                    failures = 0
                else:  # a server that begins or ends, or what stands before it
                    failures += 1
                    await asyncio.sleep(backoff(failures))
            except _Expired:
                logger.info("The watch of %s has expired, listing again.", self.path)
                version = ""
                if not heard:
                    failures += 1
                    await asyncio.sleep(backoff(failures - 1) if failures > 1 else 0)
            except TimeoutError:
                logger.warning("The watch of %s went silent, connecting again.", self.path)
            except (ApiError, aiohttp.ClientError, OSError) as error:
                if self._kind.optional and isinstance(error, ApiError) and error.status in _ABSENT:
                    version = ""
                    await self._look_elsewhere(error)
                    continue
                failures += 1
                pause = backoff(failures, error)
                logger.warning("Watching %s failed, trying again in %.1f s: %s", self.path, pause, error)
                await asyncio.sleep(pause)

    async def _look_elsewhere(self, error: ApiError) -> None:
        """Turn to the kind's other version, where there is one; do without it for a while where each was tried in its turn."""
        if error.status == HTTPStatus.NOT_FOUND:
            self._turns += 1
            self._paths.rotate(-1)
        if error.status == HTTPStatus.FORBIDDEN or self._turns % len(self._paths) == 0:
            await self._do_without(error)

    async def _do_without(self, error: Exception) -> None:
        logger.info("%s is not served: %s", self.path, error)
        self._cache.serve(self._namespace, served=False)
        self._cache.clear(self._namespace)
        self.synced.set()
        await asyncio.sleep(ABSENT_SECONDS)

    async def _list(self) -> str:
        views: list[V] = []
        token = ""
        while True:
            params = {
                "labelSelector": self._kind.selector,
                "limit": str(PAGE),
                **({"continue": token} if token else {}),
            }
            try:
                token, version = await self._page(params, views)
            except ApiError as error:
                if error.status == HTTPStatus.GONE and token:  # the list outlived its snapshot: begin again
                    views, token = [], ""
                    continue
                raise
            if not token:
                self._cache.replace(self._namespace, views, int(version))
                return version

    async def _page(self, params: dict[str, str], views: list[V]) -> tuple[str, str]:
        """Read a page and add its views; return the token of the next page and the list's version."""
        async with self._pages:
            page = await self._api.list(self.path, params=params)
            views += [view for raw in page["items"] or () if (view := self._readable(raw)) is not None]
            return page["metadata"].get("continue", ""), str(page["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> AsyncIterator[str]:
        params = {
            "labelSelector": self._kind.selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(SERVER_SECONDS),
        }
        try:
            async for event in self._api.watch(self.path, params, silence=self._silence):
                raw = event["object"]
                if event["type"] == "ERROR":
                    if raw.get("code") == HTTPStatus.GONE:
                        raise _Expired
                    raise ApiError(raw.get("code", 500), raw.get("reason", ""), raw.get("message", ""))  # noqa: TRY301
                # What was written here comes back, and need not be read again.
                news = event["type"] in ("ADDED", "MODIFIED") and not self._cache.has(raw["metadata"])
                view = self._readable(raw) if news or event["type"] == "DELETED" else None
                if view is not None and event["type"] == "DELETED":
                    self._cache.remove(view, view.version)
                elif view is not None:
                    self._cache.put(view)
                yield str(raw["metadata"]["resourceVersion"])
        except ApiError as error:
            if error.status == HTTPStatus.GONE:
                raise _Expired from None
            raise

    def _readable(self, raw: Manifest) -> V | None:
        """Return the view of an object. Anybody may label one of their own as the operator's: it must not stop all."""
        try:
            return self._kind.view(raw)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            meta = raw["metadata"]
            logger.error("%s %s/%s is passed over: %r", self.path, meta.get("namespace"), meta["name"], error)  # noqa: TRY400
            return None
