"""What a job costs: hours and money that only grow, at the price of the time, and little of it in the status."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from click import BadParameter

from tests.operator.fakes import NOW, FakeCluster, job, pod
from unfreeze_api.contracts.job_file import read_job
from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.status import Cost, FineTuneJobStatus
from unfreeze_api.job import parse_spec
from unfreeze_api.spec.run_policy import BudgetSpec, RunPolicySpec
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.main import PricesType
from unfreeze_operator.manifests.children import config_map
from unfreeze_operator.objects.resources import PODS, GangNames
from unfreeze_operator.objects.views import fine_tune_job_view, pod_view
from unfreeze_operator.observed.context import Children
from unfreeze_operator.settings.prices import NO_PRICES, parse_prices, price_of
from unfreeze_operator.status.build import worth_writing
from unfreeze_operator.status.cost import cost_of
from unfreeze_operator.telemetry import metrics as telemetry
from unfreeze_operator.telemetry.metrics import Metrics

GPU = "nvidia.com/gpu"
H100 = {"gpu": "h100"}
PRICES = parse_prices(
    json.dumps(
        {
            "currency": "EUR",
            "table": [
                {"resource": GPU, "nodeSelector": H100, "perHour": 3.6},
                {"resource": GPU, "perHour": 1.8},
                {"resource": "amd.com/gpu", "nodeSelector": H100, "perHour": 9},
            ],
        }
    )
)


def spec_of(limits, selector=None, nodes=2):
    from tests.operator.world import spec

    raw = spec("job", nodes=nodes)
    raw["distribution"]["resourcesPerNode"] = {"limits": limits}
    if selector:
        raw["template"] = raw.get("template", {}) | {"nodeSelector": selector}
    return raw


@pytest.mark.parametrize(
    ("limits", "selector", "price"),
    [
        ({GPU: 8}, H100 | {"zone": "a"}, 3.6),
        ({GPU: "8"}, {"gpu": "a100"}, 1.8),
        ({GPU: 1}, None, 1.8),
        ({"amd.com/gpu": 1}, None, None),
        ({GPU: 3, "amd.com/gpu": 1}, H100, (3 * 3.6 + 9) / 4),
        ({"cpu": "8", GPU: 0}, H100, None),
        ({"cpu": "8"}, H100, None),
    ],
)
def test_the_first_entry_counts_that_fits_resource_and_labels(limits, selector, price):
    spec = parse_spec(spec_of(limits, selector))
    assert price_of(spec, PRICES) == (price and pytest.approx(price))
    assert price_of(spec, NO_PRICES) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "value: "),
        ('{"currency": "euro", "table": []}', "currency: "),
        (
            '{"currency": "EUR", "table": [{"resource": "gpu", "perHour": 1}]}',
            "table.0.resource: gpu is no accelerator",
        ),
        ('{"currency": "EUR", "table": [{"resource": "nvidia.com/gpu", "perHour": -1}]}', "table.0.perHour: "),
        ('{"currency": "EUR", "table": [{"resource": "nvidia.com/gpu"}]}', "table.0.perHour: "),
        ('{"currency": "EUR", "table": [{"resource": "nvidia.com/gpu", "perHour": 1, "price": 1}]}', "table.0.price: "),
    ],
)
def test_a_wrong_table_is_refused_with_its_entry(text, told):
    with pytest.raises(BadParameter, match=told):
        PricesType().convert(text, None, None)


def context(*, status=None, prices=PRICES, limits=None, after=0):
    cluster = FakeCluster()
    raw = spec_of({GPU: 4} if limits is None else limits)
    meta = {"name": "job", "namespace": "ns", "uid": "u1", "resourceVersion": "1", "generation": 1}
    view = fine_tune_job_view({"metadata": meta | {"creationTimestamp": "2026-01-01T12:00:00Z"}, "spec": raw})
    cluster.step(view)
    owner = cluster.job()["metadata"]["uid"]
    for index in range(2):
        cluster.add(PODS, pod(index, owner=owner))
    found = cluster.context(view, status)
    return replace(found, prices=prices, now=NOW + timedelta(seconds=after))


TRAINING = Progress(activity="Training", step=1, total_steps=4, percent=25, eta_seconds=900)


def test_hours_and_money_so_far_and_in_the_end():
    status = plan(context(after=300), TRAINING).status
    assert status.accelerator_seconds == 8 * 300
    assert status.cost == Cost(
        accelerator_hours=0.6667,
        estimated_accelerator_hours=2.6667,
        amount=1.2,
        estimated_amount=4.8,
        currency="EUR",
        text="1.20 of 4.80 EUR",
    )
    plain = plan(context(after=300, prices=NO_PRICES), TRAINING).status.cost
    assert (plain.amount, plain.currency, plain.text) == (None, None, "0.67 of 2.67 h")
    assert plan(context(after=300, limits={"cpu": 8}), TRAINING).status.cost is None


def test_pods_that_stop_are_counted_by_their_own_accelerators_when_the_job_gets_others():
    before = context(limits={GPU: 1}, after=36000)
    limits = {"name": "trainer", "resources": {"limits": {GPU: "1"}}}
    pods = tuple(
        replace(view, accelerators=pod_view(pod(0) | {"spec": {"nodeName": "n", "containers": [limits]}}).accelerators)
        for view in before.children.pods
    )
    before = replace(before, children=replace(before.children, pods=pods))
    first = plan(before).status
    spec = parse_spec(spec_of({GPU: 8}))
    second = plan(replace(before, spec=spec, status=first, now=before.now + timedelta(seconds=5))).status
    assert (first.accelerator_seconds, second.accelerator_seconds) == (2 * 36000, 2 * 36005)


@pytest.mark.parametrize(("stage", "end"), [(None, 2.6667), ("1 of 2: domain", None), ("2 of 2: job", 2.6667)])
def test_the_end_of_a_stage_is_not_that_of_the_job(stage, end):
    told = plan(context(after=300), TRAINING.model_copy(update={"stage": stage})).status.cost
    assert (told.accelerator_hours, told.estimated_accelerator_hours) == (0.6667, end)


def test_money_is_added_up_whatever_the_table_says_later():
    first = plan(context(after=300), TRAINING).status
    dearer = parse_prices('{"currency": "EUR", "table": [{"resource": "nvidia.com/gpu", "perHour": 3.6}]}')
    second = plan(context(after=600, status=first, prices=dearer), TRAINING).status
    assert second.cost.amount == pytest.approx(1.2 + 2.4)
    again = plan(context(after=600, status=second, prices=dearer), TRAINING).status
    assert again.cost == second.cost
    for other in (
        NO_PRICES,
        parse_prices('{"currency": "USD", "table": [{"resource": "nvidia.com/gpu", "perHour": 1}]}'),
    ):
        kept = plan(context(after=900, status=second, prices=other), TRAINING).status.cost
        assert (kept.amount, kept.currency, kept.estimated_amount) == (second.cost.amount, "EUR", None)


def test_a_status_of_an_operator_without_prices_is_charged_as_a_whole():
    before = FineTuneJobStatus(phase="Running", accelerator_seconds=3600)
    assert cost_of(context(status=before), 7200, None).amount == pytest.approx(3.6)


def test_the_cost_alone_is_no_reason_to_write():
    old = FineTuneJobStatus(phase="Running", accelerator_seconds=100, cost=Cost(accelerator_hours=0.03))
    new = old.model_copy(update={"accelerator_seconds": 101, "cost": Cost(accelerator_hours=0.04)})
    assert not worth_writing(old, new, 2)


def told(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_namespaces_are_summed_and_their_labels_bounded(monkeypatch):
    monkeypatch.setattr(telemetry, "MAX_NAMESPACES", 1)
    metrics = Metrics()
    old = FineTuneJobStatus(phase="Running", accelerator_seconds=100)
    cost = Cost(accelerator_hours=0.1, amount=2.5, currency="EUR")
    new = old.model_copy(update={"accelerator_seconds": 360, "cost": cost})
    more = new.model_copy(update={"accelerator_seconds": 400, "cost": cost.model_copy(update={"amount": 3.0})})
    for before, after in ((old, new), (new, more), (more, more)):
        metrics.transition(job(), before, after, Children(), NOW)
    metrics.transition(replace(job(), namespace="another"), old, new, Children(), NOW)
    seconds, money = "unfreeze_namespace_accelerator_seconds_total", "unfreeze_namespace_cost_total"
    assert told(metrics, seconds, namespace="ns") == 300
    assert told(metrics, money, namespace="ns", currency="EUR") == 3.0
    assert told(metrics, seconds, namespace="Other") == 260
    assert told(metrics, seconds, namespace="another") is None


def test_a_budget_of_money_is_told_with_the_price_of_all_accelerators():
    found = context()
    spec = found.spec.model_copy(update={"run_policy": RunPolicySpec(budget=BudgetSpec(amount=40))})
    for prices, per_hour, currency in ((PRICES, 8 * 1.8, "EUR"), (NO_PRICES, None, "")):
        told = config_map(found.job, spec, GangNames.of("job"), prices)["data"]["job.json"]
        budget = read_job(told).budget
        assert (budget.limit, budget.per_hour, budget.currency) == (40, per_hour and pytest.approx(per_hour), currency)
