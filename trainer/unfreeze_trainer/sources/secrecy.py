"""What keeps a credential in the process that has it."""

from __future__ import annotations

import ctypes
import re
import sys

TOKEN_ENV = "HF_TOKEN"  # noqa: S105 - a name
"""Environment variable with a hub's token; no process that trains has it."""
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


def redacted(text: str, token: str | None) -> str:
    """Return a text without a token, and without what addresses have behind `?`: the signatures of stores lie there."""
    text = _QUERY.sub(r"\1?...", text)
    return text.replace(token, "***") if token else text


def close_to_others() -> None:
    """Let other processes of the same user read neither memory nor environment of this one, and write no core file of it.

    What it starts is open again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
