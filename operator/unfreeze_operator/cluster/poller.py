"""The pull of /progress from the leaders of running jobs: bounded, spread over time, patient with silent pods."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus

import aiohttp

from unfreeze_api.contracts.budget import MAX_PROGRESS_BYTES
from unfreeze_api.contracts.progress import HTTP_PORT, Progress
from unfreeze_operator.cluster.places import Places
from unfreeze_operator.cluster.timers import Timers
from unfreeze_operator.objects.resources import Key
from unfreeze_operator.settings.options import Settings

logger = logging.getLogger(__name__)

PULL_SECONDS = 5.0
MAX_PAUSE_SECONDS = 300.0
"""Longest pause between two questions to a leader that does not answer."""
MAX_SILENCE_SECONDS = 15.0
"""The same for one that has answered before: its job is said to be lost meanwhile, and that must end soon after the silence does."""
SLOW_SECONDS = 1.0
"""An answer that takes longer counts as none where places are given away: nobody can tell it from one held back."""
SILENT_SHARE = 4
"""Leaders that did not answer last time, or slowly, have one in so many of the places: each holds it for so long."""
SILENT_AFTER = 2
"""Failures in a row after which a leader that has answered before is silent."""
TELL_AFTER = 5
"""Failures in a row before a silent leader is worth a line in the log."""


@dataclass(slots=True)
class _Target:
    uid: str
    url: str
    ready: bool
    failures: int = 0
    slow: bool = False
    """Whether the last answer took longer than SLOW_SECONDS."""
    newest: bytes = b""
    """What it said last, as JSON, which takes a tenth of the memory; nothing before its first answer."""


class ProgressPoller:
    """Asks the leader of each running job how far it is.

    Parameters
    ----------
    settings
        Interval, rate and concurrency.
    on_change
        Called with the key of a job that says something new.
    """

    def __init__(self, settings: Settings, on_change: Callable[[Key], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._targets: dict[Key, _Target] = {}
        self._timers: Timers[tuple[Key, _Target]] = Timers()
        of_silent = max(1, settings.progress_concurrency // SILENT_SHARE)
        self._places = Places(max(1, settings.progress_concurrency - of_silent))
        self._places_of_silent = Places(of_silent)
        self._moment = 0.0
        """Of the newest leader's first question."""
        self.pulls = 0
        """Answers so far."""

    def __len__(self) -> int:
        return len(self._targets)

    def watch(self, key: Key, uid: str, ip: str, *, ready: bool) -> None:
        """Ask the leader with this UID from now on; what an earlier leader said is forgotten.

        One that did not answer is asked again as soon as it becomes ready.
        """
        known, host = self._targets.get(key), f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{HTTP_PORT}/progress"
        # A node may make a pod's sandbox anew before its container starts, with another address.
        if known is not None and (known.uid, known.url) == (uid, url):
            if not (ready and not known.ready and known.failures):
                known.ready = ready
                return
            target = replace(known, ready=ready, failures=0)
        else:
            target = _Target(uid, url, ready)
        self._targets[key] = target
        # At a start all leaders become known at once: each gets a moment of its own.
        now = asyncio.get_running_loop().time()
        self._moment = max(now, self._moment + 1 / self._settings.progress_rate)
        self._schedule(key, target, self._moment - now)

    def forget(self, key: Key) -> None:
        """Ask no more."""
        self._targets.pop(key, None)

    def newest(self, key: Key, uid: str) -> Progress | None:
        """Return what the leader with this UID said last."""
        target = self._targets.get(key)
        return _read(target) if target is not None and target.uid == uid else None

    def reported(self, key: Key) -> Progress | None:
        """Return what the leader that is asked now said last."""
        target = self._targets.get(key)
        return _read(target) if target is not None else None

    def silent(self, key: Key, uid: str) -> bool:
        """Whether the leader with this UID has answered before and does so no more."""
        target = self._targets.get(key)
        return target is not None and target.uid == uid and bool(target.newest) and _silent(target)

    async def run(self) -> None:
        """Ask for ever."""
        timeout = aiohttp.ClientTimeout(total=PULL_SECONDS)
        # An open connection takes more memory than all that is known of its job.
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=None, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            asyncio.TaskGroup() as group,
        ):
            while True:
                _, (key, target) = await self._timers.next()
                if self._targets.get(key) is target:
                    group.create_task(self._pull(session, key, target))

    def _schedule(self, key: Key, target: _Target, pause: float) -> None:
        self._timers.set((key, target), asyncio.get_running_loop().time() + pause)

    async def _pull(self, session: aiohttp.ClientSession, key: Key, target: _Target) -> None:
        places = self._places_of_silent if target.failures or target.slow else self._places
        try:
            async with places.one(key[0]):
                if self._targets.get(key) is not target:
                    return
                began = asyncio.get_running_loop().time()
                try:
                    said = (await ask(session, target.url)).to_json().encode()
                finally:
                    target.slow = asyncio.get_running_loop().time() - began > SLOW_SECONDS
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            target.failures += 1
            if target.failures == SILENT_AFTER and target.newest:
                self._on_change(key)
            if target.failures == TELL_AFTER:
                logger.warning("%s/%s: the leader does not answer at %s: %s", *key, target.url, error)
        else:
            silent, target.failures = _silent(target), 0
            self.pulls += 1
            if (silent or said != target.newest) and self._targets.get(key) is target:
                target.newest = said
                self._on_change(key)
        # Many running jobs share a fixed rate, so that their status writes cannot swamp the API server.
        interval = max(self._settings.progress_interval, len(self._targets) / self._settings.progress_rate)
        longest = MAX_SILENCE_SECONDS if target.newest else MAX_PAUSE_SECONDS
        pause = min(max(longest, interval), interval * 2 ** min(target.failures, 10))
        self._schedule(key, target, pause * random.uniform(0.9, 1.1))  # noqa: S311 - no secret


def _read(target: _Target) -> Progress | None:
    return Progress.read(target.newest) if target.newest else None


def _silent(target: _Target) -> bool:
    return target.failures >= SILENT_AFTER


async def ask(session: aiohttp.ClientSession, url: str) -> Progress:
    """Return a leader's answer: all of it, with status 200, and as it is, since what is compressed has no bound.

    Raises
    ------
    aiohttp.ClientError, TimeoutError, OSError, ValueError
        It gives none, or one that cannot be read.
    """
    async with session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as response:
        if response.status != HTTPStatus.OK:
            raise ValueError(f"the answer has status {response.status}")
        if encoding := response.headers.get("Content-Encoding"):
            raise ValueError(f"the answer is encoded as {encoding[:20]!r}")
        return Progress.read(await _body(response))


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    # It comes in as many pieces as the network makes of it.
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_PROGRESS_BYTES:
            raise ValueError(f"the answer has more than {MAX_PROGRESS_BYTES} bytes")
    return bytes(body)
