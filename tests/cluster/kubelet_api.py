"""The part of a kubelet's HTTPS API that `kubectl logs` needs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from tests.cluster.container import Container
    from tests.cluster.node import Node

PORT = 10250
POLL_SECONDS = 0.1
CHUNK = 64 * 1024


class KubeletApi:
    """Serves one node's logs on its address."""

    def __init__(self, node: Node, context: ssl.SSLContext) -> None:
        self._node = node
        self._context = context
        self._runner: web.AppRunner | None = None

    @property
    def running(self) -> bool:
        return self._runner is not None

    async def start(self) -> None:
        """Raises OSError if the address is taken, as by another cluster on this machine."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_route("*", "/{rest:.*}", self._unknown)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._node.ip, PORT, ssl_context=self._context).start()
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _unknown(self, request: web.Request) -> web.Response:
        return web.Response(status=501, text=f"the test node has no {request.path}: logs are all it serves\n")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        container = self._node.find_container(**request.match_info)
        if container is None:
            return web.Response(status=404, text="the node has no such container\n")
        previous = request.query.get("previous") == "true"
        path = container.log_path(container.restarts - previous)
        if not path.exists():
            which = "previous terminated container" if previous else "container"
            text = f'{which} "{container.name}" in pod "{request.match_info["pod"]}" not found'
            return web.Response(status=400, text=text)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        follow = request.query.get("follow") == "true"
        await self._stream(response, path, request.query.get("tailLines"), container if follow else None)
        return response

    async def _stream(
        self, response: web.StreamResponse, path: Path, tail: str | None, follow: Container | None
    ) -> None:
        """Send the log; with ``follow`` also what comes, until the container has ended."""
        run = follow.restarts if follow else 0
        with path.open("rb") as file:
            if tail is not None:
                file.seek(_tail_start(file.read(), int(tail)))
            while True:
                # Asked before reading, so that what is written just before the end is read.
                running = follow is not None and follow.restarts == run and follow.exit_code is None
                while chunk := file.read(CHUNK):
                    await response.write(chunk)
                if not running:
                    return
                await asyncio.sleep(POLL_SECONDS)


def _tail_start(content: bytes, lines: int) -> int:
    """Return where the last ``lines`` lines begin."""
    position = len(content) - (1 if content.endswith(b"\n") else 0)
    for _ in range(lines):
        position = content.rfind(b"\n", 0, position)
        if position < 0:
            return 0
    return position + 1 if lines else len(content)
