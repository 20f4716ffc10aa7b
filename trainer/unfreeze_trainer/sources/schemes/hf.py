"""hf://: a process of its own brings repositories of a hub into a cache of huggingface_hub.

That process alone has the hub's token and goes online; training sees files. See unfreeze_trainer/sources/fetcher.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unfreeze_api.sources import hf, timm
from unfreeze_api.sources.hf import Reference
from unfreeze_trainer.sources.asking import ask, cache_of
from unfreeze_trainer.sources.bringer import is_brought
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.wanted import Bringing, Wanted

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
    known, cache = pins or pin(wanted, how), os.path.realpath(how.cache or cache_of(wanted))
    found = {}
    for one in wanted:
        reference, brought = _parsed(one.source), known[one.source]
        root = Reference(reference.kind, reference.repository, "", "").at(cache, brought.revision)
        if is_brought(one, brought, Path(cache, reference.folder), Path(root), how.tell):
            found[one.source] = reference.at(cache, brought.revision)
    missing = [one for one in wanted if one.source not in found]
    return found | (_ask("fetch", missing, known, how) if missing else {})


def _parsed(source: str) -> Reference:
    scheme, _, rest = source.partition("://")
    return (timm.parse if scheme == timm.SOURCE.scheme else hf.parse)(rest)


def prepare(cache: str, *, pod: bool, offline: bool) -> None:
    """Prepare the environment of the process that fetches, before its client is imported.

    Parameters
    ----------
    cache
        Folder of the hub's files.
    pod
        Whether it is that of a pod, where chunks that are kept, and whatever else, lie where there is room.
    offline
        Whether only the cache is asked.
    """
    for name in _OFFLINE:
        os.environ.pop(name, None)
    os.environ.update(_QUIET)
    if pod:
        os.environ["HF_HOME"] = f"{cache}/.home"
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _ask(what: str, wanted: Sequence[Wanted], pins: Mapping[str, Pin], how: Bringing) -> dict[str, Any]:
    return ask(what, wanted, pins, how, scheme="hf", cache=how.cache)
