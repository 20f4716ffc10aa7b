"""A small asynchronous client of the API server on plain dicts: requests, and stores kept by list and watch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp

Json = dict[str, Any]
Key = tuple[str, str]

STRATEGIC = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """An answer of the API server that is not a success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status


class Api:
    """One connection pool, with the administrator's certificate."""

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        self.server = server
        self._session = aiohttp.ClientSession(
            server,
            connector=aiohttp.TCPConnector(ssl=context, limit=64),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str, **params: str) -> Json:
        return await self._request("GET", path, params=params)

    async def post(self, path: str, body: Json) -> Json:
        return await self._request("POST", path, body)

    async def put(self, path: str, body: Json) -> Json:
        return await self._request("PUT", path, body)

    async def patch(self, path: str, body: Json) -> Json:
        return await self._request("PATCH", path, body, content_type=STRATEGIC)

    async def merge(self, path: str, body: Json) -> Json:
        return await self._request("PATCH", path, body, content_type="application/merge-patch+json")

    async def delete(self, path: str, body: Json | None = None) -> Json:
        return await self._request("DELETE", path, body)

    async def _request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        params: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        timeout = aiohttp.ClientTimeout(total=30)
        async with self._session.request(
            method, path, data=data, params=params, headers=headers, timeout=timeout
        ) as response:
            try:
                answer: Json = await response.json(content_type=None)
            except ValueError as error:  # a server that has too much to do answers in plain words
                raise ApiError(response.status, "", str(error)) from error
            if response.status >= 400:
                raise ApiError(response.status, answer.get("reason", ""), answer.get("message", ""))
            return answer

    async def watch(self, path: str, version: str) -> AsyncGenerator[Json, None]:
        """Yield the events after ``version`` until the server ends the watch."""
        params = {"watch": "1", "allowWatchBookmarks": "1", "resourceVersion": version}
        async with self._session.get(path, params=params) as response:
            if response.status >= 400:
                raise ApiError(response.status, "", await response.text())
            rest = b""
            # Not readline(): an event may be longer than aiohttp's limit for a line.
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)


class Store:
    """The objects of one kind in all namespaces, by (namespace, name); ``changed`` is told of each change."""

    def __init__(self, api: Api, path: str, changed: Callable[[str, Json], None]) -> None:
        self.items: dict[Key, Json] = {}
        self.synced = asyncio.Event()
        self._api = api
        self._path = path
        self._changed = changed

    async def run(self) -> None:
        """List and watch for ever."""
        while True:
            try:
                await self._follow(await self._list())
            except (TimeoutError, ApiError, aiohttp.ClientError, OSError):
                await asyncio.sleep(0.2)

    async def _follow(self, version: str) -> None:
        """Apply the events after ``version``, until the server has forgotten where that was."""
        while True:
            async with contextlib.aclosing(self._api.watch(self._path, version)) as events:
                async for event in events:
                    if event["type"] == "ERROR":
                        return
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._apply(event["type"], event["object"])

    async def _list(self) -> str:
        answer = await self._api.get(self._path)
        listed = {_key(item): item for item in answer["items"]}
        for key in [key for key in self.items if key not in listed]:
            self._apply("DELETED", self.items[key])
        for key, item in listed.items():
            known = self.items.get(key)
            if known and known["metadata"]["uid"] != item["metadata"]["uid"]:
                self._apply("DELETED", known)
                known = None
            self._apply("MODIFIED" if known else "ADDED", item)
        self.synced.set()
        return str(answer["metadata"]["resourceVersion"])

    def _apply(self, kind: str, item: Json) -> None:
        item["metadata"].pop("managedFields", None)  # half of a pod's size, and of no use here
        if kind == "DELETED":
            self.items.pop(_key(item), None)
        else:
            self.items[_key(item)] = item
        self._changed(kind, item)


def _key(item: Json) -> Key:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def pod_path(pod: Json, tail: str = "") -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}{tail}"
