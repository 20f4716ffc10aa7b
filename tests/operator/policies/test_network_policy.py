"""The NetworkPolicy is made before the Job, repaired when somebody changed it, and follows the operator's options."""

import dataclasses

import pytest

from tests.operator.fakes import FakeCluster, job
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.actions import Create
from unfreeze_operator.objects.resources import JOBS, NETWORK_POLICIES
from unfreeze_operator.policies import network_policy
from unfreeze_operator.settings.network import EgressRule, Network


def test_missing_it_is_made_before_the_job():
    resources = [action.resource for action in plan(FakeCluster().context(job())).actions]
    assert resources.index(NETWORK_POLICIES) < resources.index(JOBS)
    (action,) = network_policy.check(FakeCluster().context(job())).actions
    assert isinstance(action, Create)
    assert action.manifest["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize(
    "drift",
    [
        {"policyTypes": ["Ingress"]},
        {"ingress": [{}]},
        {"egress": []},
        {"podSelector": {}},
        {"podSelector": {"matchLabels": {"unfreeze.dev/job-name": "job", "other": "label"}}},
        {"podSelector": {"matchExpressions": [{"key": "other", "operator": "Exists"}]}},
    ],
)
def test_changed_by_others_it_is_repaired(drift):
    cluster = FakeCluster()
    cluster.step(job())
    (policy,) = cluster.of(NETWORK_POLICIES)
    whole = dict(policy["spec"])
    policy["spec"] |= drift
    cluster.step(job())
    assert policy["spec"] == whole
    assert network_policy.check(cluster.context(job())) is None


def test_other_options_of_the_operator_reach_jobs_that_run():
    cluster = FakeCluster()
    cluster.step(job())
    context = dataclasses.replace(cluster.context(job()), network=Network(egress=(EgressRule(),)))
    (action,) = network_policy.check(context).actions
    cluster.apply(action)
    assert cluster.of(NETWORK_POLICIES)[0]["spec"]["egress"][1:] == [{}]
    assert network_policy.check(dataclasses.replace(cluster.context(job()), network=context.network)) is None
