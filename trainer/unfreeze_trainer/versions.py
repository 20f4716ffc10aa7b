"""Versions of the libraries that a result depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("unfreeze", "torch", "accelerate", "transformers", "timm", "peft", "deepspeed", "bitsandbytes")


def library_versions() -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
