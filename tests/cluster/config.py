"""What a cluster can be told: the size of its nodes, its images and its time limits."""

from __future__ import annotations

import fnmatch
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Image:
    """What stands for a container image: every image is the host's file system with these settings.

    ``path`` is put before PATH, ``env`` is the image's environment, ``command`` its entrypoint (used where
    the container has none) and ``user`` the UID that it runs as unless the pod says otherwise. ``folders`` stay in
    sight, read-only, where a volume of the pod would hide them (an emptyDir at /tmp, when they lie below /tmp).
    """

    path: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    user: int = 0
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """Settings of a cluster. Times are in seconds."""

    nodes: int = 2
    capacity: dict[str, str] = field(
        default_factory=lambda: {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "256Gi", "pods": "500"}
    )
    #: Added to ``capacity``, e.g. {"nvidia.com/gpu": "8"}.
    resources: dict[str, str] = field(default_factory=dict)
    #: Image names or patterns ("*" matches all) -> Image, the first match counts; None and no match at all
    #: stand for an image that cannot be pulled. Without any entry every name will do.
    images: dict[str, Image | None] = field(default_factory=dict)
    #: Host names of registries -> URLs where they are, for volumes of images.
    registries: dict[str, str] = field(default_factory=dict)
    #: A node that has been silent this long is NotReady (Kubernetes: 50).
    node_grace: float = 8.0
    #: Pods are deleted from a node that has been NotReady this long (Kubernetes: 300).
    eviction_after: int = 5
    #: First and longest pause before a container is started again (Kubernetes: 10 and 300).
    restart_backoff: float = 1.0
    restart_backoff_max: float = 10.0
    #: Longest time between two readiness probes of a container that is not ready (Kubernetes: as the probe says).
    readiness_period: float = 0.25
    #: Changes of a Job's pods are gathered this long (Kubernetes: 1), and the first pod that failed is replaced after
    #: this long (Kubernetes: 10).
    job_sync_period: float = 0.1
    job_pod_backoff: float = 1.0
    #: Controllers that run, as kube-controller-manager's flag has them: "*" is all, "-name" takes one away.
    controllers: tuple[str, ...] = ("*",)
    #: Features that are switched on in API server, controller manager and scheduler, and groups of the API that are served
    #: beside those that always are, like "scheduling.k8s.io/v1beta1".
    features: tuple[str, ...] = ()
    apis: tuple[str, ...] = ()
    #: Whether every write is logged, with its author and its times (see audit.py).
    audit: bool = False

    def image(self, name: str) -> Image | None:
        """Return what stands for an image on the nodes, None if it cannot be pulled."""
        if not self.images:
            return Image()
        return next((image for pattern, image in self.images.items() if fnmatch.fnmatchcase(name, pattern)), None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Config:
        images = {
            name: image
            and Image(
                tuple(image["path"]), image["env"], tuple(image["command"]), image["user"], tuple(image["folders"])
            )
            for name, image in data["images"].items()
        }
        return cls(
            **{**data, "images": images, **{name: tuple(data[name]) for name in ("controllers", "features", "apis")}}
        )
