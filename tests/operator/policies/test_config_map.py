"""The ConfigMap is made, repaired and replaced."""

import pytest

from tests.operator.fakes import FakeCluster, job
from unfreeze_operator.objects.actions import Create, Patch
from unfreeze_operator.objects.resources import CHILD_JOB_ANNOTATION, CONFIG_MAPS, SERVICE_ANNOTATION
from unfreeze_operator.policies import config_map


def test_missing_it_is_made():
    (action,) = config_map.check(FakeCluster().context(job())).actions
    assert isinstance(action, Create)
    assert '"rendezvousHost": "job-train-0.job-trainers"' in action.manifest["data"]["job.json"]


def test_changed_by_others_it_is_repaired():
    cluster = FakeCluster()
    cluster.step(job())
    assert config_map.check(cluster.context(job())) is None
    cluster.of(CONFIG_MAPS)[0]["data"]["job.json"] += " "
    (action,) = config_map.check(cluster.context(job())).actions
    assert isinstance(action, Patch)


def test_with_another_spec_it_is_replaced():
    cluster = FakeCluster()
    cluster.step(job())
    (action,) = config_map.check(cluster.context(job(nodes=2))).actions
    assert '"numNodes": 2' in action.change["data"]["job.json"]


@pytest.mark.parametrize("gone", [(), (CHILD_JOB_ANNOTATION,), (CHILD_JOB_ANNOTATION, SERVICE_ANNOTATION)])
def test_names_that_somebody_changed_are_written_again_and_nothing_else(gone):
    cluster = FakeCluster()
    cluster.step(job())
    found = cluster.of(CONFIG_MAPS)[0]["metadata"]["annotations"]
    before = dict(found)
    found |= {CHILD_JOB_ANNOTATION: "x", SERVICE_ANNOTATION: "y"}
    for name in gone:
        del found[name]
    (action,) = config_map.check(cluster.context(job())).actions
    assert "data" not in action.change
    cluster.apply(action)
    assert cluster.of(CONFIG_MAPS)[0]["metadata"]["annotations"] == before
