"""Actions -> API calls. What the API answers goes straight into the caches, so that the next look does not miss it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from unfreeze_api.contracts.reasons import RunningReason
from unfreeze_operator.cluster.api import STRATEGIC, Api, ApiError
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.objects.actions import Abandon, Action, Create, Delete, Patch
from unfreeze_operator.objects.resources import PODS, Manifest, Resource
from unfreeze_operator.objects.views import View

logger = logging.getLogger(__name__)

_CHANGED = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
"""Answers of the API server for an object that is gone, or no longer the one with this UID."""
_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)
"""Its answers for an object that a right, a quota or a policy does not allow."""


class Delayed(Exception):  # noqa: N818 - a state of affairs, not a mistake
    """Something is in the way that time, or a person, will remove.

    Parameters
    ----------
    reason
        That of the job's condition Running; Changed, where there is nothing to tell.
    message
        For people.
    """

    def __init__(
        self, reason: RunningReason | Literal["Changed"], message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class Refused(Exception):  # noqa: N818 - a state of affairs, not a mistake
    """The API server will never accept this object; only another spec helps."""


class Unavailable(Exception):  # noqa: N818 - a state of affairs, not a mistake
    """The API server refuses an object that the job can do without."""


_WEBHOOK = "failed calling webhook"
"""What the API server says, with status 500, of a webhook that it cannot do without."""
_NO_VOLUME = "must specify a volume type"


def _told(message: str) -> str:
    """Return why an object is not accepted, with what a server means that has dropped a volume which it does not know."""
    if _NO_VOLUME not in message:
        return message
    return (
        f"oci:// needs volumes of images, which this cluster's Kubernetes does not have (they are stable in 1.36): copy the model to"
        f" a claim, pvc://: {message}"
    )


@dataclass(frozen=True, slots=True)
class Mirror:
    """A cache and how raw objects become its views."""

    cache: Cache[View]
    view: Callable[[Manifest], View]

    def put(self, raw: Manifest) -> None:
        """Store an object that the API has just returned."""
        self.cache.put(self.view(raw))


class Executor:
    """Carries out the actions of plans.

    Parameters
    ----------
    api
        The client.
    mirrors
        The cache of each kind.
    """

    def __init__(self, api: Api, mirrors: dict[Resource, Mirror]) -> None:
        self._api = api
        self._mirrors = mirrors

    async def execute(self, action: Action) -> None:
        """Carry out one action. Doing it twice, or after a crash, is the same as doing it once.

        Raises
        ------
        Delayed
            It cannot be done now.
        Refused
            It can never be done.
        Unavailable
            It is not done here, and need not be.
        ApiError, aiohttp.ClientError
            The API server did not do it; to be tried again.
        """
        try:
            match action:
                case Create():
                    await self._create(action)
                case Patch():
                    await self._patch(action)
                case Delete():
                    await self._delete(action)
                case Abandon():
                    await self._abandon(action)
        except ApiError as error:
            if isinstance(action, Create) and action.optional and error.status in _REFUSED:
                raise Unavailable(error.message) from error
            if error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
                raise Refused(_told(error.message)) from error
            if error.status == HTTPStatus.FORBIDDEN:
                # A quota that is used up, or a namespace that is going away: not a fault of the job.
                raise Delayed("Forbidden", error.message, error.retry_after) from error
            if isinstance(action, Create) and _WEBHOOK in error.message:
                # Somebody else's, such as Kueue's, which has to agree and does not answer.
                raise Delayed("Forbidden", error.message, error.retry_after) from error
            raise

    async def _create(self, action: Create) -> None:
        meta = action.manifest["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        try:
            raw = await self._api.create(action.resource.path(namespace), action.manifest)
        except ApiError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            if error.reason == "Conflict":
                # Not of its name: of a quota, which others are charged to at the same time.
                raise Delayed("Changed", f"{action.resource.kind} {name}: {error.message}") from error
            raw = await self._existing(action, namespace, name)
        self._mirrors[action.resource].put(raw)
        logger.info("%s %s is there.", action.resource.kind, name)

    async def _existing(self, action: Create, namespace: str, name: str) -> Manifest:
        """Return the object that is already there if it is the one that was to be made."""
        kind = action.resource.kind
        try:
            raw = await self._api.get(action.resource.path(namespace, name))
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise Delayed("WaitingForDeletion", f"{kind} {name} was just deleted") from error
            raise
        owners = {owner["uid"] for owner in raw["metadata"].get("ownerReferences", ()) if owner.get("controller")}
        wanted = {owner["uid"] for owner in action.manifest["metadata"]["ownerReferences"]}
        if "deletionTimestamp" in raw["metadata"]:
            raise Delayed("WaitingForDeletion", f"{kind} {name} is still being deleted")
        if owners != wanted:
            raise Delayed(
                "NameTaken",
                f"{kind} {name} exists and does not belong to this job: delete it, or give the job another name",
            )
        labels = action.manifest["metadata"]["labels"]
        if labels.items() <= raw["metadata"].get("labels", {}).items():
            return raw
        # Somebody took the labels away by which it is found.
        mended = {"metadata": {"uid": raw["metadata"]["uid"], "labels": labels}}
        try:
            return await self._api.merge(action.resource.path(namespace, name), mended)
        except ApiError as error:
            if error.status not in _REFUSED:
                raise
            # No fault of the job, which may well run.
            message = f"{kind} {name} has lost labels, and they cannot be put back: {error.message}"
            raise Delayed("Forbidden", message, error.retry_after) from error

    async def _patch(self, action: Patch) -> None:
        view = action.view
        # With UID and version in it, the server refuses the change for another object of the same name, and for what was decided
        # by an older state of this one: a resume that was taken back, say, which a server that is behind still tells of.
        seen = {"uid": view.uid, "resourceVersion": str(view.version)}
        change = {**action.change, "metadata": {**action.change.get("metadata", {}), **seen}}
        try:
            raw = await self._api.merge(action.resource.path(view.namespace, view.name), change)
        except ApiError as error:
            if error.status in _CHANGED:
                message = f"{action.resource.kind} {view.name} has changed meanwhile"
                raise Delayed("Changed", message) from error
            raise
        self._mirrors[action.resource].put(raw)
        logger.info("%s %s is patched.", action.resource.kind, view.name)

    async def _delete(self, action: Delete) -> None:
        view = action.view
        try:
            path = action.resource.path(view.namespace, view.name)
            await self._api.delete(path, view.uid, version=view.version, last=action.last)
        except ApiError as error:
            if error.status not in _CHANGED:
                raise
            if "resourceversion" in error.message.lower():
                raise Delayed("Changed", f"{action.resource.kind} {view.name} has changed meanwhile") from error
            # Else it is gone, or another one has its name.
        mirror = self._mirrors.get(action.resource)
        if mirror is not None and not action.last:
            mirror.cache.remove(view)
        logger.info("%s %s is deleted.", action.resource.kind, view.name)

    async def _abandon(self, action: Abandon) -> None:
        """Fail a pod, then delete it: what the cluster's pod collector does for pods of nodes that are gone.

        In this order, or its Job would wait for its end for ever; as a disruption, or it would count against the
        backoff limit.
        """
        view = action.view
        disruption = {"type": "DisruptionTarget", "status": "True", "reason": action.reason, "message": action.message}
        status = {"phase": "Failed", "reason": action.reason, "message": action.message, "conditions": [disruption]}
        change = {"metadata": {"uid": view.uid}, "status": status}
        try:
            if view.live:
                await self._api.merge(PODS.path(view.namespace, view.name, "status"), change, STRATEGIC)
            await self._api.delete(PODS.path(view.namespace, view.name), view.uid, now=True)
        except ApiError as error:
            if error.status not in _CHANGED:
                raise
        logger.info("Pod %s is given up: %s", view.name, action.message)
