"""Pods that fail, stop, or are taken away on a real control plane: what is tried again, what it counts, what is said of it."""

import pytest

from tests.operator.world import condition, ended, spec, unschedulable, until

pytestmark = pytest.mark.cluster


def test_an_error_of_the_job_itself_fails_it_at_once(operator, world):
    fail = {"index": 1, "at": 0, "exitCode": 2, "reason": "InvalidData", "message": "column label is missing"}
    world.create(nodes=2, fake={"holdAt": 1, "fail": fail}, backoffLimit=5)
    end = world.wait_phase("Failed")
    failure = end["failure"]
    assert (failure["reason"], failure["message"]) == ("InvalidData", "column label is missing")
    assert (failure["rank"], failure["exitCode"]) == (1, 2)
    assert failure["pod"].startswith("job-train-1-")
    assert failure["node"].startswith("node-")
    assert failure["logTail"] == "Traceback: fake"
    assert end["restarts"]["pods"] == 0
    assert condition(end, "Failed")["reason"] == "InvalidData"
    assert condition(end, "Stalled")["status"] == "True"
    until(lambda: world.events()[-1:] == ["Failed"], "the event")


def test_a_crash_is_retried_and_its_reason_is_shown_meanwhile(operator, world):
    fail = {"at": 3, "exitCode": 1, "silent": True}
    world.create(fake={"holdAt": 5, "fail": fail}, backoffLimit=1)
    held = world.wait(lambda s: s.get("progress", {}).get("step") == 5 and s["restarts"]["pods"] == 1)
    assert held["failure"]["exitCode"] == 1
    assert held["failure"]["logTail"] == "last line of the log"
    assert held["phase"] == "Running"
    world.go()
    end = world.wait_phase("Succeeded")
    assert "failure" not in end
    assert end["restarts"]["pods"] == 1


def test_the_backoff_limit_ends_the_retries(operator, world):
    world.create(fake={"fail": {"at": 1, "exitCode": 1, "times": 9}}, backoffLimit=1)
    end = world.wait_phase("Failed")
    assert end["restarts"]["pods"] == 1
    assert end["failure"]["reason"] == "WorkerFailed"
    assert len(world.children("pods")) == 2


def test_a_pod_that_stops_unasked_is_not_retried_without_end(operator, world):
    world.create(fake={"fail": {"at": 1, "exitCode": 143, "reason": "Stopped", "times": 99}}, backoffLimit=1)
    end = world.wait_phase("Failed")
    assert end["failure"]["reason"] == "UnexpectedStop"
    assert end["failure"]["exitCode"] == 143
    assert end["restarts"]["pods"] >= 1
    world.cluster.wait_for(world.path("jobs", "job-train"), ended, what="the Job has ended")
    assert world.children("jobs")[0]["status"].get("failed", 0) == 0, "the Job controller counts no 143"
    assert {pod["status"]["phase"] for pod in world.children("pods")} == {"Failed"}
    assert world.status() == end


def evict(world, name):
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    code, answer = world.cluster.request("POST", world.path("pods", f"{name}/eviction"), eviction)
    assert code == 201, answer


def delete(world, name):
    world.delete("pods", name)


@pytest.mark.parametrize(("away", "code"), [(evict, 143), (evict, 1), (delete, 143)])
def test_a_pod_that_is_taken_away_costs_nothing(operator, world, away, code):
    """As a drain does it, also with a trainer that does not end as it should; and as a person does it."""
    world.create(nodes=2, fake={"holdAt": 1, "stopCode": code}, backoffLimit=0)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 1)
    first = next(pod for pod in world.children("pods") if pod["metadata"]["name"].startswith("job-train-1-"))
    away(world, first["metadata"]["name"])
    uid = first["metadata"]["uid"]
    until(lambda: replaced(world, uid), "another pod runs in its place")
    world.go()
    assert "failure" not in world.wait_phase("Succeeded")


def replaced(world, uid):
    pods = [pod for pod in world.children("pods") if pod["status"]["phase"] == "Running"]
    return len(pods) == 2 and uid not in [pod["metadata"]["uid"] for pod in pods]


def test_a_pod_that_is_deleted_before_it_ran_costs_nothing(operator, world):
    """The cluster's own collector would fail it, which the Job controller counts."""
    body = spec()
    unschedulable(body)
    world.create(body=body)
    (waiting,) = world.wait(lambda s: s.get("waiting"))["waiting"]
    world.delete("pods", waiting["pod"])
    status = world.wait(lambda s: s.get("waiting", [waiting])[0]["pod"] != waiting["pod"])
    assert "failure" not in status
    assert world.children("jobs")[0]["status"].get("failed", 0) == 0


def test_preemption_costs_nothing(operator, world, operator_cluster):
    body = spec(nodes=2, fake={"holdAt": 1, "stopCode": 1})
    body["distribution"] |= {"resourcesPerNode": {"limits": {"nvidia.com/gpu": 8}}}
    world.create(body=body)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 1)
    first = {pod["metadata"]["uid"] for pod in world.children("pods")}
    urgent = {"metadata": {"name": "urgent"}, "value": 1000}
    operator_cluster.create("/apis/scheduling.k8s.io/v1/priorityclasses", urgent)
    try:
        limits = {"limits": {"nvidia.com/gpu": "8"}}
        container = {"name": "c", "image": "any", "command": ["sleep", "1000"], "resources": limits}
        safe = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container["securityContext"] = safe
        pod = {"metadata": {"name": "preemptor"}, "spec": {"containers": [container], "priorityClassName": "urgent"}}
        pod["spec"]["terminationGracePeriodSeconds"] = 0
        # The API server's own admission learns of the class a moment later.
        until(lambda: operator_cluster.request("POST", world.path("pods"), pod)[0] == 201, "the pod is let in")
        path = world.path("pods", "preemptor")
        operator_cluster.wait_for(path, lambda found: found["status"]["phase"] == "Running", what="preemption")
        operator_cluster.request("DELETE", path)
        until(lambda: len(running := uids(world, "Running")) == 2 and running != first, "another pod runs in its place")
        world.go()
        assert "failure" not in world.wait_phase("Succeeded")
    finally:
        operator_cluster.request("DELETE", "/apis/scheduling.k8s.io/v1/priorityclasses/urgent")


def uids(world, phase):
    return {pod["metadata"]["uid"] for pod in world.children("pods") if pod["status"]["phase"] == phase}


def test_out_of_memory_is_called_so(operator, world, operator_cluster):
    world.create(fake={"holdAt": 1})
    world.wait(lambda s: s.get("progress", {}).get("step") == 1)
    (pod,) = world.children("pods")
    operator_cluster.kill_out_of_memory(world.namespace, pod["metadata"]["name"], "trainer")
    end = world.wait_phase("Failed")
    assert (end["failure"]["reason"], end["failure"]["exitCode"]) == ("OutOfMemory", 137)
