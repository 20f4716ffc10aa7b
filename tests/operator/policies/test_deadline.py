"""The deadline follows the spec, and counts running time only."""

from tests.operator.fakes import NOW, FakeCluster, job, text
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
