"""Children have names that no job chooses; a job that began when they had the job's own name keeps those."""

import json

import pytest

from tests.operator.fakes import NOW, FakeCluster, job, text
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.objects.kueue import workload_view
from unfreeze_operator.objects.resources import CONFIG_MAPS, JOBS, NETWORK_POLICIES, SERVICES
from unfreeze_operator.objects.views import content_hash, job_view
from unfreeze_operator.policies.namesake import check
from unfreeze_operator.reconcile import Caches

NAMES = {JOBS: "job-train", SERVICES: "job-trainers", NETWORK_POLICIES: "job-trainers", CONFIG_MAPS: "job-job"}
FIRST = {JOBS: "job", SERVICES: "job", NETWORK_POLICIES: "job", CONFIG_MAPS: "job-job"}
"""What the first build called them."""
LATER = FIRST | {SERVICES: "job-trainers"}
"""And a later one."""


def step(cluster, view=None):
    for _ in range(4):
        cluster.step(view or job())


def begun():
    cluster = FakeCluster()
    step(cluster)
    return cluster


def begun_under(names):
    """Return a cluster with a job whose children an operator of before has made under these names."""
    cluster = begun()
    for kind, name in names.items():
        found = cluster.objects.pop((kind, NAMES[kind]))
        found["metadata"]["name"] = name
        cluster.objects[kind, name] = found
    cluster.objects[JOBS, "job"]["spec"]["template"]["spec"]["subdomain"] = names[SERVICES]
    config_map = cluster.objects[CONFIG_MAPS, "job-job"]
    annotations = config_map["metadata"]["annotations"]
    del annotations["unfreeze.dev/child-job"]
    if names[SERVICES] == "job":
        del annotations["unfreeze.dev/service"]
    content = config_map["data"]["job.json"].replace("job-train-0.job-trainers", f"job-0.{names[SERVICES]}")
    config_map["data"]["job.json"] = content
    annotations["unfreeze.dev/content-hash"] = content_hash(content)
    return cluster


def names_in(cluster):
    return {kind: name for kind, name in cluster.objects if kind in NAMES}


def meeting(cluster):
    """Return where the pods of a job look for their leader, and what the leader is called."""
    (config_map,) = cluster.of(CONFIG_MAPS)
    host = json.loads(config_map["data"]["job.json"])["distribution"]["rendezvousHost"]
    return host, f"{cluster.job()['metadata']['name']}-0.{cluster.job()['spec']['template']['spec']['subdomain']}"


def test_nobody_takes_a_name_by_calling_a_job_like_it():
    cluster = begun()
    assert names_in(cluster) == NAMES
    assert meeting(cluster) == ("job-train-0.job-trainers", "job-train-0.job-trainers")


@pytest.mark.parametrize(
    "gone", [(), (SERVICES,), (CONFIG_MAPS,), (JOBS,), (SERVICES, JOBS), (CONFIG_MAPS, SERVICES)], ids=str
)
@pytest.mark.parametrize("names", [FIRST, LATER, NAMES], ids=["first", "later", "now"])
def test_a_job_that_began_under_its_own_name_keeps_it(names, gone):
    cluster = begun() if names is NAMES else begun_under(names)
    cluster.objects = {key: found for key, found in cluster.objects.items() if key[0] not in gone}
    step(cluster)
    assert names_in(cluster) == names
    assert meeting(cluster) == (f"{names[JOBS]}-0.{names[SERVICES]}",) * 2


@pytest.mark.parametrize("names", [FIRST, LATER])
def test_a_suspended_job_that_changes_keeps_its_names(names):
    cluster = begun_under(names)
    cluster.job()["spec"]["suspend"] = True
    view = job(nodes=2, generation=2)
    step(cluster, view)
    assert cluster.job()["spec"]["completions"] == 2
    assert names_in(cluster) == names
    assert meeting(cluster) == (f"job-0.{names[SERVICES]}",) * 2


def test_a_network_policy_that_is_recreated_has_its_new_name_since_nobody_asks_for_it():
    cluster = begun_under(FIRST)
    del cluster.objects[NETWORK_POLICIES, "job"]
    step(cluster)
    assert names_in(cluster) == FIRST | {NETWORK_POLICIES: "job-trainers"}


def test_two_jobs_one_called_like_the_others_child_have_children_apart():
    first, second = begun(), FakeCluster()
    other = job(name="job-train", uid="u2")
    for _ in range(4):
        second.step(other)
    assert not set(first.objects) & set(second.objects)
    assert {name for _, name in second.objects} == {"job-train-train", "job-train-trainers", "job-train-job"}


@pytest.mark.parametrize("names", [FIRST, NAMES], ids=["first", "now"])
def test_a_workload_of_kueue_is_its_jobs_under_whichever_name(names):
    cluster, view = begun() if names is NAMES else begun_under(names), job()
    caches = Caches(*(Cache(lambda _: None) for _ in range(8)))
    caches.jobs.put(job_view(cluster.job()))
    owner = {"kind": "Job", "name": names[JOBS], "uid": cluster.job()["metadata"]["uid"], "controller": True}
    meta = {"name": "w", "namespace": "ns", "uid": "w1", "resourceVersion": "1", "ownerReferences": [owner]}
    workload = workload_view({"metadata": meta})
    caches.workloads.put(workload)
    assert caches.behind(workload.key) == view.key
    assert caches.children(view).workload == workload
    assert caches.children(job(name="job-train", uid="u2")).workload is None


def test_a_child_of_an_earlier_job_is_waited_for_under_whichever_name():
    cluster = begun_under(FIRST)
    cluster.job()["metadata"]["deletionTimestamp"] = text(NOW)
    assert check(cluster.context(job(uid="u2"))).reason == "WaitingForDeletion"
