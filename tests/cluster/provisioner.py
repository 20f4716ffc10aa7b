"""The default StorageClass: gives each claim a folder of its own, and removes it when the claim is gone."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

from tests.cluster.api import Api, ApiError, Store

Json = dict[str, Any]

PROVISIONER = "test.cluster/folder"
CLASS: Json = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": PROVISIONER,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}


class Provisioner:
    """Watches claims and volumes; ``folder`` holds the volumes' folders."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self._changes: asyncio.Queue[Json] = asyncio.Queue()
        self._stores = [
            Store(api, "/api/v1/persistentvolumeclaims", self._changed),
            Store(api, "/api/v1/persistentvolumes", self._changed),
        ]

    async def run(self) -> None:
        await self._api.post("/apis/storage.k8s.io/v1/storageclasses", CLASS)
        watches = [asyncio.ensure_future(store.run()) for store in self._stores]
        try:
            while True:
                item = await self._changes.get()
                with contextlib.suppress(ApiError):  # made or deleted already
                    await (self._provide(item) if "namespace" in item["metadata"] else self._release(item))
        finally:
            for watch in watches:
                watch.cancel()

    def _changed(self, kind: str, item: Json) -> None:
        if kind != "DELETED" and item["spec"].get("storageClassName") == CLASS["metadata"]["name"]:
            self._changes.put_nowait(item)

    async def _provide(self, claim: Json) -> None:
        """Make the volume of a claim that has none; the controllers bind it."""
        meta, spec = claim["metadata"], claim["spec"]
        if spec.get("volumeName") or "deletionTimestamp" in meta:
            return
        name = f"pvc-{meta['uid']}"
        volume = {
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": CLASS["metadata"]["name"],
                "hostPath": {"path": str(self._folder / name), "type": "DirectoryOrCreate"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta["namespace"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
            },
        }
        await self._api.post("/api/v1/persistentvolumes", volume)

    async def _release(self, volume: Json) -> None:
        annotations = volume["metadata"].get("annotations", {})
        if volume.get("status", {}).get("phase") != "Released" or "deletionTimestamp" in volume["metadata"]:
            return
        if annotations.get("pv.kubernetes.io/provisioned-by") == PROVISIONER:
            await asyncio.to_thread(shutil.rmtree, volume["spec"]["hostPath"]["path"], ignore_errors=True)
            await self._api.delete(f"/api/v1/persistentvolumes/{volume['metadata']['name']}")
