"""Models at a hub or in a registry, on a cluster: a gang, or a node, fetches one once, and the next job takes what lies there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.registry import Registry
from tests.e2e.jobs import finished, manifest
from tests.hub import Hub
from tests.operator.world import Json, World
from tests.trainer.jobs import bert_folder
from unfreeze_api.contracts.progress import SOURCES_FOLDER

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
SOURCE = "hf://org/bert"
HOSTILE = (
    "echo planted > config.json",
    "ln -sf /tmp/x model.safetensors",
    "rm config.json",
    "mkdir more",
    "touch ../../more",
)


def test_a_gang_fetches_once_and_the_next_job_fetches_nothing(world: World, hub: Hub, tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "bert")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    commit = hub.model("org/bert", files).refs["main"]
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    world.cluster.create(world.path("persistentvolumeclaims"), {"metadata": {"name": "cache"}, "spec": claim})

    first, seen = _ended(world, "first", 2)
    assert hub.sent["model.safetensors"] == len(files["model.safetensors"]), "the other pod waited for it"
    assert _base(world, "first") == commit
    assert [one for one in seen if one.get("progress", {}).get("totalBytes")] or first["progress"]
    policy = world.cluster.get(world.path("networkpolicies", "first-trainers"))
    assert {"port": 443, "protocol": "TCP"} in [
        port for rule in policy["spec"]["egress"] for port in rule.get("ports", ())
    ]

    before = hub.sent.copy()
    _ended(world, "next", 1)
    assert hub.sent == before
    assert _base(world, "next") == commit
    hub.model("org/bert", files | {"README.md": b"newer"})
    said = _as_a_hostile_trainer(world, "next")
    assert said.count("Read-only file system") == len(HOSTILE), said

    _ended(world, "offline", 1, offline=True)
    assert hub.sent == before
    assert _base(world, "offline") == commit, "and not that which the hub has now"
    egress = world.cluster.get(world.path("networkpolicies", "offline-trainers"))["spec"]["egress"]
    assert 443 not in [port["port"] for rule in egress for port in rule.get("ports", ())]


def test_a_model_in_an_image_is_pulled_once_by_a_node(world: World, registry: Registry, tmp_path: Path) -> None:
    """The second job there is started with no byte of the image, nor a request, over the network."""
    folder = bert_folder(tmp_path / "bert")
    files = {f"models/bert/{file.name}": file.read_bytes() for file in folder.iterdir()}
    digest = registry.push(files)
    source = f"oci://registry.example/models/bert@{digest}/models/bert"
    node = {"nodeSelector": {"kubernetes.io/hostname": "node-0"}}
    sent = []
    for name in ("first", "second"):
        job = _small(name, 1, model={"source": source}, template=node)
        world.create(name, job["spec"])
        status = finished(world, name, [])
        assert status["phase"] == "Succeeded", status
        assert json.loads((world.folder / name / "report.json").read_text())["base"]["source"] == source
        sent.append(registry.sent.copy())
    assert sent[0].keys() == {digest, *_layers(registry, digest)}
    assert all(sent[0][blob] == len(registry.content[blob][1]) for blob in sent[0]), "each of them once"
    assert sent[1] == sent[0]
    policy = world.cluster.get(world.path("networkpolicies", "second-trainers"))
    assert 443 not in [port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", ())]
    pod = world.cluster.get(world.path("jobs", "second-train"))["spec"]["template"]["spec"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"].startswith("image-")]
    said = _as_a_hostile_trainer(world, "second", f"{mount['mountPath']}/models/bert")
    assert said.count("Read-only file system") == len(HOSTILE), said


def _layers(registry: Registry, digest: str) -> list[str]:
    return [layer["digest"] for layer in json.loads(registry.content[digest][1])["layers"]]


def _as_a_hostile_trainer(
    world: World, name: str, folder: str = f"{SOURCES_FOLDER}/models--org--bert/snapshots/*"
) -> str:
    """Return what a pod says whose trainer is another program, all else as the job's pods have it."""
    pod = world.cluster.get(world.path("jobs", f"{name}-train"))["spec"]["template"]["spec"]
    script = [f"cd {folder}", *HOSTILE]
    pod["containers"][0] |= {"command": ["sh", "-c", "; ".join(script)]}
    world.cluster.create(world.path("pods"), {"metadata": {"name": "hostile"}, "spec": pod})
    ended = world.cluster.wait_for(
        world.path("pods", "hostile"),
        lambda found: found["status"].get("phase") in ("Succeeded", "Failed"),
        what="ended",
    )
    for beside in ended["status"].get("initContainerStatuses", ()):
        assert beside["state"]["terminated"]["exitCode"] == 0
    return world.cluster.kubectl("logs", "-n", world.namespace, "hostile", "-c", "trainer")


def _ended(world: World, name: str, nodes: int, **sources: object) -> tuple[Json, list[Json]]:
    job = _small(name, nodes, model={"source": SOURCE}, sources=sources | {"cacheClaim": "cache"})
    seen: list[Json] = []
    world.create(name, job["spec"])
    status = finished(world, name, seen)
    assert status["phase"] == "Succeeded", status
    return status, seen


def _small(name: str, nodes: int, **changes: Json) -> Json:
    job = manifest(name, strategy={"type": "FullFineTuning"}, **changes)
    job["spec"]["training"] = {"epochs": 1, "batchSize": 16}
    job["spec"]["distribution"]["numNodes"] = nodes
    return job


def _base(world: World, name: str) -> str:
    report = json.loads((world.folder / name / "report.json").read_text())
    return str(report["base"]["revision"])
