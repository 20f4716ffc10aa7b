"""A proxy in front of the API server that makes faults: refusals, lost answers, cut and silent watches, delays.

Clients speak plain HTTP to it; their tokens go on to the server over TLS. A fault is aimed at one kind of call, such as
the next two patches of jobs/status, and every call is written down, so that a test can wait for one, or count them.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

Json = dict[str, Any]

WAIT_SECONDS = 120.0
_PATCHES = {"application/apply-patch+yaml": "apply"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "content-encoding"}


@dataclass(frozen=True)
class Call:
    """What a client asked for."""

    verb: str
    """list, continue (a further page of a list), watch, get, create, update, patch, apply or delete."""
    resource: str
    """Plural, with its subresource: pods/status."""
    namespace: str
    name: str

    @property
    def site(self) -> tuple[str, str]:
        """Verb and resource."""
        return self.verb, self.resource


@dataclass(frozen=True)
class Answer:
    """The server is not asked; the client is told this."""

    status: int
    reason: str = ""
    retry_after: int | None = None


@dataclass(frozen=True)
class Cut:
    """The connection ends: before the server is asked, or when it has done what was asked, so that only its answer is
    lost."""

    done: bool = False


@dataclass(frozen=True)
class Delay:
    """The server is asked later."""

    seconds: float


@dataclass(frozen=True)
class Silence:
    """A watch stays open and tells nothing more."""


@dataclass(frozen=True)
class Expire:
    """A watch begins well, and its first event is 410: its version is too old."""


Fault = Answer | Cut | Delay | Silence | Expire


@dataclass
class Rule:
    """A fault for the calls of one kind."""

    fault: Fault
    verb: str
    resource: str
    times: int
    hit: list[Call] = field(default_factory=list)

    def takes(self, call: Call) -> bool:
        """Whether this call is one of its."""
        return len(self.hit) < self.times and self.verb in ("", call.verb) and self.resource in ("", call.resource)


class Proxy:
    """One proxy, in a thread of its own: ``with Proxy(server, authority) as proxy: ...``.

    Parameters
    ----------
    server
        Address of the API server.
    authority
        File of the certificate authority that the server is signed by.
    """

    def __init__(self, server: str, authority: Path) -> None:
        self._server = server
        self._authority = authority
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._rules: list[Rule] = []
        self._streams: dict[asyncio.Task[Any], Call] = {}
        self.calls: list[Call] = []
        """Everything that was asked for, in order."""
        self.chaos: Callable[[Call], Fault | None] = lambda _: None
        """Asked for a fault where no rule has one."""
        self.page = 0
        """Most objects that a page of a list has, where the client asks for pages; 0 for as many as it asks for."""
        self.past: dict[str, Json] = {}
        """Lists that are answered in place of today's, by plural, as by a server that has missed what came since; watches of these
        tell nothing. Until `heal`."""
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def kubeconfig(self, like: Path, path: Path) -> Path:
        """Write a kubeconfig of the same rights that leads through the proxy and return its path."""
        path.touch(mode=0o600)
        path.write_text(like.read_text().replace(self._server, self.url))
        return path

    # -- faults ----------------------------------------------------------------------------------------------

    def inject(self, fault: Fault, verb: str = "", resource: str = "", *, times: int = 1) -> Rule:
        """Let the next calls of a kind fail; an empty verb or resource stands for all."""
        rule = Rule(fault, verb, resource, times)
        self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Take all faults back; watches that were silenced end."""
        self._rules.clear()
        self.past = {}
        self.chaos = lambda _: None
        self.cut()

    def cut(self, resource: str = "") -> None:
        """End the watches of a resource, or all, that are open now."""
        for task, call in list(self._streams.items()):
            if resource in ("", call.resource):
                self._loop.call_soon_threadsafe(task.cancel)

    def count(self, verb: str = "", resource: str = "") -> int:
        """Return how many calls of a kind there were."""
        return sum(verb in ("", call.verb) and resource in ("", call.resource) for call in list(self.calls))

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition on the calls holds."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {WAIT_SECONDS:g} s: {what}")
            time.sleep(0.02)

    # -- internal --------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        context = ssl.create_default_context(cafile=str(self._authority))
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0))
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._session.close()  # ends the watches, which the runner would wait for
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = call_of(request.method, request.path, request.content_type, request.query)
        self.calls.append(call)
        rule = next((rule for rule in self._rules if rule.takes(call)), None)
        if rule is not None:
            rule.hit.append(call)
        fault = rule.fault if rule is not None else self.chaos(call)
        if call.resource in self.past and call.verb == "list":
            return web.json_response(self.past[call.resource])
        if call.resource in self.past and call.verb == "watch":
            fault = Silence()
        if isinstance(fault, Answer):
            return _answer(fault)
        if isinstance(fault, Cut) and not fault.done:
            return _hang_up(request)
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        try:
            return await self._forward(request, call, fault)
        except aiohttp.ClientError:  # the server's end of the connection
            return _hang_up(request)

    async def _forward(self, request: web.BaseRequest, call: Call, fault: Fault | None) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = URL(self._server + request.path, encoded=True).with_query(self._paged(request.query))
        timeout = aiohttp.ClientTimeout(total=None)
        body = await request.read() or None  # else the client names a type for it
        async with self._session.request(request.method, url, headers=headers, data=body, timeout=timeout) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            if call.verb == "watch" and answer.status == 200:
                return await self._stream(request, call, answer, kept, fault)
            content = await answer.read()
            if isinstance(fault, Cut):
                return _hang_up(request)
            return web.Response(status=answer.status, headers=kept, body=content)

    async def _stream(
        self,
        request: web.BaseRequest,
        call: Call,
        answer: aiohttp.ClientResponse,
        headers: dict[str, str],
        fault: Fault | None,
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        if isinstance(fault, Expire):
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        relay = asyncio.ensure_future(self._relay(response, answer, silent=isinstance(fault, Silence)))
        self._streams[relay] = call
        try:
            await relay
        except (asyncio.CancelledError, aiohttp.ClientError, ConnectionError):
            relay.cancel()
            return _hang_up(request)
        finally:
            del self._streams[relay]
        return response

    def _paged(self, query: Mapping[str, str]) -> dict[str, str]:
        return {**query, "limit": str(self.page)} if self.page and "limit" in query else {**query}

    @staticmethod
    async def _relay(response: web.StreamResponse, answer: aiohttp.ClientResponse, *, silent: bool) -> None:
        async for chunk in answer.content.iter_any():
            if not silent:
                await response.write(chunk)


def call_of(method: str, path: str, content_type: str, query: Mapping[str, str]) -> Call:
    """Read a request as the API server does: /apis/batch/v1/namespaces/a/jobs/b/status is a's b of jobs/status."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    resource, name, *sub = (*parts, "", "")[: max(2, len(parts))]
    if method == "GET":
        listing = "continue" if "continue" in query else "list"
        verb = "watch" if "watch" in query else "get" if name else listing
    else:
        verb = _PATCHES.get(content_type, _VERBS.get(method, method))
    return Call(verb, "/".join([resource, *sub]), namespace, name)


def _answer(fault: Answer) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status, "reason": fault.reason}
    body["message"] = f"a fault of the tests: {fault.status} {fault.reason}"
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(body, status=fault.status, headers=headers)


def _hang_up(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
