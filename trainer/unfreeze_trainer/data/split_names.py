"""What people call splits, and how it stands in the names of files."""

from __future__ import annotations

import re
from typing import Literal

Split = Literal["train", "validation", "test"]

SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What people call splits."""
_WORD = re.compile(r"[A-Za-z]+")


def split_of(name: str) -> Split | None:
    """Return the split that the first such word in a name tells."""
    return next((SPLIT_WORDS[word.lower()] for word in _WORD.findall(name) if word.lower() in SPLIT_WORDS), None)


def without_split(name: str) -> tuple[str, str]:
    """Return what stands before and after the split's word in a name."""
    for found in _WORD.finditer(name):
        if found.group().lower() in SPLIT_WORDS:
            return name[: found.start()], name[found.end() :]
    return name, ""
