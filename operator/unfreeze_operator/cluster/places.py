"""Places for work that many namespaces wait for: a free one goes to whoever holds fewest, so that nobody takes them all."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Places:
    """So many places, for whoever comes first as long as there are enough, else shared by namespace.

    Parameters
    ----------
    number
        How many there are.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def one(self, namespace: str) -> AsyncIterator[None]:
        """Hold a place, from when one is free."""
        await self._take(namespace)
        try:
            yield
        finally:
            self._give(namespace)

    async def _take(self, namespace: str) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            self._held[namespace] += 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._give(namespace)
            raise

    def _give(self, namespace: str) -> None:
        self._held[namespace] -= 1
        if not self._held[namespace]:
            del self._held[namespace]
        self._free += 1
        while self._free and self._waiting:
            # Among equals the one that has waited without a place longest: dictionaries keep their order.
            poorest = min(self._waiting, key=self._held.__getitem__)
            line = self._waiting.pop(poorest)
            first = line.popleft()
            if line:
                self._waiting[poorest] = line
            if not first.cancelled():
                self._free -= 1
                self._held[poorest] += 1
                first.set_result(None)
