"""Files that the trainer's container has: of its image, or of this machine."""

from __future__ import annotations

from unfreeze_api.sources.base import SEGMENT, Source

SOURCE = Source(
    scheme="file",
    form="file:///PATH",
    about="inside the trainer's container (on this machine for `unfreeze run`)",
    pattern=rf"(/{SEGMENT})+",
    locate=lambda rest, _: rest,
)
