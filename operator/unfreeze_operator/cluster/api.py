"""The Kubernetes API over plain aiohttp: JSON in, JSON out.

The client library's configuration is used (kubeconfig, exec plugins, token rotation), its typed and dynamic clients
are not: the operator needs six verbs on fixed paths, and a request through them costs several times as much.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, Self

import aiohttp
from kubernetes.aio.client import Configuration

from unfreeze_operator.cluster.connection import ssl_context, token_header
from unfreeze_operator.objects.resources import MANAGER, Manifest

REQUEST_SECONDS = 30
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """The API server refused a request.

    Parameters
    ----------
    status
        HTTP status.
    reason
        The API's word for it, like Conflict or Invalid.
    message
        The API's sentence.
    retry_after
        Seconds that the server asks to wait.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class Api:
    """One client session.

    Parameters
    ----------
    configuration
        Server and credentials.
    reload
        Gives new ones when the server no longer knows us (401).
    """

    def __init__(self, configuration: Configuration, reload: Callable[[], Awaitable[Configuration]]) -> None:
        self._configuration = configuration
        self._reload = reload
        self._ssl = ssl_context(configuration)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # No limit: what is under way is bounded by the number of workers and watches.
        connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl)
        self._session = aiohttp.ClientSession(connector=connector, json_serialize=_dumps)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def list(self, path: str, *, params: dict[str, str] | None = None, accept: str = "") -> Manifest:
        """Return one page of a collection."""
        return await self._request("GET", path, params=params, accept=accept)

    async def get(self, path: str) -> Manifest:
        """Return one object."""
        return await self._request("GET", path)

    async def create(self, path: str, manifest: Manifest) -> Manifest:
        """Create an object and return it as stored."""
        return await self._request("POST", path, body=manifest, params={"fieldManager": MANAGER})

    async def merge(self, path: str, change: Manifest, content_type: str = MERGE) -> Manifest:
        """Merge a change into an object and return it as stored; STRATEGIC merges lists by their keys."""
        params = {"fieldManager": MANAGER}
        return await self._request("PATCH", path, body=change, content_type=content_type, params=params)

    async def apply(self, path: str, manifest: Manifest) -> Manifest:
        """Apply an object on the server's side under the operator's name and return it as stored."""
        params = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        return await self._request("PATCH", path, body=manifest, content_type=APPLY, params=params)

    async def delete(
        self, path: str, uid: str, *, version: int | None = None, now: bool = False, last: bool = False
    ) -> Manifest:
        """Delete the object with this UID.

        Parameters
        ----------
        version
            The resourceVersion that it must still have; None for any.
        now
            Do not wait for a pod's node.
        last
            Let the object go after its dependents, not before.
        """
        conditions = {"uid": uid} | ({"resourceVersion": str(version)} if version is not None else {})
        options: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": conditions}
        options |= {"gracePeriodSeconds": 0} if now else {}
        return await self._request(
            "DELETE", path, body={**options, "propagationPolicy": "Foreground" if last else "Background"}
        )

    async def watch(self, path: str, params: dict[str, str], *, silence: float) -> AsyncIterator[Manifest]:
        """Yield the events of a watch until the server ends it.

        Raises
        ------
        TimeoutError
            Nothing was heard for `silence` seconds, not even a bookmark.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=silence)
        async with await self._send("GET", path, params={**params, "watch": "true"}, timeout=timeout) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield json.loads(line)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
        accept: str = "",
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        headers = {"Content-Type": content_type, "Accept": accept or "application/json"}
        data = _dumps(body).encode() if body is not None else None
        async with await self._send(
            method, path, params=params, data=data, headers=headers, timeout=timeout
        ) as response:
            answer: Manifest = json.loads(await response.read())
            return answer

    async def _send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the client is used outside of its `async with`")
        for attempt in (1, 2):
            all_headers = {**(headers or {}), **await token_header(self._configuration), "User-Agent": MANAGER}
            url = self._configuration.host + path
            response = await self._session.request(
                method, url, headers=all_headers, proxy=self._configuration.proxy, **options
            )
            if response.status == HTTPStatus.UNAUTHORIZED and attempt == 1:
                response.release()
                self._configuration = await self._reload()
                continue
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise await _error(response)
            return response
        raise AssertionError("unreachable")


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    text = await response.text(errors="replace")
    after = response.headers.get("Retry-After", "")
    retry_after = float(after) if after.isdecimal() else None
    try:
        status = json.loads(text)
        return ApiError(response.status, status.get("reason", ""), status.get("message", ""), retry_after)
    except (ValueError, AttributeError):  # a proxy, or a server that is just starting
        return ApiError(response.status, response.reason or "", text[:500], retry_after)


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
