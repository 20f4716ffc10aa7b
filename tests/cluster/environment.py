"""What a container sees of its pod's spec: environment variables, field references, the user it runs as."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.cluster.config import Image

Json = dict[str, Any]
#: Reads one object: (kind "configmaps" or "secrets", name) -> its data as bytes by key, None if absent.
ReadData = Callable[[str, str], Awaitable[dict[str, bytes] | None]]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SUFFIXES |= {f"{s}i": 1024.0**n for n, s in enumerate("KMGTPE", 1)}


class ConfigError(Exception):
    """The container cannot be made from its spec now (CreateContainerConfigError)."""


@dataclass(frozen=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    no_new_privileges: bool
    read_only_root: bool


def user_of(pod: Json, container: Json, image: Image) -> User:
    """Merge the pod's and the container's security context over the image's user."""
    of_pod = pod["spec"].get("securityContext") or {}
    merged = {**of_pod, **(container.get("securityContext") or {})}
    uid = merged.get("runAsUser", image.user)
    if merged.get("runAsNonRoot") and uid == 0:
        raise ConfigError(f'container "{container["name"]}" has runAsNonRoot and would run as root: set runAsUser')
    groups = list(of_pod.get("supplementalGroups", []))
    if "fsGroup" in of_pod:
        groups.append(of_pod["fsGroup"])
    return User(
        uid=uid,
        gid=merged.get("runAsGroup", 0),
        groups=tuple(groups),
        no_new_privileges=merged.get("allowPrivilegeEscalation") is False,
        read_only_root=bool(merged.get("readOnlyRootFilesystem")),
    )


async def build_env(pod: Json, container: Json, image: Image, base: dict[str, str], read: ReadData) -> dict[str, str]:
    """Return the container's environment: ``base``, the image's, envFrom, then env, later ones winning."""
    env = base | image.env
    env["PATH"] = ":".join([*image.path, image.env.get("PATH", DEFAULT_PATH)])
    for source in container.get("envFrom", []):
        env |= await _from_source(source, read)
    for entry in container.get("env", []):
        if "valueFrom" not in entry:
            env[entry["name"]] = expand(entry.get("value", ""), env)
            continue
        value = await _value_from(entry["valueFrom"], pod, container, read)
        if value is not None:
            env[entry["name"]] = value
    return env


def expand(text: str, env: dict[str, str]) -> str:
    """Replace $(NAME) by its value; an unknown name stays as it is and $$ is a plain dollar sign."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replace, text)


async def _from_source(source: Json, read: ReadData) -> dict[str, str]:
    prefix = source.get("prefix", "")
    kind = "configmaps" if "configMapRef" in source else "secrets"
    reference = source.get("configMapRef") or source["secretRef"]
    data = await read(kind, reference["name"])
    if data is None and not reference.get("optional"):
        raise ConfigError(f'{kind[:-1]} "{reference["name"]}" not found')
    return {prefix + key: value.decode() for key, value in (data or {}).items()}


async def _value_from(source: Json, pod: Json, container: Json, read: ReadData) -> str | None:
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_field(pod, source["resourceFieldRef"], container)
    kind = "configmaps" if "configMapKeyRef" in source else "secrets"
    reference = source.get("configMapKeyRef") or source.get("secretKeyRef")
    if reference is None:
        raise ConfigError(f"this node does not know valueFrom.{', '.join(source)}")
    data = await read(kind, reference["name"])
    value = (data or {}).get(reference["key"])
    if value is None and not reference.get("optional"):
        what = f'{kind[:-1]} "{reference["name"]}" not found'
        if data is not None:
            what = f"couldn't find key {reference['key']} in {kind[:-1]} {reference['name']}"
        raise ConfigError(what)
    return None if value is None else value.decode()


def field(pod: Json, path: str) -> str:
    """Return a field of the pod as the downward API gives it, e.g. metadata.labels['app'] or status.podIP."""
    subscript = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if subscript:
        return str((pod["metadata"].get(subscript[1]) or {}).get(subscript[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = pod["metadata"].get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    if path in ("status.podIPs", "status.hostIPs"):
        return ",".join(entry["ip"] for entry in value)
    if isinstance(value, dict):
        raise ConfigError(f"this node does not know the field {path}")
    return str(value)


def resource_field(pod: Json, reference: Json, container: Json) -> str:
    """Return limits or requests of a container, in units of the divisor, rounded up."""
    name = reference.get("containerName")
    if name:
        container = next(c for c in pod["spec"]["containers"] if c["name"] == name)
    kind, _, resource = reference["resource"].partition(".")
    value = (container.get("resources", {}).get(kind) or {}).get(resource, "0")
    divisor = reference.get("divisor", "1")
    return str(math.ceil(quantity(value) / (quantity(divisor) or 1)))


def quantity(text: str) -> float:
    """Return a Kubernetes quantity ("500m", "2Gi") as a number."""
    match = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)([a-zA-Z]*)", str(text))
    if match is None or match[2] not in _SUFFIXES:
        raise ConfigError(f"not a quantity: {text!r}")
    return float(match[1]) * _SUFFIXES[match[2]]
