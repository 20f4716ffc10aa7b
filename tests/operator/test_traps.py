"""The faults of an API server and of the way to it, one by one, with the operator behind the proxy that makes them.

Traps that need no such fault are in test_process.py and test_informer.py; docs/faults.md lists them all.
"""

import asyncio
import itertools

import pytest
import yaml
from kubernetes.aio import client, config

from tests.cluster.proxy import Answer, Cut, Expire, Silence
from tests.operator.process import free_port
from tests.operator.world import condition, until
from unfreeze_operator.cluster import connection
from unfreeze_operator.cluster.watch import Audit
from unfreeze_operator.main import run
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS
from unfreeze_operator.settings.options import Settings

pytestmark = pytest.mark.cluster

WATCHED = ("finetunejobs", "jobs", "pods", "services", "configmaps", "networkpolicies")
WRITES = ("create", "patch", "apply", "update", "delete")
MANY = 10**6


def held(world, name="job", **options):
    """Create a job that waits at its first step, and wait until it does."""
    world.create(name, fake={"holdAt": 1, **options.pop("fake", {})}, **options)
    return world.wait(lambda s: s.get("progress", {}).get("step") == 1 and s["nodes"]["ready"] >= 1, name)


@pytest.fixture
def full(operator_cluster):
    """A function that lets no further pod onto any node; afterwards all are open again."""

    def cordon(shut):
        for node in operator_cluster.nodes:
            operator_cluster.request("PATCH", f"/api/v1/nodes/{node.name}", {"spec": {"unschedulable": shut}})

    yield lambda: cordon(True)
    cordon(False)


def test_a_pod_that_is_deleted_in_a_gap_of_the_watch_is_noticed_by_the_next_list(faulty_operator, proxy, world, full):
    faulty_operator.start()
    held(world)
    (old,) = world.children("pods")
    full()
    proxy.inject(Expire(), "watch", "pods")
    outage = proxy.inject(Answer(503), "list", "pods", times=MANY)
    proxy.cut("pods")
    proxy.wait(lambda: outage.hit, "the operator lists again")
    world.delete("pods", old["metadata"]["name"])
    until(lambda: {p["metadata"]["uid"] for p in world.children("pods")} - {old["metadata"]["uid"]}, "another pod")
    assert world.status()["nodes"]["ready"] == 1, "nobody could tell the operator yet"
    proxy.heal()
    status = world.wait(lambda s: s["nodes"]["ready"] == 0 and s.get("waiting"))
    assert [found["reason"] for found in status["waiting"]] == ["Unschedulable"]


def test_watches_that_fail_go_on(faulty_operator, proxy, world):
    """Gone, refused, cut and silent: of every kind of object, one kind of fault after the other."""
    gone = f'unfreeze_jobs{{namespace="{world.namespace}",phase="Succeeded"}}'
    faulty_operator.start()
    held(world, "witness")
    faults = [
        Answer(410, "Expired"),
        Expire(),
        Answer(500),
        Answer(429, retry_after=1),
        Cut(),
        Cut(done=True),
        Silence(),
    ]
    for number, fault in enumerate(faults):
        rules = [proxy.inject(fault, "watch", resource) for resource in WATCHED]
        proxy.cut()
        proxy.wait(lambda rules=rules: all(rule.hit for rule in rules), f"{fault} hits every watch")
        world.create(f"job-{number}")
        world.wait_phase("Succeeded", f"job-{number}")
        world.delete("finetunejobs", f"job-{number}")
        until(lambda: faulty_operator.metric(gone) is None, "the operator has seen the deletion")
    assert faulty_operator.running
    world.go("witness")
    world.wait_phase("Succeeded", "witness")


def test_a_list_that_outlives_its_snapshot_begins_again(faulty_operator, proxy, world):
    for name in ("a", "b", "c"):
        world.create(name, suspend=True)
    faulty_operator.start()
    for name in ("a", "b", "c"):
        world.wait_phase("Suspended", name)
    faulty_operator.stop()
    proxy.page = 1
    expired = [proxy.inject(Answer(410, "Expired"), "continue", resource) for resource in WATCHED]
    faulty_operator.start()
    assert all(rule.hit for rule in expired[:2])
    world.suspend(False, "b")
    world.wait_phase("Succeeded", "b")


def test_nothing_is_written_before_all_caches_are_in_sync(faulty_operator, proxy, world):
    world.create()
    refused = proxy.inject(Answer(503), "list", "pods", times=2)
    faulty_operator.start()
    world.wait_phase("Succeeded")
    assert len(refused.hit) == 2
    calls = list(proxy.calls)
    third_list = [number for number, call in enumerate(calls) if call.site == ("list", "pods")][2]
    assert third_list < min(number for number, call in enumerate(calls) if call.verb in WRITES)


def test_a_start_among_many_finished_jobs_writes_nothing(faulty_operator, proxy, world):
    faulty_operator.start()
    names = [f"job-{number}" for number in range(100)]
    for name in names:
        world.create(name, suspend=True)
    for name in names:
        world.wait_phase("Suspended", name)
    faulty_operator.stop()
    proxy.calls.clear()
    faulty_operator.start()
    reconciles = "unfreeze_reconcile_duration_seconds_count"
    until(lambda: (faulty_operator.metric(reconciles) or 0) >= len(names), "each job is looked at")
    assert [call for call in proxy.calls if call.verb in WRITES] == []


CHILDREN = ("configmaps", "services", "networkpolicies", "jobs")


def nobody_else(world):
    """Wait for the end of jobs that earlier tests have left in namespaces under deletion: faults would meet these."""
    world.cluster.wait_for(FINE_TUNE_JOBS.path(), lambda found: found.get("items") == [], what="no jobs of others")


def test_a_child_is_recognised_when_neither_answer_nor_watch_told_of_it(faulty_operator, proxy, world):
    nobody_else(world)
    faulty_operator.start()
    silent = [proxy.inject(Silence(), "watch", resource, times=MANY) for resource in (*CHILDREN, "pods")]
    proxy.cut()
    proxy.wait(lambda: all(rule.hit for rule in silent), "every watch is a silent one")
    lost = [proxy.inject(Cut(done=True), "create", resource) for resource in CHILDREN]
    world.create(fake={"holdAt": 1})
    proxy.wait(lambda: all(rule.hit for rule in lost), "each answer is lost")
    for resource in CHILDREN:
        proxy.wait(lambda resource=resource: proxy.count("get", resource), f"the operator asks for its {resource}")
    proxy.heal()
    world.go()
    assert world.wait_phase("Succeeded")["restarts"]["pods"] == 0
    assert [len(world.children(resource)) for resource in CHILDREN] == [1] * 4


def test_a_namesake_that_is_on_its_way_out_is_waited_for(operator, world):
    service = {
        "metadata": {"name": "job-trainers", "finalizers": ["example.com/hold"]},
        "spec": {"ports": [{"port": 80}]},
    }
    world.cluster.create(world.path("services"), service)
    world.delete("services", "job-trainers")
    world.create()
    status = world.wait(lambda s: condition(s, "Running").get("reason") == "WaitingForDeletion")
    assert "still being deleted" in condition(status, "Running")["message"]
    world.cluster.request("PATCH", world.path("services", "job-trainers"), {"metadata": {"finalizers": None}})
    world.wait_phase("Succeeded")


def test_conflicts_on_the_status_neither_lose_nor_double_a_count(faulty_operator, proxy, world):
    """Every other write of the status fails: refused, or done and its answer lost."""
    nobody_else(world)
    faulty_operator.start()
    faults = itertools.cycle([Answer(409, "Conflict"), None, Cut(done=True), None, Cut(), None, Cut(done=True), None])
    proxy.chaos = lambda call: next(faults) if call.site == ("apply", "finetunejobs/status") else None
    world.create(fake={"fail": {"at": 1, "times": 2, "exitCode": 1}}, backoffLimit=3)
    end = world.wait_phase("Succeeded")
    assert end["restarts"] == {"inPlace": 0, "pods": 2}
    until(lambda: "Succeeded" in world.events(), "the last event")
    told = world.events()
    assert (told.count("Running"), told.count("PodRestarted"), told.count("Succeeded")) == (1, 2, 1)
    for sample, count in (
        ("unfreeze_jobs_created_total", 1),
        ("unfreeze_jobs_succeeded_total", 1),
        (f'unfreeze_job_restarts_total{{job_name="job",kind="pod",namespace="{world.namespace}"}}', 2),
    ):
        until(lambda sample=sample, count=count: faulty_operator.metric(sample) == count, f"{sample} {count}")


@pytest.mark.parametrize("fault", [Answer(429, "TooManyRequests", 1), Answer(500), Cut(), Cut(done=True)], ids=str)
def test_the_first_call_of_every_kind_may_fail(faulty_operator, proxy, world, fault):
    """Over a life that needs every kind of write: made, suspended, changed, resumed, finished, cleaned, expired."""
    met = set()

    def once(call):
        if call.verb not in WRITES or call.site in met:
            return None
        met.add(call.site)
        return fault

    proxy.chaos = once
    faulty_operator.start()
    held(world, backoffLimit=0, cleanPodPolicy="All")
    world.suspend(True)
    world.wait_phase("Suspended")
    world.patch({"distribution": {"numNodes": 2}})
    world.suspend(False)
    world.wait(lambda s: s.get("phase") == "Running" and s["nodes"]["ready"] == 2)
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["restarts"] == {"inPlace": 0, "pods": 0}
    world.wait_children("jobs", 0)
    world.patch({"runPolicy": {"ttlSecondsAfterFinished": 0}})
    world.cluster.wait_for(world.path("finetunejobs", "job"), lambda job: job == {}, what="deleted")
    assert {"create", "patch", "apply", "delete"} == {verb for verb, _ in met}
    assert {("patch", "configmaps"), ("delete", "jobs"), ("create", "events")} <= met


def test_a_token_that_is_no_longer_valid_is_replaced(faulty_operator, proxy, world, operator_cluster):
    """A token that is bound to a Secret ends with it."""
    secret = "/api/v1/namespaces/unfreeze-system/secrets"
    operator_cluster.create(secret, {"metadata": {"name": "key"}})
    bound = {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "key"}, "expirationSeconds": 3600}
    account = "/api/v1/namespaces/unfreeze-system/serviceaccounts/unfreeze-operator/token"
    old = operator_cluster.create(account, {"spec": bound})["status"]["token"]
    kubeconfig, text = faulty_operator.kubeconfig, faulty_operator.kubeconfig.read_text()
    new = yaml.safe_load(text)["users"][0]["user"]["token"]
    kubeconfig.write_text(text.replace(new, old))
    faulty_operator.start()
    held(world)
    kubeconfig.write_text(text)
    operator_cluster.request("DELETE", f"{secret}/key")
    until(lambda: operator_cluster.request("GET", "/api", token=old)[0] == 401, "the old token is refused")
    proxy.cut()
    world.create("other")
    world.wait_phase("Succeeded", "other")
    world.go()
    world.wait_phase("Succeeded")
    assert faulty_operator.running


def test_an_object_that_cannot_be_read_stops_nobody(operator, world):
    """Anybody may put the operator's label onto an object of their own."""
    labels = {"app.kubernetes.io/managed-by": "unfreeze-operator", "unfreeze.dev/job-name": "other"}
    service = {"metadata": {"name": "odd", "labels": labels}, "spec": {"ports": [{"port": 80}]}}
    world.cluster.create(world.path("services"), service)
    world.create()
    world.wait_phase("Succeeded")
    assert operator.running


def test_the_process_ends_when_a_part_of_it_dies(operator_kubeconfig, monkeypatch):
    async def dies(_self, _interval):
        raise RuntimeError("a bug")

    async def load():
        configuration = client.Configuration()
        await config.load_kube_config(str(operator_kubeconfig), client_configuration=configuration)
        return configuration

    monkeypatch.setattr(connection, "load", load)
    monkeypatch.setattr(Audit, "run", dies)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(run(Settings(trainer_image="i", http_host="127.0.0.1", http_port=free_port())))
    assert caught.value.split(RuntimeError)[0] is not None


@pytest.mark.parametrize(
    "fault", [Answer(429, "TooManyRequests"), Answer(500), Answer(409, "Conflict"), Cut()], ids=str
)
def test_an_event_is_posted_again(faulty_operator, proxy, world, fault):
    faults = itertools.cycle([fault, None])
    proxy.chaos = lambda call: next(faults) if call.site == ("create", "events") else None
    faulty_operator.start()
    world.create()
    world.wait_phase("Succeeded")
    world.wait_events("Running", "Succeeded")


def test_events_that_cannot_be_posted_hold_no_job_up(faulty_operator, proxy, world):
    proxy.chaos = lambda call: Answer(500) if call.site == ("create", "events") else None
    faulty_operator.start()
    world.create()
    world.wait_phase("Succeeded")
    assert world.events() == []
