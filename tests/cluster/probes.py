"""Startup, readiness and liveness probes: httpGet, tcpSocket and exec."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

Json = dict[str, Any]
#: Runs a command in the container within so many seconds: exit status and output.
Execute = Callable[[list[str], float], Awaitable[tuple[int, str]]]


async def check(probe: Json, container: Json, ip: str, execute: Execute) -> str:
    """Make one attempt; return an empty text for success, else what went wrong."""
    timeout = probe.get("timeoutSeconds", 1)
    try:
        if "exec" in probe:
            status, output = await execute(probe["exec"]["command"], timeout)
            return "" if status == 0 else f"command exited with {status}: {output[:1000]}"
        if "httpGet" in probe:
            return await _http_get(probe["httpGet"], container, ip, timeout)
        if "tcpSocket" in probe:
            action = probe["tcpSocket"]
            target = asyncio.open_connection(action.get("host", ip), port_of(action["port"], container))
            _, writer = await asyncio.wait_for(target, timeout)
            writer.close()
            return ""
    except (TimeoutError, subprocess.TimeoutExpired):
        return f"no answer within {timeout} s"
    except (OSError, aiohttp.ClientError) as error:
        return str(error) or type(error).__name__
    return "the test node knows httpGet, tcpSocket and exec probes only"


async def watch(
    probe: Json,
    attempt: Callable[[], Awaitable[str]],
    changed: Callable[[bool, str], None],
    period: Callable[[], float],
) -> None:
    """Make attempts for ever; tell ``changed`` each time the thresholds say success or failure.

    From the start of an attempt to that of the next a ``period`` passes, or what it takes if that is more.
    """
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    needed = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
    streak, last = 0, None
    while True:
        started = clock()
        problem = await attempt()
        success = not problem
        streak = streak + 1 if success is last else 1
        last = success
        if streak == needed[success]:
            changed(success, problem)
        await asyncio.sleep(started + period() - clock())


def port_of(port: int | str, container: Json) -> int:
    """Return the number of a port that may be given by its name in the container."""
    if isinstance(port, int):
        return port
    for entry in container.get("ports", []):
        if entry.get("name") == port:
            return int(entry["containerPort"])
    raise OSError(f"the container has no port named {port!r}")


async def _http_get(action: Json, container: Json, ip: str, seconds: float) -> str:
    host = action.get("host", ip)
    scheme = action.get("scheme", "HTTP").lower()
    url = f"{scheme}://{host}:{port_of(action['port'], container)}{action.get('path', '/')}"
    headers = {header["name"]: header["value"] for header in action.get("httpHeaders", [])}
    limit = aiohttp.ClientTimeout(total=seconds)
    async with (
        aiohttp.ClientSession(timeout=limit) as session,
        session.get(url, headers=headers, ssl=False, allow_redirects=False) as response,
    ):
        return "" if 200 <= response.status < 400 else f"HTTP status {response.status}"
