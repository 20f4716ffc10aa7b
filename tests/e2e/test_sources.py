"""A model at a hub, on a cluster: a gang fetches it once into a claim of its namespace, and the next job takes what lies there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


def _as_a_hostile_trainer(world: World, name: str) -> str:
    """Return what a pod says whose trainer is another program, all else as the job's pods have it."""
    pod = world.cluster.get(world.path("jobs", f"{name}-train"))["spec"]["template"]["spec"]
    script = [f"cd {SOURCES_FOLDER}/models--org--bert/snapshots/*", *HOSTILE]
    pod["containers"][0] |= {"command": ["sh", "-c", "; ".join(script)]}
    world.cluster.create(world.path("pods"), {"metadata": {"name": "hostile"}, "spec": pod})
    ended = world.cluster.wait_for(
        world.path("pods", "hostile"),
        lambda found: found["status"].get("phase") in ("Succeeded", "Failed"),
        what="ended",
    )
    assert ended["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    return world.cluster.kubectl("logs", "-n", world.namespace, "hostile", "-c", "trainer")


def _ended(world: World, name: str, nodes: int, **sources: object) -> tuple[Json, list[Json]]:
    sources |= {"cacheClaim": "cache"}
    job = manifest(name, model={"source": SOURCE}, strategy={"type": "FullFineTuning"}, sources=sources)
    job["spec"]["training"] = {"epochs": 1, "batchSize": 16}
    job["spec"]["distribution"]["numNodes"] = nodes
    seen: list[Json] = []
    world.create(name, job["spec"])
    status = finished(world, name, seen)
    assert status["phase"] == "Succeeded", status
    return status, seen


def _base(world: World, name: str) -> str:
    report = json.loads((world.folder / name / "report.json").read_text())
    return str(report["base"]["revision"])
