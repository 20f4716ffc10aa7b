"""The operator is killed at each of its requests, before and after the server carries it out: the job's life is the same.

Driven to the end: the n-th request for every n, until a life has no n-th one.
"""

import copy
from collections import Counter

import pytest

from tests.operator.simulation import CHILDREN, Simulation
from unfreeze_api.contracts.progress import Progress
from unfreeze_operator.objects.resources import JOBS, POD_GROUPS


class Crash(BaseException):
    """The process is gone; nothing may catch this."""


class Life:
    """A whole life: made, run, suspended, changed, resumed, a pod fails, finished, cleaned, expired."""

    def __init__(self, number=0, done=False):
        self.simulation = Simulation(nodes=1, backoffLimit=3, cleanPodPolicy="All")
        self.crashed = False
        self._number, self._done = number, done
        self.simulation.server.interrupt = self._interrupt

    def _interrupt(self, _call, done):
        if not self.crashed and len(self.simulation.server.calls) == self._number and done == self._done:
            self.crashed = True
            raise Crash

    def until(self, condition):
        try:
            self.simulation.until(condition)
        except Crash:
            self.simulation.restart()
            self.simulation.until(condition)

    def phase(self, *phases):
        self.until(lambda: self.simulation.status.get("phase") in phases)

    def live(self):
        """Live through it; return what somebody could see of it."""
        sim, seen = self.simulation, []
        self.phase("Running")
        sim.change(runPolicy={"suspend": True})
        self.phase("Suspended")
        seen.append(sim.status["checkpoint"])
        sim.change(distribution={"numNodes": 2}, runPolicy={"suspend": False})
        self.until(lambda: sim.status.get("nodes") == {"desired": 2, "ready": 2})
        sim.end(sim.running()[0], 1)
        self.until(lambda: sim.status["restarts"]["pods"] == 1 and sim.status["nodes"]["ready"] == 2)
        seen.append({name: sim.status["failure"][name] for name in ("reason", "exitCode")})
        for raw in sim.running():
            sim.end(raw, 0)
        self.phase("Succeeded", "Failed")
        self.until(lambda: not sim.server.of("jobs"))
        kept = ("phase", "restarts", "results", "progress", "checkpoint", "failure", "nodes")
        seen.append({name: sim.status.get(name) for name in kept})
        conditions = sim.status["conditions"]
        seen.append([(found["type"], found["status"], found["reason"]) for found in conditions])
        sim.change(runPolicy={"ttlSecondsAfterFinished": 0})
        self.until(lambda: sim.job is None)
        seen.append(Counter((event["reason"], event["note"]) for event in sim.server.of("events")))
        assert not [raw for resource in CHILDREN for raw in sim.server.of(resource.plural)]
        return seen


@pytest.fixture(scope="module")
def undisturbed():
    return Life().live()


def test_a_life_without_a_crash(undisturbed):
    assert undisturbed[2]["phase"] == "Succeeded"
    assert undisturbed[2]["restarts"] == {"inPlace": 0, "pods": 1}
    told = Counter(reason for reason, _ in undisturbed[-1].elements())
    assert told == {"Running": 2, "Suspended": 1, "Resumed": 1, "PodRestarted": 1, "Succeeded": 1}


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_crash_at_each_request_changes_nothing(undisturbed, done):
    number, met = 0, set()
    while True:
        number += 1
        life = Life(number, done)
        seen = life.live()
        if not life.crashed:
            break
        call = life.simulation.server.calls[number - 1]
        met.add(call.site)
        assert seen == undisturbed, f"killed {'after' if done else 'before'} request {number}: {call}"
    assert number > 25
    # One pod is no gang.
    assert {("create", resource.plural) for resource in CHILDREN if resource != POD_GROUPS} | {
        ("delete", JOBS.plural),
        ("apply", "finetunejobs/status"),
        ("create", "events"),
        ("patch", "jobs"),
        ("patch", "configmaps"),
        ("delete", "finetunejobs"),
    } <= met


def test_an_operator_that_reads_the_past_takes_no_outcome_back():
    sim = Simulation(nodes=1)
    sim.until(lambda: sim.status.get("phase") == "Running")
    past = copy.deepcopy(sim.server.objects)
    sim.end(sim.running()[0], 0)
    sim.until(lambda: "completionTime" in sim.status)
    present, told = sim.server.objects, copy.deepcopy(sim.status)
    sim.server.objects = past
    sim.restart()
    sim.server.objects = present
    sim.poller.said = Progress(activity="Training", step=3)
    sim.reconcile()
    assert sim.status == told
    sim.round()
    assert sim.status == told
