"""Items that come up again when their time has come."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Timers(Generic[T]):
    """A clock with any number of items; times are those of the running event loop, in seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self._alarm = asyncio.Event()

    def set(self, item: T, due: float) -> None:
        """Let an item come up at a time; the same item may be set more than once."""
        self._count += 1  # items need not be comparable
        heapq.heappush(self._heap, (due, self._count, item))
        self._alarm.set()

    def __len__(self) -> int:
        return len(self._heap)

    def replace(self, dues: Mapping[T, float]) -> None:
        """Let these items alone come up, each once, at its time."""
        self._heap = [(due, number, item) for number, (item, due) in enumerate(dues.items())]
        heapq.heapify(self._heap)
        self._count = len(self._heap)
        self._alarm.set()

    async def next(self) -> tuple[float, T]:
        """Wait for the earliest item; return the time that it was set to, and the item."""
        loop = asyncio.get_running_loop()
        while not self._heap or self._heap[0][0] > loop.time():
            self._alarm.clear()
            wait = self._heap[0][0] - loop.time() if self._heap else None
            try:
                async with asyncio.timeout(wait):
                    await self._alarm.wait()
            except TimeoutError:
                pass
        due, _, item = heapq.heappop(self._heap)
        return due, item
