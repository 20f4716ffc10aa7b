"""What keeps a credential in the process that has it."""

from __future__ import annotations

import ctypes
import re
import sys

TOKEN_ENV = "HF_TOKEN"  # noqa: S105 - a name
"""Environment variable with a hub's token; no process that trains has it."""
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
_USER = re.compile(r"((?:https?|socks\w*)://)[^\s/'\"]+@")


def redacted(text: str, token: str | None) -> str:
    """Return a text without a token, and without what addresses have before `@` and behind `?`.

    Passwords of mirrors and proxies stand before the one, the signatures of stores behind the other.
    """
    text = _USER.sub(r"\1***@", _QUERY.sub(r"\1?...", text))
    return text.replace(token, "***") if token else text


def close_to_others() -> None:
    """Let other processes of the same user read neither memory nor environment of this one, and write no core file of it.

    What it starts is open again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
