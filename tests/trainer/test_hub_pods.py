"""Agents of two pods whose model lies at a hub: one commit for both, whatever moves meanwhile, and no token where models train."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import stores
from tests.hub import serve
from tests.trainer.processes import descendants
from tests.trainer.test_agents import Pods
from unfreeze_trainer.link import read_json
from unfreeze_trainer.runs.sources import FILE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TOKEN = "hf_planted0123456789"
WEIGHTS = bytes(range(256)) * 400


class HubPods(Pods):
    """Pods that have a cache each."""

    def __init__(self, folder: Path, hub):
        super().__init__(folder, told=str(folder / "worker"))
        self.environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
        for index in (0, 1):
            model = {"source": "hf://org/bert", "path": f"{self.cache(index)}/models--org--bert/snapshots/main"}
            job = self.job.model_copy(update={"model": self.job.model.model_copy(update=model)})
            (folder / f"job-{index}.json").write_text(job.to_json())

    def cache(self, index):
        return self.folder / f"sources-{index}"

    def begin(self, index):
        self.start(index, f"job-{index}.json")


def environment_of(pods, rank):
    """Return the environment of a worker, None while there is none."""
    return read_json(pods.folder / f"worker-{rank}")


@pytest.fixture
def hub():
    with serve() as served:
        served.valid_tokens = {TOKEN}
        yield served


@pytest.fixture
def pods(ranks, hub, tmp_path):
    made = HubPods(tmp_path, hub)
    yield made
    for process in made.processes.values():
        process.kill()
        process.join()


def test_both_pods_fetch_the_commit_that_pod_0_has_pinned(pods, hub, tmp_path):
    repository = hub.model("org/bert", {"config.json": b"{}", "model.safetensors": WEIGHTS}, token=TOKEN)
    first = repository.refs["main"]
    hub.drops["model.safetensors"] = 2  # the client waits a second before it goes on
    pods.begin(1)
    pods.until(lambda: pods.get(1, "/activity") == b"waiting for pod 0 to look the sources up")
    pods.begin(0)
    pods.until((tmp_path / "run" / FILE).exists)
    pods.until(lambda: pods.progress().total_bytes == len(WEIGHTS) + 2)
    assert pods.get(0, "/activity").startswith(b"fetching hf://org/bert: ")
    repository.commit({"config.json": b"{}", "model.safetensors": b"another training"})
    for index in (0, 1):
        environment = pods.until(lambda index=index: environment_of(pods, index))
        (snapshot,) = (pods.cache(index) / "models--org--bert" / "snapshots").iterdir()
        assert snapshot.name == first
        assert (snapshot / "model.safetensors").read_bytes() == WEIGHTS
        below = descendants(pods.processes[index].pid)
        assert not any(TOKEN.encode() in Path(f"/proc/{pid}/environ").read_bytes() for pid in below)
        told = json.loads(Path(environment["UNFREEZE_JOB"]).read_text())
        assert told["model"]["path"] == str(snapshot)
    for root, _, names in os.walk(tmp_path):
        assert not [name for name in names if TOKEN.encode() in Path(root, name).read_bytes()], root


def test_a_pod_that_dies_before_all_has_come_is_replaced_by_one_with_the_same_commit(pods, hub, tmp_path):
    repository = hub.model("org/bert", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    first = repository.refs["main"]
    hub.drops["model.safetensors"] = 100
    pods.begin(0)
    pods.until((tmp_path / "run" / FILE).exists)
    pods.processes[0].kill()
    pods.processes[0].join()
    repository.commit({"config.json": b"{}", "model.safetensors": b"another training"})
    hub.drops.clear()
    pods.begin(0)
    snapshots = pods.cache(0) / "models--org--bert" / "snapshots"
    pods.until((snapshots / first / "model.safetensors").exists)
    assert (snapshots / first / "model.safetensors").read_bytes() == WEIGHTS
    assert [folder.name for folder in snapshots.iterdir()] == [first]


def test_what_another_try_may_mend_is_tried_again(pods, hub):
    hub.model("org/bert", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    hub.sizes["model.safetensors"] = 1 << 60
    pods.begin(0)
    assert pods.wait(0) == 1
    assert (pods.message(0).outcome, pods.message(0).reason) == ("Failed", "DiskFull")


@pytest.mark.parametrize(("gated", "reason"), [(False, "NotFound"), ("hf_of_somebody_else", "Gated")])
def test_what_the_hub_refuses_ends_the_job_and_leaves_nothing(pods, hub, tmp_path, gated, reason):
    hub.model("org/bert" if gated else "org/other", {"config.json": b"{}", "model.safetensors": WEIGHTS}, gated=gated)
    pods.begin(0)
    assert pods.wait(0) == 2
    told = pods.message(0)
    assert (told.outcome, told.reason) == ("Failed", reason)
    assert told.message.startswith("spec.model.source hf://org/bert: ")
    assert TOKEN not in (tmp_path / "termination-0").read_text()
    assert not [file.name for file in (tmp_path / "run").glob("[!.]*") if file.name != FILE]


def test_what_trains_has_no_credentials_of_a_store(ranks, tmp_path):
    with stores.s3(tmp_path / "s3") as url:
        stores.put(stores.s3_client(url), "models", {"bert/config.json": b"{}", "bert/model.safetensors": WEIGHTS})
        pods = Pods(tmp_path, told=str(tmp_path / "worker"))
        pods.environment |= stores.environment_of("s3", url)
        model = {"source": "s3://models/bert", "path": str(tmp_path / "sources/s3--models/snapshots/listed/bert")}
        alone = {"distribution": pods.job.distribution.model_copy(update={"num_nodes": 1})}
        job = pods.job.model_copy(update={"model": pods.job.model.model_copy(update=model), **alone})
        (tmp_path / "job-0.json").write_text(job.to_json())
        try:
            pods.start(0, "job-0.json")
            environment = pods.until(lambda: environment_of(pods, 0))
            below = descendants(pods.processes[0].pid)
            assert not any(stores.SECRET.encode() in Path(f"/proc/{pid}/environ").read_bytes() for pid in below)
        finally:
            for process in pods.processes.values():
                process.kill()
                process.join()
    assert stores.SECRET not in environment.values()
    revision = json.loads((tmp_path / "run" / FILE).read_text())["sources"]["s3://models/bert"]["revision"]
    path = tmp_path / "sources/s3--models/snapshots" / revision / "bert"
    assert json.loads(Path(environment["UNFREEZE_JOB"]).read_text())["model"]["path"] == str(path)
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or stores.SECRET.encode() not in file.read_bytes(), file
