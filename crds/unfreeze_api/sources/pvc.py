"""Files on a volume claim."""

from __future__ import annotations

from unfreeze_api.grammar.fields import OBJECT_NAME
from unfreeze_api.sources.base import SEGMENT, Needs, Places, Source


def _locate(rest: str, places: Places) -> str:
    claim, _, path = rest.partition("/")
    folder = places.claim(claim)
    return f"{folder}/{path}" if path else folder


SOURCE = Source(
    scheme="pvc",
    form="pvc://CLAIM/PATH",
    about="on a volume claim",
    pattern=rf"{OBJECT_NAME}(/{SEGMENT})*",
    locate=_locate,
    needs=lambda rest: Needs(claims=tuple(filter(None, rest.split("/")[:1]))),
    order=0,
)
