"""oci://: a cluster mounts the image into the pod; there is nothing to bring, and elsewhere nothing to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unfreeze_api.sources import oci
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.wanted import Bringing, Wanted


def fetch(wanted: Sequence[Wanted], _: Mapping[str, Pin], __: Bringing) -> dict[str, str]:
    """Raise JobError InvalidModel where the image is not mounted, or has nothing at the path that is named."""
    for one in wanted:
        reference, path = oci.parse(one.source.partition("://")[2])
        root = Path(one.path.removesuffix(f"/{path}") if path else one.path)
        if not root.is_dir():
            raise JobError(
                "InvalidModel",
                f"{one.field} {one.source}: images are mounted by Kubernetes, and none is mounted here. On this machine take the"
                f" files out of {reference}, say by `podman image mount`, and name their folder: file:///PATH",
            )
        if not Path(one.path).is_dir():
            there = ", ".join(sorted(item.name for item in root.iterdir())[:8])
            raise JobError("NotFound", f"{one.field} {one.source}: the image has no folder {path}; there are {there}")
    return {}
