"""Models of timm by the names that timm gives them: repositories of timm's own at a hub."""

from __future__ import annotations

from unfreeze_api.sources import hf
from unfreeze_api.sources.base import Needs, Places, Source

OWNER = "timm"


def parse(rest: str) -> hf.Reference:
    """Return what stands behind timm:// in its parts."""
    return hf.parse(f"{OWNER}/{rest}")


def _locate(rest: str, places: Places) -> str:
    reference = parse(rest)
    return reference.at(places.sources, reference.revision)


SOURCE = Source(
    scheme="timm",
    form="timm://NAME[@REVISION]",
    about="that timm has at a hub",
    pattern=hf.NAME_OF_MODEL,
    holds=("Model",),
    locate=_locate,
    needs=lambda _: Needs(schemes=("hf",)),
    access=hf.ACCESS,
    order=3,
)
