"""The operator as a process: killed, restarted, away, small, quiet, and sick when a part of it is."""

import copy
import random

import pytest

from tests.operator.process import CRD, established
from tests.operator.world import CHILDREN, condition, spec, until

pytestmark = pytest.mark.cluster

SEED = 20240


def exists(world, plural, name):
    return world.cluster.request("GET", world.path(plural, name))[0] == 200


def pods(world, name):
    selector = f"{world.path('pods')}?labelSelector=unfreeze.dev/job-name={name}"
    return world.cluster.get(selector)["items"]


def progress(world, name):
    return world.status(name).get("progress", {}).get("step", 0)


MOMENTS = {
    "created": lambda *_: True,
    "config-map": lambda world, name: exists(world, "configmaps", f"{name}-job"),
    "service": lambda world, name: exists(world, "services", f"{name}-trainers"),
    "child-job": lambda world, name: exists(world, "jobs", f"{name}-train"),
    "status": lambda world, name: world.status(name).get("phase"),
    "pods": lambda world, name: len(pods(world, name)) == 2,
    "running": lambda world, name: world.status(name).get("phase") == "Running",
    "stepping": lambda world, name: progress(world, name) >= 2,
    "holding": lambda world, name: progress(world, name) == 5,
    "ended": lambda world, name: (world.go(name), exists(world, "jobs", f"{name}-train") and complete(world, name))[1],
}


def complete(world, name):
    return "completionTime" in world.cluster.get(world.path("jobs", f"{name}-train")).get("status", {})


@pytest.mark.timeout(600)
def test_killed_at_ten_moments_of_a_jobs_life(lone_operator, world):
    names = list(MOMENTS)
    random.Random(SEED).shuffle(names)
    lone_operator.start()
    for name in names:
        world.create(name, nodes=2, fake={"holdAt": 5, "stepSeconds": 0.1})
        until(lambda name=name: MOMENTS[name](world, name), name)
        lone_operator.kill()
        lone_operator.start()
    for name in names:
        until(lambda name=name: (world.folder / name).exists(), f"{name} runs")
        world.go(name)
    for name in names:
        end = world.wait_phase("Succeeded", name)
        assert end["results"] == {"test.accuracy": 0.93}, name
        assert end["restarts"] == {"inPlace": 0, "pods": 0}, name
        assert len(pods(world, name)) == 2, name
    assert len(world.children("jobs")) == len(world.children("services")) == len(world.children("configmaps")) == 10
    told = [
        (e["regarding"]["name"], e["reason"]) for e in world.list("events") if e["regarding"]["kind"] == "FineTuneJob"
    ]
    assert len(told) == len(set(told)), "each event is told once"


def test_the_outcome_is_known_when_the_operator_was_away(lone_operator, world):
    lone_operator.start()
    world.create(fake={"holdAt": 5})
    world.wait(lambda s: s.get("progress", {}).get("step") == 5)
    lone_operator.kill()
    world.go()
    world.cluster.wait_for(
        world.path("jobs", "job-train"), lambda job: "completionTime" in job["status"], what="complete"
    )
    lone_operator.start()
    end = world.wait_phase("Succeeded")
    assert end["results"] == {"test.accuracy": 0.93}
    assert end["progress"]["percent"] == 100


def test_a_time_to_live_that_ran_out_while_the_operator_was_away(lone_operator, world):
    lone_operator.start()
    for name in ("job", "other"):
        world.create(name, ttlSecondsAfterFinished=3600)
        world.wait_phase("Succeeded", name)
    lone_operator.kill()
    world.patch({"runPolicy": {"ttlSecondsAfterFinished": 0}})
    lone_operator.start()
    world.cluster.wait_for(world.path("finetunejobs", "job"), lambda job: job == {}, what="deleted")
    assert world.status("other")["phase"] == "Succeeded"


def test_children_are_collected_while_the_operator_is_away(lone_operator, world):
    lone_operator.start()
    world.create(fake={"holdAt": 1})
    world.wait(lambda s: s.get("phase") == "Running")
    lone_operator.kill()
    world.delete("finetunejobs", "job")
    for plural in CHILDREN:
        world.wait_children(plural, 0)
    lone_operator.start()
    assert world.children("jobs") == []
    assert lone_operator.metric('unfreeze_jobs{namespace="' + world.namespace + '",phase="Running"}') is None


def test_deletion_collects_all_children(operator, world):
    world.create(nodes=2, fake={"holdAt": 1})
    world.wait_phase("Running")
    world.delete("finetunejobs", "job")
    for plural in CHILDREN:
        world.wait_children(plural, 0)
    assert operator.metric(f'unfreeze_job_progress_ratio{{job_name="job",namespace="{world.namespace}"}}') is None


def test_a_job_made_again_under_its_name_has_children_of_its_own(operator, world):
    world.create(fake={"holdAt": 1})
    world.wait(lambda s: s.get("progress", {}).get("step") == 1)
    (old,) = world.children("pods")
    world.delete("finetunejobs", "job")
    made = world.create(fake={"holdAt": 1})
    status = world.wait(lambda s: s.get("phase") == "Running")
    assert "failure" not in status
    new = [pod for pod in world.children("pods") if "deletionTimestamp" not in pod["metadata"]]
    assert [pod["metadata"]["uid"] for pod in new] != [old["metadata"]["uid"]]
    for plural in set(CHILDREN) - {"pods"}:
        (child,) = world.children(plural)
        assert child["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    world.go()
    world.wait_phase("Succeeded")


def test_nothing_is_written_when_nothing_changes(lone_operator, world):
    lone_operator.start()
    world.create(fake={"holdAt": 5})
    world.wait(lambda s: s.get("progress", {}).get("step") == 5 and s["nodes"]["ready"] == 1)
    before = until(lambda: quiet(lone_operator, world), "the status rests")
    lone_operator.stop()
    lone_operator.start()
    reconciles = "unfreeze_reconcile_duration_seconds_count"
    until(lambda: (lone_operator.metric(reconciles) or 0) >= 1, "a reconcile after the restart")
    count = lone_operator.metric(reconciles)
    change = {"metadata": {"annotations": {"unfreeze.dev/carried": "{}"}}}  # a difference that means nothing
    world.cluster.request("PATCH", world.path("jobs", "job-train"), change)
    until(lambda: (lone_operator.metric(reconciles) or 0) > count, "a reconcile after the change")
    assert world.get()["metadata"]["resourceVersion"] == before
    assert lone_operator.metric("unfreeze_status_writes_total") == 0


def quiet(operator, world):
    """Return the resourceVersion once a pull of the progress has brought nothing new."""
    version = world.get()["metadata"]["resourceVersion"]
    count = operator.metric("unfreeze_progress_pulls_total")
    until(lambda: operator.metric("unfreeze_progress_pulls_total") >= count + 3, "three pulls")
    return version if world.get()["metadata"]["resourceVersion"] == version else None


def test_small_and_without_torch(operator, world):
    world.create()
    world.wait_phase("Succeeded")
    assert operator.memory_mib() < 100
    assert not operator.loaded("torch")


def test_metrics_tell_of_jobs(operator, world):
    world.create(fake={"holdAt": 5})
    world.wait(lambda s: s.get("progress", {}).get("step") == 5)
    labels = f'{{job_name="job",namespace="{world.namespace}"}}'
    assert operator.metric(f'unfreeze_jobs{{namespace="{world.namespace}",phase="Running"}}') == 1
    assert operator.metric(f"unfreeze_job_progress_ratio{labels}") == 0.5
    assert operator.metric(f"unfreeze_job_samples_per_second{labels}") == 100
    rate = f'unfreeze_job_learning_rate{{block="head",job_name="job",namespace="{world.namespace}"}}'
    until(lambda: operator.metric(rate) == 1e-3, "the learning rate")
    assert operator.get("/healthz")[0] == 200
    world.go()
    world.wait_phase("Succeeded")


def test_a_status_field_that_the_crd_does_not_know_is_complained_about_aloud(operator, world):
    schema = world.cluster.get(CRD)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    old = copy.deepcopy(schema)
    del old["properties"]["status"]["properties"]["nodes"]
    before = operator.metric("unfreeze_reconcile_errors_total")
    try:
        set_schema(world.cluster, old)
        until(lambda: "nodes" not in published(world.cluster), "the older schema")
        world.create()
        until(lambda: operator.metric("unfreeze_reconcile_errors_total") > before, "an error")
        assert "status.nodes" in operator.log.read_text()
    finally:
        set_schema(world.cluster, schema)
    world.wait_phase("Succeeded")


def published(cluster):
    """Return the status fields of the schema that the API server has put into effect."""
    schemas = cluster.get("/openapi/v3/apis/unfreeze.dev/v1alpha1")["components"]["schemas"]
    return schemas["dev.unfreeze.v1alpha1.FineTuneJob"]["properties"]["status"]["properties"]


def test_an_object_of_an_older_schema_is_called_invalid(operator, world):
    crd = world.cluster.get(CRD)
    strict = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    set_schema(world.cluster, {**strict, "properties": {**strict["properties"], "spec": loose}})
    body = spec()
    body["task"]["type"] = "Juggling"
    until(lambda: accepted(world, body), "the looser schema")
    set_schema(world.cluster, strict)
    status = world.wait(lambda s: s.get("phase") == "Failed")
    assert status["failure"]["reason"] == "InvalidSpec"
    assert "spec.task.type" in status["failure"]["message"]
    assert condition(status, "Stalled")["status"] == "True"
    assert world.children("jobs") == []


def set_schema(cluster, schema):
    patch = {"spec": {"versions": [{**cluster.get(CRD)["spec"]["versions"][0], "schema": {"openAPIV3Schema": schema}}]}}
    assert cluster.request("PATCH", CRD, patch)[0] == 200
    cluster.wait_for(CRD, established)


def accepted(world, body):
    manifest = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}, "spec": body}
    return world.cluster.request("POST", world.path("finetunejobs"), manifest)[0] == 201


def test_a_term_signal_ends_it_in_good_order(lone_operator):
    lone_operator.start()
    assert lone_operator.stop() == 0


def test_it_can_look_after_one_namespace_alone(lone_operator, world):
    lone_operator.namespaces = (world.namespace,)
    lone_operator.start()
    world.create()
    world.wait_phase("Succeeded")
