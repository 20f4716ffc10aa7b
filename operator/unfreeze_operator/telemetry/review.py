"""Who may read /metrics, by the word of the API server: a token that it knows, of an account with the right to read it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import aiohttp

from unfreeze_operator.cluster.api import ApiError

logger = logging.getLogger(__name__)

IDENTITY_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
KEEP_SECONDS = 60.0
"""For how long a judgement stands, as in kube-rbac-proxy."""
MAX_KEPT = 256
MAX_CONCURRENT = 4
"""Reviews under way: strangers with ever new tokens must not keep the API server busy."""
_SCHEME = "bearer "
_MAX_TOKEN_CHARACTERS = 8192


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the answer to a request for /metrics is."""

    status: HTTPStatus
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


ALLOWED = Verdict(HTTPStatus.OK)
_NO_TOKEN = Verdict(HTTPStatus.UNAUTHORIZED, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
_UNKNOWN = Verdict(HTTPStatus.UNAUTHORIZED, "the API server does not know this token", {"WWW-Authenticate": "Bearer"})
_FORBIDDEN = Verdict(HTTPStatus.FORBIDDEN, "this account may not get the nonResourceURL /metrics")
_UNSURE = Verdict(HTTPStatus.SERVICE_UNAVAILABLE, "the API server cannot be asked")


class Creator(Protocol):
    """What of the API server's client is needed."""

    async def create(self, path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create an object and return it as the server answers."""


class TokenReview:
    """Asks the API server whose token it is, and whether that account may read /metrics."""

    def __init__(self, api: Creator) -> None:
        self._api = api
        self._known: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()
        self._places = asyncio.Semaphore(MAX_CONCURRENT)

    async def __call__(self, authorization: str) -> Verdict:
        """Judge a header Authorization."""
        token = authorization[len(_SCHEME) :].strip()
        if not authorization.lower().startswith(_SCHEME) or not token or len(token) > _MAX_TOKEN_CHARACTERS:
            return _NO_TOKEN
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        async with self._places:
            now = asyncio.get_running_loop().time()
            until, verdict = self._known.get(digest, (now, _UNSURE))
            if until > now:
                return verdict
            try:
                verdict = await self._asked(token)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("Who asks for /metrics cannot be found out: %s", error)
                return _UNSURE
            self._known[digest] = now + KEEP_SECONDS, verdict
            self._known.move_to_end(digest)
            if len(self._known) > MAX_KEPT:
                self._known.popitem(last=False)
            return verdict

    async def _asked(self, token: str) -> Verdict:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = (await self._api.create(IDENTITY_PATH, review)).get("status", {})
        if not status.get("authenticated"):
            return _UNKNOWN
        user = status.get("user", {})
        spec = {
            "user": user.get("username", ""),
            "uid": user.get("uid", ""),
            "groups": user.get("groups", []),
            "extra": user.get("extra", {}),
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        allowed = (await self._api.create(ACCESS_PATH, review)).get("status", {}).get("allowed")
        return ALLOWED if allowed else _FORBIDDEN
