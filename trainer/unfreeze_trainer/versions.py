"""Versions of the libraries that a result depends on."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("unfreeze", "torch", "accelerate", "transformers", "timm", "peft", "deepspeed", "bitsandbytes")


def library_versions() -> dict[str, str]:
    """Return the versions of those that are installed."""
    return dict(_installed())


@cache  # each is read out of a text of hundreds of lines, and a run asks several times
def _installed() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
