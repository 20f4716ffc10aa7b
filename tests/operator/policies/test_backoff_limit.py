"""A pod that stops without having been asked to is a failure; one that was asked to stop is not."""

from tests.operator.fakes import FakeCluster, deleted, disrupted, job, pod
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import PODS
from unfreeze_operator.policies import backoff_limit


def world(view, *pods, failed=0):
    cluster = FakeCluster()
    cluster.step(view)
    raw = cluster.job()
    raw["status"] = {"failed": failed}
    for number, manifest in enumerate(pods):
        manifest["metadata"] |= {"name": f"p{number}"}
        manifest["metadata"]["ownerReferences"][0]["uid"] = raw["metadata"]["uid"]
        cluster.add(PODS, manifest)
    return cluster


def stop():
    return pod(0, "Failed", code=143)


def test_unasked_stops_end_the_job_beyond_the_limit():
    view = job(backoffLimit=1)
    assert backoff_limit.check(world(view, stop()).context(view)) is None
    made = plan(world(view, stop(), stop()).context(view, after=5))
    assert (made.status.phase, made.status.failure.reason) == ("Failed", "UnexpectedStop")
    assert made.status.completion_time is not None
    assert made.actions == (), "the end is written before the Job hears of it"


def test_they_add_to_what_the_job_controller_counts():
    view = job(backoffLimit=2)
    assert backoff_limit.check(world(view, stop(), failed=1).context(view)) is None
    assert backoff_limit.check(world(view, stop(), failed=2).context(view)) is not None
    assert backoff_limit.check(world(view, failed=3).context(view)) is None, "that is the Job controller's own business"


def test_what_was_asked_for_is_free():
    view = job(backoffLimit=0)
    assert backoff_limit.check(world(view, deleted(stop()), disrupted(stop())).context(view)) is None
    suspended = job(backoffLimit=0, suspend=True)
    assert backoff_limit.check(world(suspended, stop()).context(suspended)) is None
