"""Of the package `kubernetes` as much as is used: its configuration.

Its `__init__` imports every client that it has, and with them requests, oauthlib, google-auth and cryptography: 28 MiB of a
process that takes 80, for nothing. Here `kubernetes` and `kubernetes.aio` stand for themselves without their `__init__`;
whatever below them is imported by its full name is the real thing. Kopf's optional types are found so, too.
"""

from __future__ import annotations

import importlib.util
import sys

PACKAGES = "kubernetes", "kubernetes.aio"


def narrow() -> None:
    """Put the packages there without what they import, unless somebody has imported them."""
    for name in PACKAGES:
        if name in sys.modules:
            return
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
