"""A Job whose outcome is settled is left alone."""

import pytest

from tests.operator.fakes import NOW, FakeCluster, job, text
from unfreeze_operator.decisions.plan import plan


@pytest.mark.parametrize("type_", ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"])
def test_nothing_is_changed_any_more(type_):
    cluster = FakeCluster()
    cluster.step(job())
    cluster.job()["status"] = {"conditions": [{"type": type_, "status": "True", "lastTransitionTime": text(NOW)}]}
    assert plan(cluster.context(job(suspend=True, nodes=2, activeDeadlineSeconds=9))).actions == ()
