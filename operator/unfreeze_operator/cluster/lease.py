"""Leader election by a Lease: of several operators one works, and another takes over when that one is gone.

Own code: the client library's election ends at the first lost connection, and never gives a lease back.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp

from unfreeze_operator.cluster.api import Api, ApiError
from unfreeze_operator.objects.resources import LEASES, Manifest

logger = logging.getLogger(__name__)

_FAILURES = (ApiError, aiohttp.ClientError, TimeoutError)


class LostLeaseError(Exception):
    """Another process may lead before long: this one has to end."""


class Election:
    """One candidate.

    Parameters
    ----------
    api
        The client.
    namespace, name
        Which Lease; candidates for one lead share it.
    identity
        Name of this process, which no other one has.
    seconds
        How long the lease of a leader that has died keeps others waiting. It is renewed six times in that time, and
        given up after two thirds of it without success.

    Notes
    -----
    Nothing is concluded from the times that another machine has written: a lease has run out when it has not changed
    for its duration by the clock of this process, as in client-go.
    """

    def __init__(self, api: Api, namespace: str, name: str, identity: str, seconds: float) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seconds = seconds
        self._seen = ""
        self._seen_at = 0.0

    async def acquire(self) -> None:
        """Wait until this process leads."""
        announced = ""
        while True:
            try:
                holder = await self._try()
            except _FAILURES as error:
                holder = f"who leads cannot be found out: {error}"
                if holder != announced:
                    logger.warning("Standing by: %s", holder)
            else:
                if holder == self._identity:
                    logger.info("This operator leads, as %s.", holder)
                    return
                if holder != announced:
                    logger.info("Standing by: %s leads.", holder)
            announced = holder
            await asyncio.sleep(self._seconds / 6)

    async def hold(self) -> None:
        """Renew the lease for ever.

        Raises
        ------
        LostLeaseError
            Somebody else leads, or might before long.
        """
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(self._seconds / 6)
            began = loop.time()
            try:
                async with asyncio.timeout_at(renewed + self._seconds * 2 / 3):
                    holder = await self._try()
            except _FAILURES as error:
                if loop.time() >= renewed + self._seconds * 2 / 3:
                    raise LostLeaseError(f"the lease could not be renewed in time: {error or 'no answer'}") from error
                logger.warning("The lease could not be renewed: %s", error)
                continue
            if holder != self._identity:
                raise LostLeaseError(f"{holder} leads")
            renewed = began

    async def release(self) -> None:
        """Let the next one lead at once; to be called when this process does nothing any more."""
        try:
            lease = await self._api.get(self._path)
            if lease["spec"].get("holderIdentity") == self._identity:
                await self._write(lease, "")
        except _FAILURES as error:
            logger.warning("The lease could not be given back, others wait for its end: %s", error)

    @property
    def _path(self) -> str:
        return LEASES.path(self._namespace, self._name)

    async def _try(self) -> str:
        """Take or renew the lease if nobody else has it; return who leads now."""
        try:
            lease = await self._api.get(self._path)
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return await self._attempt(None)
        version, now = lease["metadata"]["resourceVersion"], asyncio.get_running_loop().time()
        if version != self._seen:
            self._seen, self._seen_at = version, now
        spec = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        expired = now >= self._seen_at + spec.get("leaseDurationSeconds", self._seconds)
        if holder in ("", self._identity) or expired:
            return await self._attempt(lease)
        return holder

    async def _attempt(self, lease: Manifest | None) -> str:
        try:
            await self._write(lease, self._identity)
        except ApiError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            return "another one, who was faster,"
        return self._identity

    async def _write(self, lease: Manifest | None, holder: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Manifest = {
            "holderIdentity": holder,
            "renewTime": now,
            "leaseDurationSeconds": max(1, round(self._seconds)),
        }
        old = (lease or {}).get("spec") or {}
        if holder and holder != old.get("holderIdentity"):
            spec |= {"acquireTime": now, "leaseTransitions": old.get("leaseTransitions", -1) + 1}
        if lease is None:
            body = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": self._name},
                "spec": spec,
            }
            raw = await self._api.create(LEASES.path(self._namespace), body)
        else:
            # With its version in the change, the server refuses it when somebody else was faster.
            meta = {"resourceVersion": lease["metadata"]["resourceVersion"]}
            raw = await self._api.merge(self._path, {"metadata": meta, "spec": spec})
        self._seen = raw["metadata"]["resourceVersion"]
        self._seen_at = asyncio.get_running_loop().time()
