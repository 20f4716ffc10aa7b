"""What the platform lets jobs ask for beside a restricted pod: labels, annotations, priority and runtime classes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from unfreeze_api.spec.job import FineTuneJobSpec

NODE_ANNOTATIONS = (
    # Profiles of before they were fields, which Pod Security checks.
    "container.apparmor.security.beta.kubernetes.io/*",
    "seccomp.security.alpha.kubernetes.io/*",
    "container.seccomp.security.alpha.kubernetes.io/*",
    # Runtimes, their sandboxes and plugins: devices, cgroups, user namespaces, paths of binaries on the node.
    "io.kubernetes.cri-o.*",
    "*.crio.io",
    "*.crio.io/*",
    "*.kubernetes.cri-o.io",
    "*.kubernetes.cri-o.io/*",
    "io.containerd.*",
    "io.katacontainers.*",
    "dev.gvisor.*",
    "cdi.k8s.io/*",
    "*.cdi.k8s.io/*",
    "*.nri.io",
    "*.nri.io/*",
    "*.nri.containerd.io/*",
    "*.noderesource.dev",
    "*.noderesource.dev/*",
    "*.resources.beta.kubernetes.io/*",
    # Other networks, addresses of choice.
    "k8s.v1.cni.cncf.io/*",
    "v1.multus-cni.io/*",
    "cni.projectcalico.org/*",
    "ovn.kubernetes.io/*",
    "k8s.ovn.org/*",
    # Roles of a cloud, by who intercepts its metadata server; containers and volumes that an injector adds.
    "iam.amazonaws.com/*",
    "inject.istio.io/*",
    "sidecar.istio.io/userVolume*",
)
"""Annotations that act on the node, its runtime or the network, past the checks of Pod Security."""
SYSTEM_CLASSES = ("system-node-critical", "system-cluster-critical")
"""Priority classes that displace the cluster's own pods."""
KUEUE_LABELS = "kueue.x-k8s.io/*"
"""Labels by which Kueue knows its pods. A job has its queue from the label of the FineTuneJob."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the person who runs the operator allows. Patterns are a shell's: `*` stands for anything."""

    refused_annotations: tuple[str, ...] = NODE_ANNOTATIONS
    """Patterns of the annotations that pods must not have."""
    labels: tuple[str, ...] | None = None
    """Patterns of the labels that pods may have beside the operator's; None for any. A label that another Service or policy
    selects makes a job's pods part of it."""
    priority_classes: tuple[str, ...] | None = None
    """Patterns of the priority classes; None for any but SYSTEM_CLASSES."""
    runtime_classes: tuple[str, ...] | None = None
    """Patterns of the runtime classes; None for any."""


DEFAULT = Allowed()


def objections(spec: FineTuneJobSpec, allowed: Allowed) -> list[str]:
    """Return what a job asks for and must not, each with its field."""
    return list(_objections(spec, allowed))


def _objections(spec: FineTuneJobSpec, allowed: Allowed) -> Iterator[str]:
    template = spec.template
    for key in template.annotations or {}:
        if _matches(key, allowed.refused_annotations):
            yield f"template.annotations[{key}] acts on the node, or past what Pod Security checks"
    for key in template.labels or {}:
        if _matches(key, (KUEUE_LABELS,)):
            yield f"template.labels[{key}] is Kueue's: put the queue's label on the FineTuneJob"
        elif allowed.labels is not None and not _matches(key, allowed.labels):
            yield f"template.labels[{key}] is none of {_list(allowed.labels)}"
    name = template.priority_class_name
    if name and allowed.priority_classes is None and name in SYSTEM_CLASSES:
        yield f"template.priorityClassName {name} is for the cluster's own pods"
    for field, asked, patterns in (
        ("priorityClassName", name, allowed.priority_classes),
        ("runtimeClassName", template.runtime_class_name, allowed.runtime_classes),
    ):
        if asked and patterns is not None and not _matches(asked, patterns):
            yield f"template.{field} {asked} is none of {_list(patterns)}"


def _matches(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _list(patterns: tuple[str, ...]) -> str:
    return ", ".join(patterns) or "those that are allowed, which are none"
