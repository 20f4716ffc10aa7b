"""The Service has a name that no job chooses; a job that began when it had the job's own name keeps that."""

import json

import pytest

from tests.operator.fakes import FakeCluster, job
from unfreeze_operator.objects.resources import CONFIG_MAPS, JOBS, SERVICES


def step(cluster):
    for _ in range(4):
        cluster.step(job())


def meeting(cluster):
    """Return the names under which pods of a job meet, and what their Service is called."""
    (config_map,) = (found for (kind, _), found in cluster.objects.items() if kind == CONFIG_MAPS)
    (service,) = (found for (kind, _), found in cluster.objects.items() if kind == SERVICES)
    host = json.loads(config_map["data"]["job.json"])["distribution"]["rendezvousHost"]
    return host, cluster.objects[JOBS, "job"]["spec"]["template"]["spec"]["subdomain"], service["metadata"]["name"]


def test_nobody_takes_a_name_by_calling_a_job_like_it():
    cluster = FakeCluster()
    step(cluster)
    assert meeting(cluster) == ("job-0.job-trainers", "job-trainers", "job-trainers")


def begun_earlier():
    """Return a cluster with a job whose children an operator of before has made."""
    cluster = FakeCluster()
    step(cluster)
    text = json.dumps([[kind.plural, found] for (kind, _), found in cluster.objects.items()])
    text = text.replace('"unfreeze.dev/service": "job-trainers"', '"other": ""').replace("job-trainers", "job")
    kinds = {kind.plural: kind for kind, _ in cluster.objects}
    cluster.objects = {(kinds[plural], found["metadata"]["name"]): found for plural, found in json.loads(text)}
    return cluster


@pytest.mark.parametrize("gone", [(), (SERVICES,), (CONFIG_MAPS,), (JOBS,), (SERVICES, JOBS), (CONFIG_MAPS, SERVICES)])
def test_a_job_that_began_under_its_own_name_keeps_it(gone):
    cluster = begun_earlier()
    cluster.objects = {key: found for key, found in cluster.objects.items() if key[0] not in gone}
    step(cluster)
    assert meeting(cluster) == ("job-0.job", "job", "job")
