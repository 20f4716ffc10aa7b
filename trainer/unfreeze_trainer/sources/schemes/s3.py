"""s3://: a process of its own brings objects of S3, and of what speaks its protocol, by pyarrow.fs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_api.sources.s3 import ACCESS
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources import stores
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.wanted import Bringing, Wanted

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_TRIES = 3
"""The client's own, for a request; longer waits are the job's."""
_PASSING = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT|HTTP status (5\d\d|429)"
)
_ANOTHER_REGION = re.compile(
    r"AuthorizationHeaderMalformed|PermanentRedirect|HTTP status 30[17]|HTTP status 400\).*HeadObject"
)
_LOGIN = (("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), ("AWS_CONFIG_FILE", ".aws/config"))
"""Where a person's own credentials lie: environment variable, and file of the home folder."""
_PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
"""Variables that lead to other credentials than those that are given."""


def pin(wanted: Sequence[Wanted], how: Bringing) -> dict[str, Pin]:
    """Fetch what each source stands for now, and say what that was; offline, what the cache has."""
    return stores.pin(wanted, how, ACCESS.scheme)


def fetch(wanted: Sequence[Wanted], pins: Mapping[str, Pin], how: Bringing) -> dict[str, str]:
    """Bring what is not there yet, check all of it against its pins; return where each source lies."""
    return stores.fetch(wanted, pins, how, ACCESS.scheme)


def prepare(_: str, *, pod: bool, offline: bool) -> None:  # noqa: ARG001 - as of other schemes
    """Have the client of a pod read no files of a person's: a job could name one that leads elsewhere, or has a command started."""
    if pod:
        os.environ.update({name: os.devnull for name, _ in _LOGIN})
        for name in _PROFILES:
            os.environ.pop(name, None)


def connect() -> FileSystem:
    """Return the store, with the credentials of the environment, a person's own, or nobody's rights."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # else who has no credentials waits for those of a virtual machine
    key, secret, session = (os.environ.get(name) for name in ACCESS.credentials)
    own = any(Path(os.environ.get(name) or Path.home() / file).is_file() for name, file in _LOGIN)
    scheme, host = stores.endpoint(ACCESS) or (None, None)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    given = {"access_key": key, "secret_key": secret, "session_token": session} if key and secret else {}
    return S3FileSystem(
        **given,
        anonymous=not given and not own,
        region=region or (None if own and not given else "us-east-1"),
        scheme=scheme,
        endpoint_override=host,
        connect_timeout=10,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    )


def explain(error: BaseException, where: str, bucket: str) -> JobError | RetryError | None:
    """Return an error of the client in the words of jobs, None for one that is no word of the store."""
    said = str(error)
    if "AWS Error" not in said:
        return None
    if "NO_SUCH_BUCKET" in said:
        return stores.no_bucket(where, bucket)
    if _PASSING.search(said):
        return stores.unreachable(ACCESS, where, error)
    if _ANOTHER_REGION.search(said):
        return JobError(
            "NotFound",
            f"{where}: the bucket {bucket} lies in another region, or the store refuses the request: name its region by"
            f" AWS_REGION in the environment (template.env): {stores.short(error)}",
        )
    return stores.unauthorized(ACCESS, where, error)
