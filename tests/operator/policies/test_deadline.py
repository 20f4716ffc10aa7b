"""The deadline follows the spec, and counts running time only."""

from datetime import timedelta

from tests.operator.fakes import NOW, FakeCluster, job, text
from unfreeze_api.contracts.status import FineTuneJobStatus, StateSeconds
from unfreeze_operator.policies import deadline


def built(view):
    cluster = FakeCluster()
    cluster.step(view)
    return cluster


def test_a_changed_deadline_reaches_the_job():
    cluster = built(job())
    assert deadline.check(cluster.context(job())) is None
    cluster.step(job(activeDeadlineSeconds=50))
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 50
    cluster.step(job())
    assert "activeDeadlineSeconds" not in cluster.job()["spec"]


def test_a_deadline_counts_running_time_only():
    view = job(activeDeadlineSeconds=100)
    cluster = built(view)
    cluster.job()["status"] = {"startTime": text(NOW)}
    cluster.step(job(activeDeadlineSeconds=100, suspend=True), after=30)
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 70
    cluster.job()["status"] = {}
    cluster.step(view, after=1000)
    assert cluster.job()["spec"] | {"suspend": False, "activeDeadlineSeconds": 70} == cluster.job()["spec"]


def test_no_suspended_time_counts_however_often():
    """Four runs of 20 s, an hour of suspension after each."""
    view, asleep = job(activeDeadlineSeconds=100), job(activeDeadlineSeconds=100, suspend=True)
    cluster = built(view)
    for cycle in range(4):
        begin = cycle * 3620
        cluster.job()["status"] = {"startTime": text(NOW + timedelta(seconds=begin))}
        cluster.step(asleep, after=begin + 20)
        assert cluster.job()["spec"]["activeDeadlineSeconds"] == 80 - 20 * cycle
        cluster.job()["status"] = {}
        cluster.step(asleep, after=begin + 1800)
        cluster.step(view, after=begin + 3620)
        assert cluster.job()["spec"] | {"suspend": False} == cluster.job()["spec"]
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 20


def test_a_start_that_is_kept_over_a_suspend_ends_no_job():
    """Up to Kubernetes 1.35: the Job controller looks at the deadline first, and then writes the new start, or fails to."""
    view = job(activeDeadlineSeconds=100)
    cluster = built(view)
    cluster.job()["status"] = {"startTime": text(NOW)}
    cluster.step(job(activeDeadlineSeconds=100, suspend=True), after=30)
    cluster.step(view, after=1000.5)
    assert cluster.job()["spec"] | {"suspend": False, "activeDeadlineSeconds": 1070} == cluster.job()["spec"]
    assert deadline.check(cluster.context(view, after=1001)) is None
    cluster.job()["status"] = {"startTime": text(NOW + timedelta(seconds=1001))}
    cluster.step(view, after=1002)
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 70


def test_a_job_that_is_recreated_while_suspended_has_what_is_left():
    cluster = built(job(activeDeadlineSeconds=100))
    cluster.job()["status"] = {"startTime": text(NOW)}
    cluster.step(job(activeDeadlineSeconds=100, suspend=True), after=30)
    changed = job(activeDeadlineSeconds=100, suspend=True, nodes=2)
    cluster.step(changed, after=500)
    assert (cluster.job()["spec"]["completions"], cluster.job()["spec"]["activeDeadlineSeconds"]) == (2, 70)


def test_what_ran_before_kueue_took_the_nodes_away_counts():
    view = job(activeDeadlineSeconds=100, queue="team-a")
    cluster = built(view)
    spent = StateSeconds(state="Queued", since=NOW, pending=7, starting=10, training=20, queued=500)
    cluster.job()["spec"]["suspend"] = True
    cluster.step(view, FineTuneJobStatus(state_seconds=spent))
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 70
    cluster.job()["spec"]["suspend"] = False
    assert deadline.check(cluster.context(view)) is None, "the Job carries it on"


def test_what_ran_before_a_suspend_in_a_queue_counts():
    """There the Job goes, and what it carried with it."""
    cluster = FakeCluster()
    spent = StateSeconds(state="Suspended", since=NOW, training=40, suspended=1000)
    cluster.step(job(activeDeadlineSeconds=100, queue="team-a"), FineTuneJobStatus(state_seconds=spent))
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 60
