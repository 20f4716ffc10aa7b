"""What changed while a job was suspended counts when it resumes."""

from dataclasses import replace

from tests.operator.fakes import FakeCluster, job, pod
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.actions import Create, Delete
from unfreeze_operator.objects.resources import JOBS, PODS
from unfreeze_operator.settings.options import TrainerImage


def built(view):
    cluster = FakeCluster()
    cluster.step(view)
    return cluster


def test_a_changed_spec_waits_for_the_pods_to_stop():
    cluster = built(job(suspend=True))
    old = cluster.job()["metadata"]["uid"]
    cluster.add(PODS, pod(owner=old))
    resumed = job(nodes=2, generation=2)
    assert not [a for a in cluster.step(resumed).actions if a.resource is JOBS]
    cluster.objects.pop((PODS, "job-0-running"))
    actions = [a for a in cluster.step(resumed).actions if a.resource is JOBS]
    assert [type(action) for action in actions] == [Delete, Create]
    assert cluster.job()["spec"]["completions"] == 2
    assert cluster.job()["spec"]["suspend"] is False


def test_a_change_that_was_missed_suspends_first():
    cluster = built(job())
    changed = job(nodes=2, generation=3)
    cluster.step(changed)
    assert cluster.job()["spec"]["suspend"] is True
    cluster.step(changed)
    assert cluster.job()["spec"]["completions"] == 2


def test_a_job_that_runs_and_is_moved_to_another_queue_gives_its_job_up():
    """Kueue starts a Job that it has admitted again as often as it is suspended, while its pods write their checkpoint."""
    cluster = built(job(queue="team-a"))
    old = cluster.job()["metadata"]["uid"]
    cluster.add(PODS, pod(owner=old))
    for moved in (job(queue="team-b"), job(), job(suspend=True, generation=2)):
        (action,) = (a for a in plan(cluster.context(moved)).actions if a.resource is JOBS)
        assert (type(action), action.last) == (Delete, True)
    outside = built(job())
    (action,) = (a for a in plan(outside.context(job(queue="team-a"))).actions if a.resource is JOBS)
    assert action.change["spec"]["suspend"] is True


def test_another_image_of_the_operator_restarts_nothing():
    cluster = built(job())
    assert plan(replace(cluster.context(job()), image=TrainerImage("trainer:2", ("registry",)))).actions == ()
