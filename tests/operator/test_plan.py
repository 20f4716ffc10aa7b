"""plan(): converges from any state, is idempotent, and touches nothing that is not the job's own."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from unfreeze_api.status import FineTuneJobStatus

from tests.operator.fakes import NOW, FakeCluster, job, pod, text
from unfreeze_operator.actions import Create, Delete
from unfreeze_operator.children import config_map, indexed_job, service
from unfreeze_operator.plan import plan
from unfreeze_operator.resources import CONFIG_MAPS, FINE_TUNE_JOBS, JOBS, PODS, SERVICES

KINDS = (CONFIG_MAPS, SERVICES, JOBS)


def run(cluster, view, rounds=6, status=None):
    """Plan until nothing is left to do; return how many rounds had something."""
    for count in range(rounds):
        if not cluster.step(view, status).actions:
            return count
    raise AssertionError("the plan does not come to rest")


def built(view):
    cluster = FakeCluster()
    run(cluster, view)
    return cluster


@settings(deadline=None)
@given(
    present=st.sets(st.sampled_from(KINDS)),
    was_suspended=st.booleans(),
    suspend=st.booleans(),
    changed=st.booleans(),
    drifted=st.booleans(),
    deadline=st.none() | st.integers(10, 1000),
)
def test_it_converges_from_any_subset_of_children(present, was_suspended, suspend, changed, drifted, deadline):
    cluster = built(job(suspend=was_suspended, nodes=2 if changed else 1))
    for kind in set(KINDS) - present:
        for raw in cluster.of(kind):
            del cluster.objects[kind, raw["metadata"]["name"]]
    if drifted:
        for raw in cluster.of(CONFIG_MAPS):
            raw["data"]["job.json"] = "{}"
        for raw in cluster.of(SERVICES):
            raw["spec"]["selector"] = {"other": "pods"}
    view = job(suspend=suspend, activeDeadlineSeconds=deadline) if deadline else job(suspend=suspend)
    run(cluster, view)
    final = cluster.job()
    assert final["spec"]["suspend"] is suspend
    assert final["spec"]["parallelism"] == 1
    assert final["spec"].get("activeDeadlineSeconds") == deadline
    assert json.loads(cluster.of(CONFIG_MAPS)[0]["data"]["job.json"])["distribution"]["numNodes"] == 1
    assert cluster.of(SERVICES)[0]["spec"]["selector"]["unfreeze.dev/job-name"] == "job"


@settings(deadline=None)
@given(foreign=st.sets(st.sampled_from(KINDS), min_size=1), suspend=st.booleans())
def test_it_never_touches_what_another_job_owns(foreign, suspend):
    cluster = built(job(uid="earlier"))
    for kind in set(KINDS) - foreign:
        for raw in cluster.of(kind):
            del cluster.objects[kind, raw["metadata"]["name"]]
    made = plan(cluster.context(job(uid="later", suspend=suspend)))
    assert made.actions == ()
    assert made.status.phase in ("Pending", "Suspended")


@settings(deadline=None)
@given(
    nodes=st.integers(1, 3),
    queue=st.sampled_from(["", "team-a"]),
    pods=st.lists(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]), max_size=4),
    after=st.floats(0, 1e6),
)
def test_it_is_idempotent_in_its_status(nodes, queue, pods, after):
    view = job(nodes=nodes, queue=queue)
    cluster = built(view)
    owner = cluster.job()["metadata"]["uid"]
    for index, phase in enumerate(pods):
        code = {"Failed": 1, "Succeeded": 0}.get(phase)
        cluster.add(PODS, pod(index % nodes, phase, owner=owner, name=f"p{index}", code=code))
    first = plan(cluster.context(view, after=after)).status
    again = plan(cluster.context(view, first, after=after)).status
    assert again == first
    assert FineTuneJobStatus.model_validate_json(first.to_json()) == first


def test_the_job_comes_last():
    made = plan(FakeCluster().context(job()))
    assert [action.resource for action in made.actions] == [CONFIG_MAPS, SERVICES, JOBS]
    assert all(isinstance(action, Create) for action in made.actions)


def test_a_job_that_is_being_deleted_is_left_alone():
    view = job()
    cluster = FakeCluster()
    deleting = type(view)(**{name: getattr(view, name) for name in view.__dataclass_fields__} | {"deleting": True})
    assert plan(cluster.context(deleting)).actions == ()
    assert plan(cluster.context(deleting)).status is None


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
    run(cluster, changed)
    assert cluster.job()["spec"]["completions"] == 2


def test_another_image_of_the_operator_restarts_nothing():
    view = job()
    cluster = built(view)
    context = cluster.context(view)
    assert plan(type(context)(view, context.spec, context.status, context.children, NOW, "trainer:2")).actions == ()


def test_in_a_queue_the_queue_decides_when_to_start():
    view = job(queue="team-a")
    cluster = built(view)
    assert cluster.job()["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    cluster.job()["spec"]["suspend"] = True  # as Kueue's webhook does
    made = plan(cluster.context(view))
    assert made.actions == ()
    assert made.status.phase == "Queued"


def test_suspended_in_a_queue_there_is_no_job_to_admit():
    cluster = built(job(queue="team-a"))
    run(cluster, job(queue="team-a", suspend=True))
    assert cluster.of(JOBS) == []
    assert plan(cluster.context(job(queue="team-a", suspend=True))).status.phase == "Suspended"


def test_a_deadline_counts_running_time_only():
    view = job(activeDeadlineSeconds=100)
    cluster = built(view)
    cluster.job()["status"] = {"startTime": text(NOW)}
    cluster.step(job(activeDeadlineSeconds=100, suspend=True), after=30)
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 70
    cluster.job()["status"] = {}
    cluster.step(view, after=1000)
    assert cluster.job()["spec"] | {"suspend": False, "activeDeadlineSeconds": 70} == cluster.job()["spec"]


def test_ttl_wakes_up_exactly_and_deletes_the_job():
    view = job(ttlSecondsAfterFinished=60)
    done = FineTuneJobStatus(phase="Succeeded", completion_time=NOW, observed_generation=1)
    early = plan(FakeCluster().context(view, done, after=59))
    assert (early.actions, early.requeue_after) == ((), 1.0)
    (action,) = plan(FakeCluster().context(view, done, after=60)).actions
    assert (action.resource, action.view.uid) == (FINE_TUNE_JOBS, "u1")


def test_children_name_their_owner_and_copy_nothing_else():
    view = job(queue="team-a")
    context = FakeCluster().context(view)
    from unfreeze_operator.carried import Carried

    made = [config_map(view, context.spec), service(view), indexed_job(view, context.spec, "i", Carried())]
    for manifest in made:
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("u1", True, False)
        labels = dict(manifest["metadata"]["labels"])
        labels.pop("kueue.x-k8s.io/queue-name", None)
        assert labels == {"app.kubernetes.io/managed-by": "unfreeze-operator", "unfreeze.dev/job-name": "job"}
