"""Debian's Chromium without a screen, asked by the DevTools protocol what it makes of a file."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import re
import shutil
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.debian import install

PACKAGE = "chromium-headless-shell"
LAPTOP, PHONE = (1280, 800), (390, 844)


def browser() -> str:
    """Return the path of the browser; root installs it where there is none."""
    for name in ("chromium", PACKAGE):
        if found := shutil.which(name):
            return found
    install(PACKAGE, PACKAGE)
    return str(shutil.which(PACKAGE))


class Tab:
    """One tab; `events` are those that it has sent."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    async def event(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self.events.append(await self._socket.receive_json())

    async def open(self, path: Path, size: tuple[int, int], *, dark: bool) -> None:
        width, height = size
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events = [event for event in self.events if event["method"] != "Page.loadEventFired"]
        await self.ask("Page.navigate", url=path.as_uri())
        await self.event("Page.loadEventFired")

    async def value(self, expression: str) -> Any:
        return (await self.ask("Runtime.evaluate", expression=expression, returnByValue=True))["result"].get("value")

    async def picture(self, *, whole: bool = False) -> bytes:
        found = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    async def pdf(self) -> bytes:
        return base64.b64decode((await self.ask("Page.printToPDF", printBackground=True))["data"])


@asynccontextmanager
async def tab(profile: Path):
    """Start a browser and open a tab that tells of requests, errors and its console."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
    process = await asyncio.create_subprocess_exec(
        *(browser(), *options, f"--user-data-dir={profile}", "about:blank"),
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            said = ""
            while not (found := re.search(r"DevTools listening on ws://([^/]+)/", said)):
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
            async with session.get(f"http://{found[1]}/json/list") as answer:
                url = next(one for one in await answer.json() if one["type"] == "page")["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=0) as socket:
                opened = Tab(socket)
                for domain in ("Page", "Network", "Runtime", "Log", "Audits"):
                    await opened.ask(f"{domain}.enable")
                yield opened
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
