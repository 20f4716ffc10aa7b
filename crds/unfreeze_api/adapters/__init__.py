"""The kinds of adapters, a file each. Enum, member, rules and messages of the CRD follow from a kind's file."""

from __future__ import annotations

import importlib
import pkgutil

from unfreeze_api.adapters.base import AdapterKind


def _declared() -> tuple[AdapterKind, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    found = [importlib.import_module(f"{__name__}.{name}").ADAPTER for name in names]
    return tuple(sorted(found, key=lambda adapter: adapter.order))


ADAPTERS = _declared()
