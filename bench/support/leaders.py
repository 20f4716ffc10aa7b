"""The leaders of many running jobs, played by one server with an address for each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from unfreeze_api.contracts.progress import HTTP_PORT, Progress

OCTET = 40
"""Second byte of the addresses; the nodes of the tests take theirs from 64 on."""


def address(number: int) -> str:
    """Return the loopback address of a leader."""
    return f"127.{OCTET}.{number // 250}.{1 + number % 250}"


def progress(step: int) -> Progress:
    """Return what a leader says at a step."""
    total = 10_000
    return Progress(
        activity="Training",
        percent=100 * step // total,
        step=step,
        total_steps=total,
        epoch=3 * step / total,
        phase_index=1,
        phase_count=3,
        phase_name="layer.5",
        loss=0.25,
        metrics={"accuracy": 0.9, "loss": 0.3},
        samples_per_second=512.0,
        eta_seconds=3600,
        learning_rates={"head": 1e-3, "layer.5": 1e-4},
        world_size=4,
    )


class Leaders:
    """Answers /progress for all leaders and keeps count."""

    def __init__(self) -> None:
        self.step = 100
        self.moving = False
        """Whether each answer tells of one step more than the one before."""
        self.silent = False
        """Whether leaders take the question and never answer."""
        self.clear()

    def clear(self) -> None:
        """Begin to count anew."""
        self.times: list[float] = []
        self.most = self._active = 0

    @contextlib.asynccontextmanager
    async def serve(self, number: int) -> AsyncIterator[None]:
        """Serve so many leaders."""
        hosts = [address(leader) for leader in range(number)]
        server = await asyncio.start_server(self._answer, hosts, HTTP_PORT)
        try:
            yield
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.times.append(time.monotonic())
                self._active += 1
                self.most = max(self.most, self._active)
                try:
                    if self.silent:
                        await reader.read()  # until the other side gives up
                        break
                    self.step += self.moving
                    body = progress(self.step).to_json().encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                    await writer.drain()
                finally:
                    self._active -= 1
        writer.close()

    def figures(self, seconds: float) -> dict[str, Any]:
        """Return questions per second, the most within one tenth of a second, and the most at the same time."""
        tenths = Counter(int(10 * when) for when in self.times)
        return {
            "pulls_per_s": round(len(self.times) / seconds, 1),
            "most_in_100_ms": max(tenths.values(), default=0),
            "most_at_once": self.most,
        }
