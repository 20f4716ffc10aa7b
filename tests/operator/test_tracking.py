"""Credentials of trackers reach the trainer's environment from their Secret, and stand nowhere else."""

import base64
import json
from pathlib import Path

import pytest

from tests.operator.fakes import IMAGE, FakeCluster, job
from tests.operator.world import spec
from unfreeze_api.job import parse_spec
from unfreeze_operator.manifests.children import config_map, indexed_job, spec_hash
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.packing import unpack
from unfreeze_operator.objects.resources import GangNames
from unfreeze_operator.objects.views import fine_tune_job_view

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
    return indexed_job(view, made, IMAGE, Carried(), GangNames.of("job"))["spec"]["template"]["spec"]["containers"][0]


def taken(tracking):
    """Return the keys that are taken from Secrets: of which, and whether the pod waits for it."""
    made = container(tracking)
    assert "envFrom" not in made
    references = {
        v["name"]: v["valueFrom"]["secretKeyRef"] for v in made["env"] if "secretKeyRef" in v.get("valueFrom", {})
    }
    assert all(name == reference["key"] for name, reference in references.items())
    return {name: (reference["name"], not reference.get("optional")) for name, reference in references.items()}


def test_of_secrets_only_the_keys_that_are_known_become_environment():
    """LD_PRELOAD, PYTHONPATH and the like in a Secret of somebody's change nothing."""
    assert taken(TRACKING) == {
        "MLFLOW_TRACKING_TOKEN": ("mlflow-token", False),
        "MLFLOW_TRACKING_USERNAME": ("mlflow-token", False),
        "MLFLOW_TRACKING_PASSWORD": ("mlflow-token", False),
        "WANDB_API_KEY": ("wandb-key", True),
        "WANDB_BASE_URL": ("wandb-key", False),
    }
    offline = {"wandb": {"mode": "Offline", "secretRef": {"name": "wandb-key"}}}
    assert taken(offline)["WANDB_API_KEY"] == ("wandb-key", False)


def test_a_variable_of_the_jobs_own_wins():
    view, _ = tracked(TRACKING)
    body = json.loads(unpack(view.spec))
    body["template"]["env"].append({"name": "WANDB_BASE_URL", "value": "http://own"})
    made = indexed_job(view, parse_spec(body), IMAGE, Carried(), GangNames.of("job"))["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert [v for v in made["env"] if v["name"] == "WANDB_BASE_URL"] == [
        {"name": "WANDB_BASE_URL", "value": "http://own"}
    ]


@pytest.mark.parametrize("tracking", [{"tensorBoard": {}}, {"wandb": {"mode": "Offline"}}])
def test_without_credentials_there_is_nothing_to_take(tracking):
    assert taken(tracking) == {}


def test_one_secret_for_both_is_taken_once():
    one = {name: tracker | {"secretRef": {"name": "trackers"}} for name, tracker in TRACKING.items()}
    assert {secret for secret, _ in taken(one).values()} == {"trackers"}


def test_job_json_names_trackers_and_no_secret():
    told = json.loads(config_map(*tracked(TRACKING), GangNames.of("job"))["data"]["job.json"])
    assert told["tracking"]["mlflow"] == {"uri": "http://mlflow:5000", "experiment": "ns"}
    assert told["tracking"]["wandb"] == {"project": "ns", "mode": "Online"}
    assert "mlflow-token" not in json.dumps(told)
    assert "wandb-key" not in json.dumps(told)


def test_trackers_changed_while_suspended_take_effect_and_others_are_not_disturbed():
    plain = job()
    assert spec_hash(*tracked(TRACKING)) != spec_hash(plain, FakeCluster().context(plain).spec)


@pytest.mark.cluster
def test_a_missing_secret_is_named_and_the_job_starts_when_it_is_there(operator, world):
    body = spec(fake={"holdAt": 1})
    body["tracking"] = {"wandb": {"secretRef": {"name": "wandb-key"}}}
    world.create(body=body)
    status = world.wait(lambda status: [one for one in status.get("waiting", ()) if one["reason"] == "ConfigError"])
    assert "wandb-key" in status["waiting"][0]["message"]
    token = {name: base64.b64encode(b"s3cret").decode() for name in ("WANDB_API_KEY", "LD_PRELOAD")}
    world.cluster.create(world.path("secrets"), {"metadata": {"name": "wandb-key"}, "data": token})
    world.wait(lambda status: status.get("progress", {}).get("step") == 1)
    (pod,) = world.children("pods")
    (pid,) = world.cluster.processes(world.namespace, pod["metadata"]["name"])
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"WANDB_API_KEY=s3cret" in environment
    assert b"LD_PRELOAD=s3cret" not in environment
    told = json.dumps([world.children("configmaps"), world.children("pods"), world.get()])
    assert "s3cret" not in told
    assert token["WANDB_API_KEY"] not in told
    world.go()
    world.wait_phase("Succeeded")
