"""Suspend and resume on a real control plane: nothing is lost, and what changed meanwhile counts."""

import json
from datetime import UTC, datetime

import pytest

from tests.cluster.binaries import OLDEST
from tests.operator.world import condition, spec, unschedulable, until

pytestmark = pytest.mark.cluster

LEFT = 15
"""Seconds of a deadline in which a job surely comes to run again."""


def test_suspend_and_resume_keep_progress_and_tell_the_truth(operator, world):
    world.create(nodes=2, fake={"holdAt": 5})
    before = world.wait(lambda s: s.get("progress", {}).get("step") == 5)
    world.suspend(True)
    suspended = world.wait_phase("Suspended")
    assert not any(pod["status"]["phase"] == "Running" for pod in world.children("pods"))
    assert condition(suspended, "Suspended")["status"] == "True"
    assert condition(suspended, "Running")["status"] == "False"
    assert suspended["progress"]["step"] == 5
    assert "etaSeconds" not in suspended["progress"]
    assert suspended["checkpoint"]["step"] == 5
    assert suspended["nodes"]["ready"] == 0
    assert suspended["restarts"]["pods"] == 0

    world.suspend(False)
    resumed = world.wait(lambda s: s.get("phase") != "Suspended")
    assert resumed["phase"] in ("Pending", "Running")
    assert condition(resumed, "Suspended")["status"] == "False"
    assert resumed["progress"]["step"] == 5
    running = world.wait_phase("Running")
    assert running["progress"]["step"] >= 5
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["startTime"] == before["startTime"]
    assert end["restarts"]["pods"] == 0
    world.wait_events("Running", "Suspended", "Resumed", "Running", "Succeeded")


def test_many_suspends_do_not_use_up_the_backoff_limit(operator, world):
    world.create(fake={"holdAt": 1}, backoffLimit=0)
    for _ in range(3):
        world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step", 0) >= 1)
        world.suspend(True)
        world.wait_phase("Suspended")
        world.suspend(False)
        world.wait(lambda s: s.get("phase") != "Suspended")
    world.go()
    world.wait_phase("Succeeded")


def test_suspended_before_its_pods_have_nodes_it_resumes_later(operator, world):
    body = spec(nodes=2)
    unschedulable(body)
    world.create(body=body)
    for _ in range(2):
        world.wait(lambda s: len(s.get("waiting", [])) == 2)
        world.suspend(True)
        suspended = world.wait_phase("Suspended")
        assert "waiting" not in suspended
        assert "failure" not in suspended
        world.wait_children("pods", 0)
        world.suspend(False)
    world.wait(lambda s: len(s.get("waiting", [])) == 2)
    world.suspend(True)
    world.wait_phase("Suspended")
    world.patch({"template": {"nodeSelector": None}})
    world.suspend(False)
    assert "failure" not in world.wait_phase("Succeeded")


@pytest.mark.skipif(not OLDEST, reason="from Kubernetes 1.36 on a Job that is suspended has no start")
def test_a_suspend_that_is_longer_than_the_deadline_ends_no_job(operator, world):
    """The Job controller looks at the deadline of a Job that resumes by its earlier start."""
    world.create(fake={"holdAt": 1})
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 1)
    world.suspend(True)
    world.wait_phase("Suspended")
    (job,) = world.children("jobs")
    ran = json.loads(job["metadata"]["annotations"]["unfreeze.dev/carried"])["activeSeconds"]
    world.patch({"runPolicy": {"activeDeadlineSeconds": ran + LEFT}})
    path = world.path("jobs", job["metadata"]["name"])
    world.cluster.wait_for(
        path, lambda job: job["spec"].get("activeDeadlineSeconds") == LEFT, what="what is left of it"
    )
    begun = datetime.fromisoformat(job["status"]["startTime"])
    until(
        lambda: (datetime.now(UTC) - begun).total_seconds() > LEFT + 1, "more than that is over since the first start"
    )
    world.suspend(False)
    world.wait(lambda s: s.get("phase") == "Running")
    world.patch({"runPolicy": {"activeDeadlineSeconds": None}})
    world.go()
    assert "failure" not in world.wait_phase("Succeeded")


def test_a_job_that_is_made_suspended_starts_when_resumed(operator, world):
    world.create(suspend=True)
    status = world.wait_phase("Suspended")
    assert "startTime" not in status
    assert world.wait_children("jobs", 1)[0]["spec"]["suspend"] is True
    assert world.children("pods") == []
    world.suspend(False)
    world.wait_phase("Succeeded")


def test_what_changed_while_suspended_counts_after_resume(operator, world):
    world.create(fake={"holdAt": 2}, nodes=1)
    world.wait(lambda s: s.get("progress", {}).get("step") == 2)
    world.suspend(True)
    world.wait_phase("Suspended")
    limits = {"requests": {"cpu": "100m"}}
    world.patch({"distribution": {"numNodes": 2, "resourcesPerNode": limits}, "template": {"labels": {"team": "a"}}})
    world.suspend(False)
    running = world.wait(lambda s: s.get("phase") == "Running" and s["nodes"]["desired"] == 2)
    assert running["progress"]["step"] == 2
    pods = world.wait_children("pods", 2)
    assert {pod["metadata"]["labels"]["team"] for pod in pods} == {"a"}
    assert pods[0]["spec"]["containers"][0]["resources"] == limits
    (config,) = world.children("configmaps")
    assert '"numNodes": 2' in config["data"]["job.json"]
    world.go()
    world.wait_phase("Succeeded")


def test_each_cycle_of_suspend_and_resume_takes_up_its_changes(operator, world):
    """Nodes, resources and template there and back again, with the state right after each step."""
    world.create(nodes=1, fake={"holdAt": 2}, backoffLimit=0)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 2)
    for nodes, cpu, team in ((2, "100m", "a"), (1, "200m", "b"), (2, "300m", "c")):
        world.suspend(True)
        suspended = world.wait_phase("Suspended")
        assert condition(suspended, "Suspended")["status"] == "True"
        assert condition(suspended, "Running")["reason"] == "Suspended"
        assert (suspended["nodes"]["ready"], suspended["progress"]["step"]) == (0, 2)
        resources = {"requests": {"cpu": cpu}}
        world.patch({"distribution": {"numNodes": nodes, "resourcesPerNode": resources}})
        world.patch({"template": {"labels": {"team": team}}})
        changed = world.wait(lambda s, nodes=nodes: s["nodes"]["desired"] == nodes)
        assert changed["phase"] == "Suspended"

        world.suspend(False)
        resumed = world.wait(lambda s: s.get("phase") != "Suspended")
        assert resumed["phase"] in ("Pending", "Running")
        assert condition(resumed, "Suspended")["status"] == "False"
        running = world.wait(lambda s, nodes=nodes: s.get("phase") == "Running" and s["nodes"]["ready"] == nodes)
        assert condition(running, "Running")["message"] == f"{nodes} pod{'s' if nodes > 1 else ''} running"
        assert running["progress"]["step"] == 2
        pods = [pod for pod in world.children("pods") if pod["status"]["phase"] == "Running"]
        assert len(pods) == nodes
        assert {pod["metadata"]["labels"]["team"] for pod in pods} == {team}
        assert all(pod["spec"]["containers"][0]["resources"] == resources for pod in pods)
    world.go()
    end = world.wait_phase("Succeeded")
    assert "failure" not in end
    assert end["restarts"]["pods"] == 0
