"""A pod's volumes as folders of this machine, and where each is mounted in a container."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.api import Api, ApiError
from tests.cluster.environment import ConfigError, expand, field, quantity, resource_field
from tests.cluster.image_store import ImageStore, PullError

Json = dict[str, Any]


class VolumeError(Exception):
    """A volume cannot be mounted now (event FailedMount; the node tries again)."""


class Volumes:
    """The volumes of one pod below ``folder``; `prepare` fills ``paths`` with the source of each by name."""

    def __init__(self, api: Api, pod: Json, folder: Path, images: ImageStore, tell: Callable[[str, str], None]) -> None:
        self.paths: dict[str, Path] = {}
        #: Seconds until the first token of the pod should be renewed; None without tokens.
        self.renew_after: float | None = None
        self._api = api
        self._pod = pod
        self._folder = folder
        self._images, self._tell = images, tell
        self._group: int | None = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        self._mounted: list[Path] = []

    async def prepare(self) -> None:
        for volume in self._pod["spec"].get("volumes", []):
            name = volume["name"]
            if name not in self.paths:
                self.paths[name] = await self._prepare(name, volume)

    async def renew_tokens(self) -> None:
        """Write the projected volumes again, with new tokens."""
        for volume in self._pod["spec"].get("volumes", []):
            if "projected" in volume and volume["name"] in self.paths:
                await self._projected(self.paths[volume["name"]], volume["projected"])

    def mounts(self, container: Json, env: dict[str, str]) -> list[Json]:
        """Return source, target and read-only of each mount of a container, outermost target first."""
        closed = {
            volume["name"]
            for volume in self._pod["spec"].get("volumes", [])
            if volume.get("persistentVolumeClaim", {}).get("readOnly") or "image" in volume
        }
        mounts = []
        for mount in container.get("volumeMounts", []):
            source = self.paths[mount["name"]]
            sub_path = expand(mount["subPathExpr"], env) if "subPathExpr" in mount else mount.get("subPath")
            if sub_path:
                if Path(sub_path).is_absolute() or ".." in Path(sub_path).parts:
                    raise ConfigError(f"subPath {sub_path!r} of {mount['name']} leaves its volume")
                source = source / sub_path
                if not source.exists():
                    source.mkdir(parents=True)
                    self._give_to_group(source)
            read_only = mount.get("readOnly", False) or mount["name"] in closed
            mounts.append({"source": str(source), "target": mount["mountPath"], "readOnly": read_only})
        return sorted(mounts, key=lambda m: str(m["target"]).rstrip("/").count("/"))

    def remove(self) -> None:
        """Remove what belongs to the pod; claims and host paths stay."""
        for path in self._mounted:
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _prepare(self, name: str, volume: Json) -> Path:
        path = self._folder / name
        if "emptyDir" in volume:
            return self._empty_dir(path, volume["emptyDir"] or {})
        if "image" in volume:
            try:
                return await self._images.mounted(volume["image"], self._tell)
            except PullError as error:
                raise VolumeError(str(error)) from None
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            return await self._claim(volume["persistentVolumeClaim"]["claimName"])
        if "ephemeral" in volume:
            return await self._claim(f"{self._pod['metadata']['name']}-{name}")
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
        if "configMap" in volume or "secret" in volume:
            source = dict(volume.get("configMap") or volume["secret"])
            source.setdefault("name", source.get("secretName"))
            kind = "configmaps" if "configMap" in volume else "secrets"
            await self._data(path, kind, source, source.get("defaultMode", 0o644))
        elif "projected" in volume:
            await self._projected(path, volume["projected"])
        elif "downwardAPI" in volume:
            self._downward(path, volume["downwardAPI"])
        else:
            kinds = ", ".join(key for key in volume if key != "name")
            raise VolumeError(f'volume "{name}": the test node cannot mount volumes of kind {kinds}')
        return path

    def _empty_dir(self, path: Path, source: Json) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        if source.get("medium") == "Memory":
            size = int(quantity(source.get("sizeLimit", "64Gi")))
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
            self._mounted.append(path)
        path.chmod(0o777)
        self._give_to_group(path)
        return path

    async def _claim(self, name: str) -> Path:
        namespace = self._pod["metadata"]["namespace"]
        try:
            claim = await self._api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
            volume_name = claim["spec"].get("volumeName")
            if not volume_name or claim.get("status", {}).get("phase") != "Bound":
                raise VolumeError(f'persistentvolumeclaim "{name}" is not bound')
            volume = await self._api.get(f"/api/v1/persistentvolumes/{volume_name}")
        except ApiError as error:
            raise VolumeError(str(error)) from None
        source = volume["spec"].get("hostPath") or volume["spec"].get("local")
        if source is None:
            raise VolumeError(f'persistentvolume "{volume_name}": only hostPath and local can be mounted here')
        path = _host_path(source)
        self._give_to_group(path)
        return path

    async def _data(self, path: Path, kind: str, source: Json, mode: int) -> None:
        """Write a ConfigMap's or Secret's keys as files."""
        data = await read_data(self._api, self._pod["metadata"]["namespace"], kind, source["name"])
        if data is None:
            if source.get("optional"):
                return
            raise VolumeError(f'{kind[:-1]} "{source["name"]}" not found')
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            if item["key"] in data:
                self._write(path / item["path"], data[item["key"]], item.get("mode", mode))
            elif not source.get("optional"):
                raise VolumeError(f'{kind[:-1]} "{source["name"]}" has no key {item["key"]!r}')

    async def _projected(self, path: Path, projected: Json) -> None:
        mode = projected.get("defaultMode", 0o644)
        for source in projected.get("sources", []):
            if "configMap" in source:
                await self._data(path, "configmaps", source["configMap"], mode)
            elif "secret" in source:
                await self._data(path, "secrets", source["secret"], mode)
            elif "downwardAPI" in source:
                self._downward(path, {"defaultMode": mode, **source["downwardAPI"]})
            elif "serviceAccountToken" in source:
                token = await self._token(source["serviceAccountToken"])
                self._write(path / source["serviceAccountToken"]["path"], token, self._token_mode())
            else:
                raise VolumeError(f"the test node cannot project {', '.join(source)}")

    async def _token(self, source: Json) -> bytes:
        meta, spec = self._pod["metadata"], self._pod["spec"]
        seconds = source.get("expirationSeconds", 3600)
        body: Json = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [source["audience"]] if source.get("audience") else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
            },
        }
        account = spec.get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
        try:
            answer = await self._api.post(path, body)
        except ApiError as error:
            raise VolumeError(f"token of serviceaccount {account}: {error}") from None
        self.renew_after = min(self.renew_after or seconds, seconds * 0.8)
        return str(answer["status"]["token"]).encode()

    def _token_mode(self) -> int:
        """A token is private unless a user other than root must read it."""
        context = self._pod["spec"].get("securityContext") or {}
        return 0o600 if not context and self._group is None else 0o644

    def _downward(self, path: Path, source: Json) -> None:
        for item in source.get("items", []):
            if "fieldRef" in item:
                value = field(self._pod, item["fieldRef"]["fieldPath"])
            else:
                value = resource_field(self._pod, item["resourceFieldRef"], {})
            self._write(path / item["path"], value.encode(), item.get("mode", source.get("defaultMode", 0o644)))

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        """Write aside and rename, so that a reader never sees half a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.new")
        aside.write_bytes(content)
        if self._group is not None:
            os.chown(aside, 0, self._group)
            mode |= 0o040
        aside.chmod(mode)
        aside.rename(path)

    def _give_to_group(self, path: Path) -> None:
        if self._group is not None:
            os.chown(path, -1, self._group)
            path.chmod(path.stat().st_mode | 0o2070)


async def read_data(api: Api, namespace: str, kind: str, name: str) -> dict[str, bytes] | None:
    """Return the data of a ConfigMap or Secret by key, None if there is none of that name."""
    try:
        item = await api.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    if kind == "secrets":
        return {key: base64.b64decode(value) for key, value in item.get("data", {}).items()}
    data = {key: str(value).encode() for key, value in item.get("data", {}).items()}
    return data | {key: base64.b64decode(value) for key, value in item.get("binaryData", {}).items()}


def _host_path(source: Json) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "FileOrCreate":
        path.touch()
    elif kind in ("", "DirectoryOrCreate"):
        if not path.exists():
            path.mkdir(parents=True)
    elif (kind == "Directory" and not path.is_dir()) or (kind == "File" and not path.is_file()):
        raise VolumeError(f"hostPath type check failed: {path} is not a {kind.lower()}")
    return path
