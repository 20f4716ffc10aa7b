"""/metrics, /healthz and /readyz over HTTP."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from unfreeze_operator.telemetry.metrics import Metrics
from unfreeze_operator.telemetry.review import Verdict

PAGE_SHARE = 10
"""A page of /metrics is served for as many times as long as it took to make, so that readers get a tenth of the time."""

Reviewer = Callable[[str], Awaitable[Verdict]]


class Health:
    """Whether the process is alive and ready.

    Parameters
    ----------
    metrics
        What /metrics shows.
    review
        Judges who may read /metrics, by the header Authorization; None lets everybody.
    """

    def __init__(self, metrics: Metrics, review: Reviewer | None = None) -> None:
        self._metrics = metrics
        self._review = review
        self._page: asyncio.Task[bytes] | None = None
        self._page_until = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self.synced = False
        self.standby = False
        """Whether another operator leads; a standby is ready, or no rollout would ever proceed."""

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

    async def _metrics_page(self, request: web.Request) -> web.Response:
        if self._review is not None:
            verdict = await self._review(request.headers.get("Authorization", ""))
            if verdict.status != HTTPStatus.OK:
                return web.Response(status=verdict.status, text=f"{verdict.message}\n", headers=verdict.headers)
        # However many ask, one page is made at a time, and whoever leaves does not end it for the others.
        if self._page is None or (self._page.done() and asyncio.get_running_loop().time() >= self._page_until):
            self._page = asyncio.create_task(self._make_page())
        text = await asyncio.shield(self._page)
        # As a file it is sent piece by piece, without a copy of it for whoever reads slowly.
        return web.Response(body=io.BytesIO(text), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _make_page(self) -> bytes:
        loop = asyncio.get_running_loop()
        began = loop.time()
        # Among thousands of jobs it takes a second, in which the event loop has other work.
        text = await asyncio.to_thread(_page, self._metrics.registry)
        now = loop.time()
        self._page_until = now + PAGE_SHARE * (now - began)
        loop.call_at(self._page_until, self._forget_page)
        return text

    def _forget_page(self) -> None:
        """Drop a page that is too old to be shown again: of 10,000 jobs it has 5 MiB."""
        if self._page is not None and self._page.done():
            self._page = None

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
    page = io.BytesIO()
    for family in registry.collect():
        page.write(generate_latest(_Family(family)))
    return page.getvalue()
