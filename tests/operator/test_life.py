"""The life of a job on a real control plane: run, tell, succeed, be repaired, be refused."""

import pytest

from tests.operator.world import condition, spec, until
from unfreeze_operator.settings.network import ISOLATED, policy_spec

pytestmark = pytest.mark.cluster


def test_the_whole_way(operator, world):
    decided = {
        "type": "Baseline",
        "answer": "No",
        "message": "a classical model is as good",
        "step": 0,
        "warning": True,
    }
    world.create(nodes=2, fake={"holdAt": 5, "decisions": [decided]})
    held = world.wait(lambda status: status.get("progress", {}).get("step") == 5)
    assert held["phase"] == "Running"
    assert held["nodes"]["desired"] == 2
    assert condition(held, "Running")["reason"] == "PodsRunning"
    assert held["decisions"] == [decided]
    assert held["summary"] == {"progress": "50% (2/2)", "metric": "accuracy 0.500", "eta": "5s", "checkpoint": ""}
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["results"] == {"test.accuracy": 0.93}
    assert end["progress"]["percent"] == 100
    assert end["phases"][0]["name"] == "head"
    assert end["checkpoint"]["step"] == 10
    assert end["startTime"] <= end["completionTime"]
    assert condition(end, "Complete")["status"] == "True"
    assert condition(end, "Running")["status"] == "False"
    assert "failure" not in end
    assert end["decisions"] == [decided]
    until(lambda: world.events()[2:], "the events")
    assert sorted(world.events()) == ["Decided", "Running", "Succeeded"]


def test_status_moves_during_the_training(operator, world):
    world.create(fake={"steps": 40, "stepSeconds": 0.05})
    seen = set()

    def gather(status):
        seen.add(status.get("progress", {}).get("percent"))
        return status.get("phase") == "Succeeded"

    world.wait(gather)
    assert len(seen) >= 3, seen


def test_a_training_that_had_to_start_over_says_so_in_status_and_events(operator, world):
    lost = {"step": 0, "message": "step-4: weights.safetensors has 7 of 99 bytes: the training started over"}
    world.create(fake={"recovery": lost})
    told = condition(world.wait_phase("Succeeded"), "CheckpointBroken")
    assert (told["status"], told["reason"], told["message"]) == ("True", "StartedOver", lost["message"])
    until(lambda: "CheckpointBroken" in world.events(), "the event")


def test_accelerators_are_counted(operator, world):
    body = spec(fake={"holdAt": 1})
    body["distribution"] |= {"resourcesPerNode": {"limits": {"nvidia.com/gpu": 2}}}
    world.create(body=body)
    world.wait(lambda s: s.get("progress", {}).get("step") == 1)
    world.suspend(True)
    first = world.wait_phase("Suspended")["acceleratorSeconds"]
    world.suspend(False)
    world.wait(lambda s: s.get("phase") == "Running")
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["acceleratorSeconds"] >= first
    assert end["acceleratorSeconds"] % 2 == 0


def test_drift_is_repaired_without_touching_the_pods(operator, world):
    world.create(fake={"holdAt": 1})
    world.wait(lambda s: s.get("progress", {}).get("step") == 1)
    (pod,) = world.children("pods")
    original = world.cluster.get(world.path("configmaps", "job-job"))["data"]["job.json"]
    world.cluster.request("PATCH", world.path("configmaps", "job-job"), {"data": {"job.json": "{}"}})
    world.cluster.wait_for(
        world.path("configmaps", "job-job"), lambda found: found["data"]["job.json"] == original, what="repaired"
    )
    world.delete("services", "job-trainers")
    world.wait_children("services", 1)
    assert [found["metadata"]["uid"] for found in world.children("pods")] == [pod["metadata"]["uid"]]


def test_the_network_policy_is_stored_as_it_was_written_and_put_right_when_changed(operator, world):
    world.create(fake={"holdAt": 1})
    world.wait_phase("Running")
    (policy,) = world.children("networkpolicies")
    assert policy["spec"] == policy_spec(policy["metadata"]["labels"], ISOLATED)
    change = {"spec": {"podSelector": {"matchLabels": {"other": "pods"}}, "egress": [{}]}}
    assert world.cluster.request("PATCH", world.path("networkpolicies", "job-trainers"), change)[0] == 200
    put_right = world.cluster.wait_for(
        world.path("networkpolicies", "job-trainers"), lambda found: found["spec"] == policy["spec"], what="put right"
    )
    assert put_right["metadata"]["uid"] == policy["metadata"]["uid"]


def test_a_foreign_object_of_the_same_name_is_reported_and_left_alone(operator, world):
    service = {"metadata": {"name": "job-trainers"}, "spec": {"ports": [{"port": 80}]}}
    world.cluster.create(world.path("services"), service)
    # What has the job's own name is in nobody's way.
    closed = {"metadata": {"name": "job"}, "spec": {"podSelector": {"matchLabels": {"app": "mine"}}}}
    world.cluster.create(world.path("networkpolicies"), closed)
    world.create()
    status = world.wait(lambda s: condition(s, "Running").get("reason") == "NameTaken")
    assert status["phase"] == "Pending"
    assert "does not belong to this job" in condition(status, "Running")["message"]
    until(lambda: "NameTaken" in world.events(), "the event")
    world.delete("services", "job-trainers")
    world.wait_phase("Succeeded")
    assert (
        world.cluster.get(world.path("networkpolicies", "job"))["spec"]["podSelector"] == closed["spec"]["podSelector"]
    )


@pytest.fixture
def choosy_cluster(operator_cluster, world):
    """A cluster whose own policy refuses Jobs of the priority class `refused`."""
    group = "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    expression = "!has(object.spec.template.spec.priorityClassName)"
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": expression, "message": "no priorities here"}],
    }
    operator_cluster.create(f"{group}/validatingadmissionpolicies", {"metadata": {"name": "choosy"}, "spec": policy})
    binding = {"policyName": "choosy", "validationActions": ["Deny"]}
    operator_cluster.create(
        f"{group}/validatingadmissionpolicybindings", {"metadata": {"name": "choosy"}, "spec": binding}
    )
    container = {"name": "c", "image": "i"}
    template = {"spec": {"containers": [container], "restartPolicy": "Never", "priorityClassName": "any"}}
    probe = {"metadata": {"name": "probe"}, "spec": {"suspend": True, "template": template}}
    path = f"{world.path('jobs')}?dryRun=All"
    until(lambda: operator_cluster.request("POST", path, probe)[0] == 422, "the policy")
    yield
    for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        operator_cluster.request("DELETE", f"{group}/{kind}/choosy")


def test_a_template_that_the_cluster_refuses_is_a_failure_that_can_be_mended(operator, world, choosy_cluster):
    body = spec()
    body["template"]["priorityClassName"] = "any"
    world.create(body=body)
    status = world.wait_phase("Failed")
    assert status["failure"]["reason"] == "Refused"
    assert "no priorities here" in status["failure"]["message"]
    world.suspend(True)
    world.patch({"template": {"priorityClassName": None}})
    world.wait_phase("Suspended")
    world.suspend(False)
    end = world.wait_phase("Succeeded")
    assert condition(end, "Stalled")["status"] == "False"
