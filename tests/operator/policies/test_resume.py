"""A job that is no longer to be suspended resumes, unless a queue decides."""

from tests.operator.fakes import FakeCluster, job, pod
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.carried import accelerator_seconds
from unfreeze_operator.objects.resources import PODS
from unfreeze_operator.objects.views import job_view, pod_view
from unfreeze_operator.policies import resume


def test_the_job_is_resumed():
    cluster = FakeCluster()
    cluster.step(job(suspend=True))
    cluster.step(job())
    assert cluster.job()["spec"]["suspend"] is False
    assert resume.check(cluster.context(job())) is None


def test_restarts_that_pods_at_hand_show_are_not_carried_too():
    cluster = FakeCluster()
    cluster.step(job(suspend=True))
    owner = cluster.job()["metadata"]["uid"]
    for number in range(2):
        cluster.add(PODS, pod(0, "Failed", owner=owner, name=f"p{number}", code=1))
    status = FineTuneJobStatus.model_validate({"restarts": {"pods": 1, "inPlace": 0}})
    cluster.step(job(), status)
    assert '"podRestarts":0' in job_view(cluster.job()).carried
    assert plan(cluster.context(job(), status)).status.restarts.pods == 1


def test_pods_that_have_ended_hold_nothing_any_more():
    ended = pod_view(pod(0, "Failed", code=1) | {"metadata": pod()["metadata"]})
    assert accelerator_seconds([ended], 8, ended.created) == 0


def test_in_a_queue_the_queue_decides_when_to_start():
    view = job(queue="team-a")
    cluster = FakeCluster()
    cluster.step(view)
    assert cluster.job()["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    cluster.job()["spec"]["suspend"] = True  # as Kueue's webhook does
    made = plan(cluster.context(view))
    assert (made.actions, made.status.phase) == ((), "Queued")
