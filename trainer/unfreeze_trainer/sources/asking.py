"""Asks a process of its own to pin or to bring sources: it alone has their credentials and goes online. See fetcher.py."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unfreeze_api.sources import ACCESS
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.secrecy import CREDENTIALS
from unfreeze_trainer.sources.wanted import Bringing, Wanted

_CHILD = ("-m", "unfreeze_trainer.sources.fetcher")


def ask(
    what: str,
    wanted: Sequence[Wanted],
    pins: Mapping[str, Pin],
    how: Bringing,
    *,
    scheme: str,
    cache: str,
    environment: Mapping[str, str],
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
        Folder where it puts things.
    environment
        Its variables, without those of `how`.

    Raises
    ------
    JobError, RetryError
        What it says is wrong.
    """
    request = {
        "what": what,
        "wanted": [dataclasses.asdict(one) for one in wanted],
        "pins": {one.source: pins[one.source].model_dump() for one in wanted if one.source in pins},
        "cache": cache,
        "offline": how.offline,
        "patience": how.patience,
        "parent": os.getpid(),
    }
    given = {**environment, **(how.credentials or {})}
    own = ACCESS[scheme].credentials
    child = subprocess.Popen(
        [sys.executable, *_CHILD],
        env={name: value for name, value in given.items() if name not in CREDENTIALS or name in own},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdin is not None  # it is a pipe, as stdout
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(request))
            child.stdin.close()
            for line in child.stdout:
                said = json.loads(line)
                if "result" in said:
                    return dict(said["result"])
                if "reason" in said:
                    raise (RetryError if said["again"] else JobError)(said["reason"], said["message"])
                how.tell(said["text"], said["done"], said["total"])
        finally:
            child.kill()
    raise RetryError("AgentFailed", f"the process that fetches ended without a word (exit code {child.returncode})")


def cache_of(wanted: Sequence[Wanted]) -> str:
    """Return the cache that the paths in job.json lie in."""
    return str(Path(wanted[0].path.partition("/snapshots/")[0]).parent)
