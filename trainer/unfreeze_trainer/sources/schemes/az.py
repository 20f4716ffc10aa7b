"""az://: a process of its own brings blobs of Azure Blob Storage, by pyarrow.fs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unfreeze_api.sources.az import ACCESS
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources import stores
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.wanted import Bringing, Wanted

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_ACCOUNT = re.compile("[a-z0-9]{3,24}")
_SAID = re.compile(r"Azure Error: \[\w*\] (\d{3})?")
"""With the status of HTTP, where there was an answer."""


def pin(wanted: Sequence[Wanted], how: Bringing) -> dict[str, Pin]:
    """Fetch what each source stands for now, and say what that was; offline, what the cache has."""
    return stores.pin(wanted, how, ACCESS.scheme)


def fetch(wanted: Sequence[Wanted], pins: Mapping[str, Pin], how: Bringing) -> dict[str, str]:
    """Bring what is not there yet, check all of it against its pins; return where each source lies."""
    return stores.fetch(wanted, pins, how, ACCESS.scheme)


def connect() -> FileSystem:
    """Return the store, with an account's key or a shared access signature; JobError Unauthorized without them.

    A name that is none of an account is refused: it begins the name of the host to which they are shown.
    """
    account, key, signature = (os.environ.get(name) for name in ACCESS.credentials)
    if not account or not (key or signature):
        raise stores.unauthorized(ACCESS, ACCESS.scheme)
    if not _ACCOUNT.fullmatch(account):
        raise JobError("InvalidJob", f"{ACCESS.credentials[0]} must be 3 to 24 lower-case letters and digits")
    from pyarrow.fs import AzureFileSystem

    shown = {"account_key": key} if key else {"sas_token": f"?{str(signature).removeprefix('?')}"}
    if found := stores.endpoint(ACCESS):
        scheme, host = found
        shown |= {
            f"{kind}_storage_{part}": value
            for kind in ("blob", "dfs")
            for part, value in (("scheme", scheme), ("authority", host))
        }
    return AzureFileSystem(account, **shown)


def explain(error: BaseException, where: str, bucket: str) -> JobError | RetryError | None:
    """Return an error of the client in the words of jobs, None for one that is no word of the store."""
    if "Base64" in str(error):  # a key that is none
        return stores.unauthorized(ACCESS, where, error)
    if not (found := _SAID.search(str(error))):
        return None
    if not found[1] or found[1] == "429" or found[1].startswith("5"):
        return stores.unreachable(ACCESS, where, error)
    return stores.no_bucket(where, bucket) if found[1] == "404" else stores.unauthorized(ACCESS, where, error)
