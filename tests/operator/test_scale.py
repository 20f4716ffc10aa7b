"""What keeps the operator small and quiet among thousands of jobs; bench/scale.py has the figures."""

import asyncio
import gc
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tests.operator import fakes
from tests.operator.simulation import Simulation
from tests.operator.world import until
from unfreeze_api.contracts.progress import PhaseResult, ProgressInfo
from unfreeze_api.contracts.status import Condition, FineTuneJobStatus
from unfreeze_operator.cluster import watch
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.cluster.new_jobs import NewJobs
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects import views
from unfreeze_operator.objects.actions import Create
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS, SUFFIXES, Key
from unfreeze_operator.operate import KINDS
from unfreeze_operator.status.budget import wire
from unfreeze_operator.status.said import MISSING_SECONDS

OPERATOR = "system:serviceaccount:unfreeze-system:unfreeze-operator"


def finished():
    """Return the status of a job of three phases that has succeeded."""
    now = datetime.now(UTC).replace(microsecond=0)
    phases = [
        PhaseResult(name=name, steps=33, seconds=60.5, trainable_parameters=10**6, metrics={"accuracy": 0.9})
        for name in ("head", "layer.11", "layer.10")
    ]
    true = {"status": "True", "reason": "Succeeded", "message": "the job has succeeded", "last_transition_time": now}
    return FineTuneJobStatus(
        observed_generation=1,
        phase="Succeeded",
        conditions=[Condition(type=type_, **true) for type_ in ("Running", "Complete")],
        start_time=now,
        completion_time=now,
        progress=ProgressInfo(percent=100, step=99, total_steps=99, phase_index=2, phase_count=3, loss=0.25),
        phases=phases,
        results={"test.accuracy": 0.91, "test.loss": 0.3},
    )


def stored(number):
    """Return a job and its children as JSON, by kind of object."""
    name = f"job-{number:05}"
    view = fakes.job(name=name, uid=f"{number:08}-1111-2222-3333-444444444444", nodes=4)
    context = fakes.FakeCluster().context(view)
    meta = {"name": name, "namespace": "ns", "uid": view.uid, "resourceVersion": "1"}
    found = {
        FINE_TUNE_JOBS: {"metadata": meta, "spec": json.loads(views.unpack(view.spec)), "status": wire(finished())}
    }
    for action in plan(context).actions:
        assert isinstance(action, Create)
        meta = {"uid": f"{number:08}-{len(found)}-2222-3333-444444444444", "resourceVersion": "1"}
        found[action.resource] = {**action.manifest, "metadata": {**action.manifest["metadata"], **meta}}
    return {resource: json.dumps(raw) for resource, raw in found.items()}


def cached_bytes(texts):
    """Return the memory that jobs and children take in the caches."""
    view_of = {FINE_TUNE_JOBS: views.fine_tune_job_view, **{kind.resource: kind.view for kind in KINDS}}
    gc.collect()
    tracemalloc.start()
    caches = {resource: Cache(lambda _: None, suffix=SUFFIXES.get(resource, "")) for resource in view_of}
    for found in texts:
        for resource, text in found.items():
            caches[resource].put(view_of[resource](json.loads(text)))
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(caches[FINE_TUNE_JOBS]) == len(texts)
    return size


@pytest.mark.slow
def test_a_job_takes_a_third_of_its_json_and_twice_as_many_take_twice_as_much():
    many = [stored(number) for number in range(1000)]
    few = many[:500]
    json_bytes = sum(len(text) for found in few for text in found.values())
    size = cached_bytes(few)
    assert size < 0.45 * json_bytes
    assert cached_bytes(many) < 2.3 * size


def test_equal_values_are_packed_into_equal_and_few_bytes():
    status = wire(finished())
    packed = views.pack(status)
    assert packed == views.pack(dict(reversed(status.items())))
    assert json.loads(views.unpack(packed)) == status
    assert len(packed) < len(json.dumps(status)) / 2


def test_kopf_keeps_and_copies_nothing_of_an_object():
    memories = watch._NoMemories()
    asyncio.run(memories.recall({"metadata": {"uid": "u"}}, noticed_by_listing=True))
    assert list(memories.iter_all_memories()) == []
    assert watch.kopf_settings(90).persistence.diffbase_storage.build(body={"spec": {}}) == {}


@pytest.mark.cluster
def test_a_restart_among_many_finished_jobs_writes_nothing(lone_operator, world):
    lone_operator.start()
    world.create(fake={"holdAt": 5})
    world.wait(lambda s: s.get("progress", {}).get("step") == 5 and s["nodes"]["ready"] == 1)
    lone_operator.stop()
    for number in range(60):
        job = world.create(f"old-{number}")
        path = world.path("finetunejobs", job["metadata"]["name"]) + "/status"
        assert world.cluster.request("PUT", path, {**job, "status": wire(finished())})[0] == 200
    mark = world.cluster.mark()
    lone_operator.start()
    until(lambda: (lone_operator.metric("unfreeze_reconcile_duration_seconds_count") or 0) >= 61, "a look at each job")
    until(lambda: (lone_operator.metric("unfreeze_progress_pulls_total") or 0) >= 3, "three pulls of the one that runs")
    written = [write for write in world.cluster.writes(mark) if write.user == OPERATOR]
    # Namespaces of other tests may still be going away, with what is in them.
    assert [write for write in written if write.namespace == world.namespace] == []


def test_a_new_job_has_its_children_before_anything_is_said_of_it():
    simulation = Simulation(nodes=1)
    assert simulation.reconcile() == 0.0, "it is looked at again as soon as no other job waits for its children"
    assert simulation.server.of("jobs")
    assert simulation.status == {}
    simulation.reconcile()
    assert simulation.status["phase"] == "Pending"
    assert simulation.server.of("events") == [], "one write less"


class FakePods(dict[Key, list[Any]]):
    """The pods of jobs, of which only phase and the scheduler's word count."""

    def grow(self, key: Key, *, known: bool, phase: str = "Pending") -> None:
        self.setdefault(key, []).append(SimpleNamespace(phase=phase, scheduler_knows=known))


def new_jobs() -> tuple[NewJobs, FakePods, list[Key], list[float]]:
    """Give two new jobs, their pods, which of them were woken, and the time."""
    pods, woken, now = FakePods(), list[Key](), [0.0]
    jobs = NewJobs(
        woken.append, is_new=lambda _: True, pods=lambda key: pods.get(key, []), longest=60, clock=lambda: now[0]
    )
    assert all(jobs.take_note(("ns", name)) for name in "ab")
    return jobs, pods, woken, now


def test_what_is_said_of_a_job_waits_for_the_pods_of_all_new_ones():
    jobs, pods, woken, _ = new_jobs()
    a, b = ("ns", "a"), ("ns", "b")
    for key in (a, b):
        jobs.wait(key, 1)
    pods.grow(a, known=True)
    jobs.pods_changed(a)
    assert (woken, jobs.busy) == ([], True)
    pods.grow(b, known=False)
    jobs.pods_changed(b)
    assert (woken, jobs.busy) == ([a], False), "b has its pod, and the scheduler has not looked at it"
    pods[b][0].scheduler_knows = True
    jobs.pods_changed(b)
    assert woken == [a, b]
    for key in (a, b):
        jobs.done(key)
    jobs.pods_changed(a)
    assert woken == [a, b, a], "of one that has a status every change is looked at"


def test_a_job_whose_pods_are_there_as_it_is_looked_at_is_not_woken_by_itself():
    jobs, pods, woken, _ = new_jobs()
    a, b = ("ns", "a"), ("ns", "b")
    jobs.done(b)
    jobs.wait(a, 1)
    pods.grow(a, known=True)
    jobs.wait(a, 1)
    assert (woken, jobs.busy) == ([], False)


def test_a_pod_that_runs_waits_for_nobody_and_nobody_for_pods_that_are_never_made():
    jobs, pods, woken, now = new_jobs()
    a, b, c = ("ns", "a"), ("ns", "b"), ("ns", "c")
    jobs.wait(a, 2)
    pods.grow(a, known=True, phase="Running")
    jobs.pods_changed(a)
    assert woken == [a]
    jobs.done(a)
    assert jobs.busy, "b has none"
    now[0] = 30
    jobs.take_note(c)
    now[0] = 61
    assert jobs.busy, "c"
    now[0] = 91
    assert not jobs.busy
    jobs.done(b)
    assert woken == [a]


def test_the_first_status_waits_for_the_schedulers_word_on_each_pod_and_no_longer_than_it_may():
    simulation = Simulation(nodes=2, first_status=5)
    simulation.reconcile()
    assert simulation.reconcile() == 5
    simulation.control()
    for pod in simulation.pods():
        del pod["spec"]["nodeName"]
    for pod in simulation.pods():
        assert simulation.status == {}
        refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
        pod["status"] = {"phase": "Pending", "conditions": [refused]}
        simulation.server.touch(pod)
        simulation.sync()
        simulation.reconcile()
    condition = next(each for each in simulation.status["conditions"] if each["type"] == "Running")
    assert condition["reason"] == "Unschedulable"

    waiting = Simulation(nodes=2, first_status=5)
    waiting.reconcile()
    waiting.control()
    for pod in waiting.pods():
        del pod["spec"]["nodeName"]
    waiting.sync()
    waiting.now += timedelta(seconds=4)
    assert waiting.reconcile() == 1
    waiting.now += timedelta(seconds=1)
    waiting.reconcile()
    assert waiting.status["phase"] == "Pending"

    unmade = Simulation(nodes=2, first_status=60)
    unmade.reconcile()
    unmade.control()
    for pod in unmade.pods():
        unmade.server.remove("pods", pod["metadata"]["name"])
    unmade.sync()
    assert unmade.reconcile() == MISSING_SECONDS, "a quota, perhaps: from then on the status says so"

    behind = Simulation(nodes=2, first_status=5)
    behind.reconcile()
    behind.now -= timedelta(minutes=10)  # a clock that is behind the API server's
    behind.reconcile()
    assert behind.status["phase"] == "Pending"
