"""hf://: a process of its own brings repositories of a hub into a cache of huggingface_hub.

That process alone has the hub's token and goes online; training sees files. See unfreeze_trainer/sources/fetcher.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.secrecy import TOKEN_ENV
from unfreeze_trainer.sources.wanted import Bringing, Wanted

_CHILD = ("-m", "unfreeze_trainer.sources.fetcher")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_SHARED_BLOBS": "1",  # what is broken is removed from its own repository alone
}


def pin(wanted: Sequence[Wanted], how: Bringing) -> dict[str, Pin]:
    """Ask the hub which commit each source stands for, and which files of it are read; offline, the cache."""
    found = _ask("pin", wanted, {}, how)
    return {source: Pin.model_validate(one) for source, one in found.items()}


def fetch(wanted: Sequence[Wanted], pins: Mapping[str, Pin], how: Bringing) -> dict[str, str]:
    """Bring what is not there yet, check all of it against its pins; return where each source lies."""
    return _ask("fetch", wanted, pins or pin(wanted, how), how)


def cache_of(wanted: Sequence[Wanted], how: Bringing) -> str:
    """Return the cache: the one that is told, or that of the paths in job.json."""
    return how.cache or str(Path(wanted[0].path.partition("/snapshots/")[0]).parent)


def _ask(what: str, wanted: Sequence[Wanted], pins: Mapping[str, Pin], how: Bringing) -> dict[str, Any]:
    request = {
        "what": what,
        "wanted": [dataclasses.asdict(one) for one in wanted],
        "pins": {one.source: pins[one.source].model_dump() for one in wanted if one.source in pins},
        "cache": cache_of(wanted, how),
        "offline": how.offline,
        "patience": how.patience,
        "parent": os.getpid(),
    }
    environment = {name: value for name, value in os.environ.items() if name not in _OFFLINE} | _QUIET
    if how.cache is None:  # a pod: chunks that are kept, and whatever else, lie where there is room
        environment["HF_HOME"] = f"{request['cache']}/.home"
    if how.offline:
        environment["HF_HUB_OFFLINE"] = "1"
    if how.token:
        environment[TOKEN_ENV] = how.token
    child = subprocess.Popen(
        [sys.executable, *_CHILD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    raise RetryError(
        "AgentFailed", f"the process that talks to the hub ended without a word (exit code {child.returncode})"
    )
