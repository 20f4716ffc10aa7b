"""plan(): converges from any state, is idempotent, and touches nothing that is not the job's own."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.operator.fakes import FakeCluster, job, pod
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.actions import Create, steps
from unfreeze_operator.objects.resources import CONFIG_MAPS, JOBS, NETWORK_POLICIES, PODS, SERVICES

KINDS = (CONFIG_MAPS, SERVICES, NETWORK_POLICIES, JOBS)


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


@given(
    present=st.sets(st.sampled_from(KINDS)),
    was_suspended=st.booleans(),
    suspend=st.booleans(),
    changed=st.booleans(),
    drifted=st.booleans(),
    deadline=st.none() | st.integers(10, 1000),
)
def test_it_converges_from_any_subset_of_children(*, present, was_suspended, suspend, changed, drifted, deadline):
    cluster = built(job(suspend=was_suspended, nodes=2 if changed else 1))
    for kind in set(KINDS) - present:
        for raw in cluster.of(kind):
            del cluster.objects[kind, raw["metadata"]["name"]]
    if drifted:
        for raw in cluster.of(CONFIG_MAPS):
            raw["data"]["job.json"] = "{}"
        for raw in cluster.of(SERVICES):
            raw["spec"]["selector"] = {"other": "pods"}
        for raw in cluster.of(NETWORK_POLICIES):
            raw["spec"] = {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "ingress": [{}]}
    view = job(suspend=suspend, activeDeadlineSeconds=deadline) if deadline else job(suspend=suspend)
    run(cluster, view)
    final = cluster.job()
    assert final["spec"]["suspend"] is suspend
    assert final["spec"]["parallelism"] == 1
    assert final["spec"].get("activeDeadlineSeconds") == deadline
    assert json.loads(cluster.of(CONFIG_MAPS)[0]["data"]["job.json"])["distribution"]["numNodes"] == 1
    assert cluster.of(SERVICES)[0]["spec"]["selector"]["unfreeze.dev/job-name"] == "job"
    assert list(cluster.of(NETWORK_POLICIES)[0]["spec"]["podSelector"]) == ["matchLabels"]


@given(foreign=st.sets(st.sampled_from(KINDS), min_size=1), suspend=st.booleans())
def test_it_never_touches_what_another_job_owns(foreign, suspend):
    cluster = built(job(uid="earlier"))
    for kind in set(KINDS) - foreign:
        for raw in cluster.of(kind):
            del cluster.objects[kind, raw["metadata"]["name"]]
    made = plan(cluster.context(job(uid="later", suspend=suspend)))
    assert made.actions == ()
    assert made.status.phase in ("Pending", "Suspended")


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
    assert [action.resource for action in made.actions] == list(KINDS)
    assert all(isinstance(action, Create) for action in made.actions)
    first, then = steps(made.actions)
    assert [action.resource for action in then] == [JOBS], "its pods need all the others"
    assert len(first) == len(KINDS) - 1
