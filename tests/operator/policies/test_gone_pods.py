"""What pods held that were taken away stays in the totals, once."""

from datetime import timedelta

from tests.operator.fakes import NOW, FakeCluster, pod
from tests.operator.test_cost import GPU, PRICES, spec_of
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import PODS
from unfreeze_operator.objects.views import fine_tune_job_view


def test_pods_that_are_replaced_are_paid_for_too():
    cluster = FakeCluster()
    meta = {"name": "job", "namespace": "ns", "uid": "u1", "resourceVersion": "1", "generation": 1}
    raw = {"metadata": meta | {"creationTimestamp": "2026-01-01T12:00:00Z"}, "spec": spec_of({GPU: 4}, nodes=1)}
    view, status = fine_tune_job_view(raw), None

    def look(after):
        nonlocal status
        context = cluster.context(view, status, after=after)
        made = plan(type(context)(**{**vars(context), "prices": PRICES}))
        for action in made.actions:
            cluster.apply(action)
        status = made.status
        return made

    look(0)
    owner = cluster.job()["metadata"]["uid"]
    cluster.add(PODS, pod(0, owner=owner, name="first"))
    look(3600)
    assert status.accelerator_seconds == 4 * 3600
    del cluster.objects[PODS, "first"]  # its node was taken away
    look(3610)
    cluster.add(PODS, pod(0, owner=owner, name="second", created=NOW + timedelta(seconds=3700)))
    for after in (3700, 3760, 4000):  # it looks again and again, and adds it once
        look(after)
    assert status.accelerator_seconds == 4 * (3600 + 300)
    assert status.cost.amount == 4 * 3900 * 1.8 / 3600
    assert not [action for action in look(4060).actions if "carried" in str(action)]
