"""What users of other operators complain about and no other test answers yet; docs/faults.md has the whole list."""

import pytest

from tests.cluster.cluster import REPOSITORY, ClusterError
from tests.cluster.proxy import Answer
from tests.operator.world import condition, spec, until

pytestmark = pytest.mark.cluster


def apply(world, body, *, server_side=True):
    """Apply the whole manifest by server-side apply, as Argo CD and Flux do."""
    manifest = {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "job", "namespace": world.namespace},
        "spec": body,
    }
    return world.cluster.kubectl("apply", f"--server-side={str(server_side).lower()}", "--filename=-", stdin=manifest)


def test_suspend_works_with_server_side_apply_of_the_whole_manifest(operator, world):
    body = spec(fake={"holdAt": 2})
    apply(world, body)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 2)
    for suspend in (True, False, True, False):
        body["runPolicy"]["suspend"] = suspend
        apply(world, body)
        world.wait(lambda s, suspend=suspend: (s.get("phase") == "Suspended") == suspend)
    apply(world, body)
    assert world.get()["metadata"]["generation"] == 5, "the same manifest again changes nothing"
    world.go()
    world.wait_phase("Succeeded")


def test_a_change_that_is_not_allowed_is_refused_as_a_whole(operator, world):
    body = spec(fake={"holdAt": 2})
    apply(world, body)
    world.wait(lambda s: s.get("progress", {}).get("step") == 2)
    before = world.get()["spec"]
    changed = spec(fake={"holdAt": 2}, suspend=True)
    changed["strategy"] = {"type": "FeatureExtraction"}
    for server_side in (True, False):
        with pytest.raises(ClusterError, match="strategy cannot"):
            apply(world, changed, server_side=server_side)
        assert world.get()["spec"] == before
    assert world.status()["phase"] == "Running"


def test_scripts_can_wait_for_a_job(operator, world):
    world.create()
    told = world.cluster.kubectl("wait", "ftj/job", "-n", world.namespace, "--for=condition=Complete", "--timeout=60s")
    assert "condition met" in told
    world.create("bad", fake={"fail": {"at": 0, "exitCode": 2}})
    world.cluster.kubectl("wait", "ftj/bad", "-n", world.namespace, "--for=condition=Failed", "--timeout=60s")


def test_the_operator_may_be_there_before_the_crd(faulty_operator, proxy, world):
    """Whatever order a chart is installed in."""
    absent = proxy.inject(Answer(404, "NotFound"), "list", times=3)
    faulty_operator.start()
    assert len(absent.hit) == 3
    assert "is the CRD installed?" in faulty_operator.log.read_text()
    world.create()
    world.wait_phase("Succeeded")


def test_nothing_needs_a_webhook_or_keeps_from_being_deleted(operator, world):
    for path in (REPOSITORY / "operator/deploy").glob("*.yaml"):
        assert "WebhookConfiguration" not in path.read_text()
    world.create(fake={"holdAt": 1})
    world.wait_phase("Running")
    assert "finalizers" not in world.get()["metadata"]
    for plural in ("jobs", "services", "configmaps"):
        assert all("finalizers" not in child["metadata"] for child in world.children(plural)), plural
    operator.stop()
    world.delete("finetunejobs", "job")
    until(lambda: not world.list("finetunejobs"), "the job is gone without an operator")


def test_a_failure_stands_in_the_status_with_pod_rank_node_and_exit_code(operator, world):
    fail = {"index": 1, "at": 0, "exitCode": 1, "message": "it broke"}
    world.create(nodes=2, fake={"holdAt": 1, "fail": fail}, backoffLimit=1)
    failure = world.wait(lambda s: s.get("failure"))["failure"]
    assert {"reason", "message", "pod", "rank", "node", "exitCode", "logTail"} <= set(failure)
    status = world.wait(
        lambda s: s.get("phase") == "Running" and s["restarts"]["pods"] == 1 and s["nodes"]["ready"] == 2
    )
    assert condition(status, "Running")["status"] == "True"
    spent = world.wait(lambda s: s["stateSeconds"]["state"] == "Training")["stateSeconds"]
    assert set(spent) == {"state", "since", "pending", "queued", "starting", "training", "recovering", "suspended"}
    world.go()
    end = world.wait_phase("Succeeded")
    assert "state" not in end["stateSeconds"]
