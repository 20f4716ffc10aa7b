"""What the files of object stores in `schemes` share: how the process is asked, where the cache is, where a server is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from unfreeze_api.sources.base import Access
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources.asking import ask
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.wanted import Bringing, Wanted


def pin(wanted: Sequence[Wanted], how: Bringing, scheme: str) -> dict[str, Pin]:
    """Fetch what each source stands for now, and return what that was; offline, what the cache has."""
    found = ask("pin", wanted, {}, how, scheme=scheme, cache=how.stores)
    return {source: Pin.model_validate(one) for source, one in found.items()}


def fetch(wanted: Sequence[Wanted], pins: Mapping[str, Pin], how: Bringing, scheme: str) -> dict[str, str]:
    """Bring what is not there yet, check all of it against its pins; return where each source lies."""
    known = pins or pin(wanted, how, scheme)
    return ask("fetch", wanted, known, how, scheme=scheme, cache=how.stores)


def endpoint(access: Access) -> tuple[str, str] | None:
    """Return scheme and host of the server that the environment names, None for the store's own. JobError InvalidJob of no such address."""
    if not (given := os.environ.get(access.endpoint)):
        return None
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise JobError("InvalidJob", f"{access.endpoint} must be http://HOST[:PORT] or https://HOST[:PORT]")
    return parts.scheme, parts.netloc


def unreachable(access: Access, where: str, error: BaseException) -> RetryError:
    """Return the error about a store that does not answer, or breaks off."""
    at = os.environ.get(access.endpoint) or "the store"
    return RetryError(
        "StoreUnreachable",
        f"{where}: {at} cannot be reached, or breaks off: {short(error)}. Look at network, proxy and endpoint"
        f" ({access.endpoint}), or use what is cached: --offline",
    )


def unauthorized(access: Access, where: str, error: BaseException | None = None) -> JobError:
    """Return the error about credentials that the store refuses, or that are missing."""
    given = any(os.environ.get(name) for name in access.credentials)
    what = "refuses the credentials" if given else "wants credentials, and there are none"
    cause = f" ({short(error)})" if error else ""
    names = ", ".join(access.credentials)
    return JobError(
        "Unauthorized",
        f"{where}: the store {what}{cause}: give those that may list and read it, in {names}: on a cluster by the Secret in"
        " spec.sources.secretRef, here by the environment",
    )


def no_bucket(where: str, bucket: str) -> JobError:
    """Return the error about a bucket that there is not."""
    return JobError("NotFound", f"{where}: the store has no bucket {bucket}, or not in this region")


def short(error: BaseException) -> str:
    """Return the text of an error of a client in a line."""
    return " ".join(str(error).split())[:300]
