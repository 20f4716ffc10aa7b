"""What may be meant by a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def likeliest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of some names that is most like another one, upper case or not; None where none is like it."""
    lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None
