"""The end of a job on a real control plane: deadline, what becomes of its pods, time to live."""

import pytest

from tests.operator.world import CHILDREN

pytestmark = pytest.mark.cluster


def test_the_deadline_ends_a_job(operator, world):
    world.create(fake={"holdAt": 1}, activeDeadlineSeconds=1)
    end = world.wait_phase("Failed")
    assert end["failure"]["reason"] == "DeadlineExceeded"


@pytest.mark.parametrize(("policy", "left"), [("Running", 1), ("None", 1), ("All", 0)])
def test_what_becomes_of_the_pods_of_a_finished_job(operator, world, policy, left):
    """The second pod fails the job while the first still trains."""
    fail = {"index": 1, "at": 0, "exitCode": 2, "reason": "InvalidData", "message": "no label"}
    world.create(nodes=2, fake={"holdAt": 1, "fail": fail}, cleanPodPolicy=policy)
    end = world.wait_phase("Failed")
    assert end["failure"]["reason"] == "InvalidData"
    pods = world.wait_children("pods", left)
    assert [pod["status"]["phase"] for pod in pods] == ["Failed"] * left
    world.wait_children("jobs", left)
    for pod in pods:
        world.cluster.kubectl("logs", "-n", world.namespace, pod["metadata"]["name"])
    assert world.status() == end


def test_a_finished_job_is_deleted_in_time_with_its_children(operator, world):
    world.create(ttlSecondsAfterFinished=0)
    world.cluster.wait_for(world.path("finetunejobs", "job"), lambda job: job == {}, what="deleted")
    for plural in CHILDREN:
        world.wait_children(plural, 0)


def test_a_ttl_that_is_set_later_counts(operator, world):
    world.create()
    world.wait_phase("Succeeded")
    world.patch({"runPolicy": {"ttlSecondsAfterFinished": 1}})
    world.cluster.wait_for(world.path("finetunejobs", "job"), lambda job: job == {}, what="deleted")


def test_children_of_a_finished_job_are_not_made_again(operator, world):
    world.create()
    world.wait_phase("Succeeded")
    world.delete("jobs", "job-train")
    world.wait_children("jobs", 0)
    world.patch({"runPolicy": {"ttlSecondsAfterFinished": 3600}})
    world.wait(lambda s: s.get("observedGeneration") == 2)
    assert world.children("jobs") == []
    assert world.status()["phase"] == "Succeeded"
