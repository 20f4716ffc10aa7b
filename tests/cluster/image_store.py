"""Images that a node mounts as volumes: pulled from a registry by digest, checked, unpacked and kept, as a kubelet's runtime does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_REFERENCE = re.compile(r"(?P<host>[^/]+)/(?P<name>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_WHITEOUT = ".wh."


class PullError(Exception):
    """An image cannot be pulled now (the node tries again)."""


class ImageStore:
    """The images of one node below ``folder``; ``mirrors`` says where the registry of a host's name is, as containerd's hosts.toml."""

    def __init__(self, folder: Path, mirrors: Mapping[str, str]) -> None:
        self._folder = folder
        self._mirrors = mirrors
        self._turn = asyncio.Lock()

    async def mounted(self, source: Json, tell: Callable[[str, str], None]) -> Path:
        """Return the folder with an image's files, of a pod's volume; ``tell`` takes reason and message of what a kubelet reports."""
        reference, policy = source["reference"], source.get("pullPolicy", "IfNotPresent")
        found = _REFERENCE.fullmatch(reference)
        if not found:
            raise PullError(f'image "{reference}": this node takes images by digest alone')
        place = self._folder / found["digest"].partition(":")[2]
        async with self._turn:
            if place.is_dir() and policy != "Always":
                tell("Pulled", f'Container image "{reference}" already present on machine')
                return place
            if policy == "Never":
                raise PullError(f'image "{reference}" is not present with pull policy of Never')
            if found["host"] not in self._mirrors:
                raise PullError(f'failed to pull image "{reference}": no registry {found["host"]}')
            tell("Pulling", f'Pulling image "{reference}"')
            url = f"{self._mirrors[found['host']]}/v2/{found['name']}"
            size = await asyncio.to_thread(self._pull, url, found["digest"], place)
            tell("Pulled", f'Successfully pulled image "{reference}". Image size: {size} bytes.')
        return place

    def _pull(self, url: str, digest: str, place: Path) -> int:
        """Unpack an image into a folder, and return how many bytes of layers came."""
        aside = place.with_name(f"{place.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        manifest = json.loads(_blob(f"{url}/manifests/{digest}", digest))
        if manifest.get("mediaType") not in _MANIFESTS:
            raise PullError(f"{url}: a manifest of {manifest.get('mediaType')} is none that this node takes")
        size = 0
        for layer in manifest["layers"]:
            packed = aside.with_name(f"{aside.name}.layer")
            packed.write_bytes(_blob(f"{url}/blobs/{layer['digest']}", layer["digest"]))
            size += packed.stat().st_size
            with tarfile.open(packed) as archive:
                if any(Path(name).name.startswith(_WHITEOUT) for name in archive.getnames()):
                    raise PullError(f"{url}: layers that take files away are not for this node")
                archive.extractall(aside, filter="data")
            packed.unlink()
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
        return size


def _blob(url: str, digest: str) -> bytes:
    """Return content that has a digest."""
    request = urllib.request.Request(url, headers={"Accept": ", ".join(_MANIFESTS)})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            content: bytes = answer.read()
    except (OSError, urllib.error.URLError) as error:
        raise PullError(f"failed to pull {url}: {error}") from None
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise PullError(f"failed to pull {url}: its content has another digest")
    return content
