"""A keyed work queue: a key waits at most once, is worked on by one worker at a time, and comes back when asked to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from unfreeze_operator.cluster.backoff import backoff, spread
from unfreeze_operator.cluster.timers import Timers

K = TypeVar("K", bound=Hashable)

_SPARE_TIMERS = 100

Handler = Callable[[K], Awaitable[float | None]]
"""Works on a key; returns after how many seconds it wants it back, or None."""


class Queue(Generic[K]):
    """Keys that wait for a worker, now or later.

    Parameters
    ----------
    on_error
        Called for each failure: key, error, seconds until the next try.
    backoff
        First and longest pause in seconds after failures.
    jitter
        Returns a factor for each pause.
    urgent
        Tells, as a key begins to wait, whether it goes before those that do not need to.
    """

    def __init__(
        self,
        on_error: Callable[[K, Exception, float], None],
        *,
        backoff: tuple[float, float] = (0.2, 60.0),
        jitter: Callable[[], float] = spread,
        urgent: Callable[[K], bool] = lambda _: False,
    ) -> None:
        self._on_error = on_error
        self._backoff = backoff
        self._jitter = jitter
        self._is_urgent = urgent
        self._urgent: deque[K] = deque()
        self._waiting: deque[K] = deque()
        self._queued: set[K] = set()
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._due: dict[K, float] = {}
        self._timers: Timers[K] = Timers()
        self._failures: dict[K, int] = {}
        self._work = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._waiting)

    def add(self, key: K) -> None:
        """Ask for a key to be worked on soon; while it is being worked on, to be worked on once more after that."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            (self._urgent if self._is_urgent(key) else self._waiting).append(key)
            self._work.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for a key to be worked on after some time; an earlier time that was asked for stays."""
        due = asyncio.get_running_loop().time() + seconds
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._timers.set(key, due)
        # A key that is looked at often asks each time for a moment hours away, and one that is gone never takes it back.
        if len(self._timers) > _SPARE_TIMERS + 2 * len(self._due):
            self._timers.replace(self._due)

    async def run(self, handler: Handler[K], workers: int) -> None:
        """Work for ever with so many workers; ends only when one of them, or the clock, dies."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._clock(), name="queue clock")
            for number in range(workers):
                group.create_task(self._worker(handler), name=f"worker {number}")

    async def _worker(self, handler: Handler[K]) -> None:
        while True:
            key = await self._next()
            # What was asked for later is what the handler now finds out again.
            due = self._due.pop(key, None)
            try:
                later = await handler(key)
            except Exception as error:  # noqa: BLE001 - a job's error must not end the work on all others
                later = self._pause(key, error, due)
                self._on_error(key, error, later)
            else:
                self._failures.pop(key, None)
            finally:
                self._active.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            if later is not None:
                self.add_after(key, later)

    async def _next(self) -> K:
        while not len(self):
            self._work.clear()
            await self._work.wait()
        key = (self._urgent or self._waiting).popleft()
        self._queued.discard(key)
        self._active.add(key)
        return key

    def _pause(self, key: K, error: Exception, due: float | None) -> float:
        if due is not None and key in self._failures:
            # Something happened before the next try was due: many such things are no reason to wait longer for it.
            least: float = getattr(error, "retry_after", None) or 0.0
            return max(least, due - asyncio.get_running_loop().time())
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return backoff(failures, error, bounds=self._backoff, jitter=self._jitter)

    async def _clock(self) -> None:
        while True:
            due, key = await self._timers.next()
            if self._due.get(key) == due:  # else: moved, or worked on since
                del self._due[key]
                self.add(key)
