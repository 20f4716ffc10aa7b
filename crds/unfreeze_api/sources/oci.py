"""Models in images of a registry: the node pulls and keeps them, and the pod mounts them read-only."""

from __future__ import annotations

from unfreeze_api.sources.base import SEGMENT, Needs, Places, Source

_HOST = "[a-z0-9][a-z0-9.-]*(:[0-9]+)?"
_PART = "[a-z0-9]+([._-]+[a-z0-9]+)*"
_DIGEST = "@sha256:[0-9a-f]{64}"
_DIGITS = 12
"""Of the digest, in the name of the folder where an image is mounted."""


def parse(rest: str) -> tuple[str, str]:
    """Return what stands behind oci:// as the image's reference and the path in it."""
    name, _, behind = rest.partition("@")
    digest, _, path = behind.partition("/")
    return f"{name}@{digest}", path


def folder(reference: str) -> str:
    """Return the name of the folder where an image is mounted."""
    return reference.rpartition(":")[2][:_DIGITS]


def _locate(rest: str, places: Places) -> str:
    reference, path = parse(rest)
    root = f"{places.images}/{folder(reference)}"
    return f"{root}/{path}" if path else root


SOURCE = Source(
    scheme="oci",
    form="oci://REGISTRY/REPO@sha256:DIGEST[/PATH]",
    about="in an image, which nodes pull",
    pattern=rf"{_HOST}(/{_PART})+{_DIGEST}(/{SEGMENT})*",
    holds=("Model",),
    locate=_locate,
    needs=lambda rest: Needs(images=(parse(rest)[0],)),
    order=7,
)
