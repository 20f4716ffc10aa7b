"""The Service is made and repaired."""

import pytest

from tests.operator.fakes import FakeCluster, job
from unfreeze_operator.objects.actions import Create
from unfreeze_operator.objects.resources import SERVICES
from unfreeze_operator.policies import service


def test_missing_it_is_made_headless_and_for_pods_that_are_not_ready():
    (action,) = service.check(FakeCluster().context(job())).actions
    assert isinstance(action, Create)
    assert action.manifest["spec"]["clusterIP"] == "None"
    assert action.manifest["spec"]["publishNotReadyAddresses"] is True


@pytest.mark.parametrize(
    "drift", [{"publishNotReadyAddresses": False}, {"selector": {"unfreeze.dev/job-name": "x"}}, {"ports": []}]
)
def test_changed_by_others_it_is_repaired(drift):
    cluster = FakeCluster()
    cluster.step(job())
    cluster.of(SERVICES)[0]["spec"] |= drift
    cluster.step(job())
    assert service.check(cluster.context(job())) is None
