"""/metrics, /healthz and /readyz over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from unfreeze_operator.metrics import Metrics


class Health:
    """Whether the process is alive and ready.

    Parameters
    ----------
    metrics
        What /metrics shows.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []
        self.synced = False
        self.standby = False
        """Whether another operator leads; a standby is ready, or no rollout would ever go on."""

    def watch(self, task: asyncio.Task[None]) -> None:
        """Report the process dead when this task, which should run for ever, has ended."""
        self._tasks.append(task)

    async def serve(self, host: str, port: int) -> None:
        """Serve until cancelled."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics_page),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _metrics_page(self, _: web.Request) -> web.Response:
        # Among thousands of jobs it takes a second, in which the event loop has other work.
        text = await asyncio.to_thread(_page, self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        dead = [task.get_name() for task in self._tasks if task.done()]
        if dead:
            return web.Response(status=503, text=f"ended: {', '.join(dead)}\n")
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self.standby:
            return web.Response(text="standing by\n")
        if not self.synced:
            return web.Response(status=503, text="the caches are not in sync yet\n")
        return web.Response(text="ok\n")


class _Family(CollectorRegistry):
    """A registry of one family that has been collected."""

    def __init__(self, family: Metric) -> None:
        super().__init__()
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def _page(registry: CollectorRegistry) -> bytes:
    """Return the page of a registry, made family by family, so that there are never the samples of all of them."""
    return b"".join(generate_latest(_Family(family)) for family in registry.collect())
