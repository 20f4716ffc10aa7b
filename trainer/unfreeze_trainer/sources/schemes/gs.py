"""gs://: a process of its own brings objects of Google Cloud Storage, by pyarrow.fs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_api.sources.gs import ACCESS
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources import stores
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.wanted import Bringing, Wanted

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_RETRY = timedelta(seconds=5)
"""The client's own; longer waits are the job's."""
_FILE_ENV = "GOOGLE_APPLICATION_CREDENTIALS"
_LOGIN = ".config/gcloud/application_default_credentials.json"


def pin(wanted: Sequence[Wanted], how: Bringing) -> dict[str, Pin]:
    """Fetch what each source stands for now, and say what that was; offline, what the cache has."""
    return stores.pin(wanted, how, ACCESS.scheme)


def fetch(wanted: Sequence[Wanted], pins: Mapping[str, Pin], how: Bringing) -> dict[str, str]:
    """Bring what is not there yet, check all of it against its pins; return where each source lies."""
    return stores.fetch(wanted, pins, how, ACCESS.scheme)


def prepare(_: str, *, pod: bool, offline: bool) -> None:  # noqa: ARG001 - as of other schemes
    """Have the client of a pod read no files of a person's: a job could name one that sends its tokens elsewhere."""
    if pod:
        os.environ.pop(_FILE_ENV, None)
        os.environ["HOME"] = os.devnull


def connect() -> FileSystem:
    """Return the store, with the key of a service account, what `gcloud auth` has left, or nobody's rights."""
    from pyarrow.fs import GcsFileSystem

    if key := os.environ.get(ACCESS.needed[0]):
        file = os.memfd_create("key")  # the client takes a file's name alone, and the key is to lie on no disk
        os.write(file, key.encode())
        os.environ[_FILE_ENV] = f"/proc/self/fd/{file}"
    known = _FILE_ENV in os.environ or (Path.home() / _LOGIN).exists()
    scheme, host = stores.endpoint(ACCESS) or (None, None)
    return GcsFileSystem(anonymous=not known, scheme=scheme, endpoint_override=host, retry_time_limit=_RETRY)


def explain(error: BaseException, where: str, bucket: str) -> JobError | RetryError | None:
    """Return an error of the client in the words of jobs, None for one that is no word of the store."""
    said = str(error)
    no_key = "INVALID_ARGUMENT" in said and "OAuth2 access token" in said
    if no_key or "Cannot open credentials file" in said:  # which is also said where it holds no JSON
        return stores.unauthorized(ACCESS, where, error)
    if "google::cloud::Status" not in said:
        return None
    if isinstance(error, PermissionError):
        return stores.unauthorized(ACCESS, where, error)
    return (
        stores.no_bucket(where, bucket)
        if isinstance(error, FileNotFoundError)
        else stores.unreachable(ACCESS, where, error)
    )
