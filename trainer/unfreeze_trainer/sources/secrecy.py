"""What keeps a credential in the process that has it."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable

from unfreeze_api.sources import ACCESS

CREDENTIALS = frozenset(name for access in ACCESS.values() for name in access.credentials)
"""Environment variables with credentials of hubs and stores; no process that trains has them."""
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
_USER = re.compile(r"((?:https?|socks\w*)://)[^\s/'\"]+@")


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return a text without credentials, and without what addresses have before `@` and behind `?`.

    Passwords of mirrors and proxies stand before the one, the signatures of stores behind the other.
    """
    text = _USER.sub(r"\1***@", _QUERY.sub(r"\1?...", text))
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, "***")
    return text


def close_to_others() -> None:
    """Let other processes of the same user read neither memory nor environment of this one, and write no core file of it.

    What it starts is open again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
