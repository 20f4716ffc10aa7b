"""Credentials of trackers reach the trainer's environment from their Secret, and stand nowhere else."""

import base64
import json
from pathlib import Path

import pytest

from tests.operator.fakes import IMAGE, FakeCluster, job
from tests.operator.world import spec
from unfreeze_operator.carried import Carried
from unfreeze_operator.children import config_map, indexed_job, spec_hash
from unfreeze_operator.views import fine_tune_job_view

TRACKING = {
    "mlflow": {"uri": "http://mlflow:5000", "secretRef": {"name": "mlflow-token"}},
    "wandb": {"secretRef": {"name": "wandb-key"}},
}


def tracked(tracking):
    meta = {
        "name": "job",
        "namespace": "ns",
        "uid": "u1",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    view = fine_tune_job_view({"metadata": meta, "spec": {**spec(), "tracking": tracking}})
    return view, FakeCluster().context(view).spec


def container(tracking):
    view, made = tracked(tracking)
    return indexed_job(view, made, IMAGE, Carried())["spec"]["template"]["spec"]["containers"][0]


def test_secrets_become_environment_and_the_operators_own_variables_win():
    made = container(TRACKING)
    assert made["envFrom"] == [{"secretRef": {"name": "mlflow-token"}}, {"secretRef": {"name": "wandb-key"}}]
    assert "UNFREEZE_JOB" in {variable["name"] for variable in made["env"]}  # env wins over envFrom


@pytest.mark.parametrize("tracking", [{"tensorBoard": {}}, {"wandb": {"mode": "Offline"}}])
def test_without_credentials_there_is_nothing_to_take(tracking):
    assert "envFrom" not in container(tracking)


def test_one_secret_for_both_is_taken_once():
    one = {name: tracker | {"secretRef": {"name": "trackers"}} for name, tracker in TRACKING.items()}
    assert container(one)["envFrom"] == [{"secretRef": {"name": "trackers"}}]


def test_job_json_names_trackers_and_no_secret():
    told = json.loads(config_map(*tracked(TRACKING))["data"]["job.json"])
    assert told["tracking"]["mlflow"] == {"uri": "http://mlflow:5000", "experiment": "ns"}
    assert told["tracking"]["wandb"] == {"project": "ns", "mode": "Online"}
    assert "mlflow-token" not in json.dumps(told)
    assert "wandb-key" not in json.dumps(told)


def test_trackers_changed_while_suspended_take_effect_and_others_are_not_disturbed():
    plain = job()
    assert spec_hash(*tracked(TRACKING)) != spec_hash(plain, FakeCluster().context(plain).spec)


@pytest.mark.cluster
def test_a_missing_secret_is_named_and_the_job_goes_on_when_it_is_there(operator, world):
    body = spec(fake={"holdAt": 1})
    body["tracking"] = {"mlflow": {"uri": "http://mlflow:5000", "secretRef": {"name": "mlflow-token"}}}
    world.create(body=body)
    (waiting,) = world.wait(lambda status: status.get("waiting"))["waiting"]
    assert waiting["reason"] == "ConfigError"
    assert "mlflow-token" in waiting["message"]
    token = {"MLFLOW_TRACKING_TOKEN": base64.b64encode(b"s3cret").decode()}
    world.cluster.create(world.path("secrets"), {"metadata": {"name": "mlflow-token"}, "data": token})
    world.wait(lambda status: status.get("progress", {}).get("step") == 1)
    (pod,) = world.children("pods")
    (pid,) = world.cluster.processes(world.namespace, pod["metadata"]["name"])
    assert b"MLFLOW_TRACKING_TOKEN=s3cret" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    told = json.dumps([world.children("configmaps"), world.children("pods"), world.get()])
    assert "s3cret" not in told
    assert token["MLFLOW_TRACKING_TOKEN"] not in told
    world.go()
    world.wait_phase("Succeeded")
