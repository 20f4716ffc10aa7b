"""Asks a process of its own to pin or to bring sources: it alone has their credentials and goes online. See fetcher.py.

In a pod whose cache other jobs use as well, that process runs in another container, the only one that can write there. See beside.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from unfreeze_api.contracts.progress import FETCHER_ENV
from unfreeze_api.sources import ACCESS
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.secrecy import CREDENTIALS
from unfreeze_trainer.sources.wanted import Bringing, Wanted

_CHILD = ("-m", "unfreeze_trainer.sources.fetcher")
_START_SECONDS = 60.0
"""Time that the other container's process has to listen."""
_LOOK_SECONDS = 0.05


def ask(
    what: str, wanted: Sequence[Wanted], pins: Mapping[str, Pin], how: Bringing, *, scheme: str, cache: str | None
) -> dict[str, Any]:
    """Return what the process answers, by source.

    Parameters
    ----------
    what
        pin or fetch.
    wanted, pins, how
        Sources of one scheme, what they stand for, and how they are brought.
    scheme
        Whose credentials it gets, and no others.
    cache
        Folder where it puts things; None for the one that job.json names, in a pod.

    Raises
    ------
    JobError, RetryError
        What it says is wrong.
    """
    request = {
        "what": what,
        "scheme": scheme,
        "wanted": [dataclasses.asdict(one) for one in wanted],
        "pins": {one.source: pins[one.source].model_dump() for one in wanted if one.source in pins},
        "cache": cache or cache_of(wanted),
        "pod": cache is None,
        "offline": how.is_offline(scheme),
        "patience": how.patience,
    }
    address = os.environ.get(FETCHER_ENV) if cache is None and not request["offline"] else None
    with _beside(request, address) if address else child(request, how.credentials) as answers:
        for line in answers:
            said = json.loads(line)
            if "result" in said:
                return dict(said["result"])
            if "reason" in said:
                raise (RetryError if said["again"] else JobError)(said["reason"], said["message"])
            how.tell(said["text"], said["done"], said["total"])
    raise RetryError(
        "AgentFailed",
        "the process that fetches ended without a word: the pod's log may say more, that of its container fetcher where it has one",
    )


def release() -> None:
    """Have the container that fetches for this one, if there is one, answer no more: whatever trains cannot ask it. RetryError AgentFailed where it has ended."""
    if address := os.environ.get(FETCHER_ENV):
        with _beside({"what": "done"}, address) as answers:
            if not answers.read():
                raise RetryError("AgentFailed", "the container that fetches has ended before its time")


def cache_of(wanted: Sequence[Wanted]) -> str:
    """Return the cache that the paths in job.json lie in."""
    return str(Path(wanted[0].path.partition("/snapshots/")[0]).parent)


@contextmanager
def child(request: Mapping[str, Any], credentials: Mapping[str, str] | None = None) -> Iterator[IO[str]]:
    """Start the process with a request, of which it gets no credentials but its scheme's; give its answers, kill it at the end."""
    own = ACCESS[request["scheme"]].credentials
    given = {**os.environ, **(credentials or {})}
    process = subprocess.Popen(
        [sys.executable, *_CHILD],
        env={name: value for name, value in given.items() if name not in CREDENTIALS or name in own},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None  # it is a pipe, as stdout
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({**request, "parent": os.getpid()}))
            process.stdin.close()
            yield process.stdout
        finally:
            process.kill()


@contextmanager
def _beside(request: Mapping[str, Any], address: str) -> Iterator[IO[str]]:
    """Send a request to the container that fetches; give its answers."""
    with _connected(address) as connection, connection.makefile("r", encoding="utf-8") as answers:
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        yield answers


def _connected(address: str) -> socket.socket:
    end = time.monotonic() + _START_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            if time.monotonic() > end:
                raise RetryError(
                    "AgentFailed", f"the container that fetches does not answer at {address}: {error}"
                ) from error
            time.sleep(_LOOK_SECONDS)
        else:
            return connection
