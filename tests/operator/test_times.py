"""Each second of a job is counted in one state."""

import dataclasses
from datetime import timedelta

import pytest

from tests.operator.fakes import NOW, FakeCluster, deleted, job, pod, text, unheard
from tests.operator.simulation import Simulation
from unfreeze_api.contracts.progress import Progress
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import PODS

STATES = ("pending", "queued", "starting", "training", "recovering", "suspended")


class Story:
    """A job over time; each chapter says what there is, and for how long."""

    def __init__(self, **options):
        self.view = job(nodes=2, **options)
        self.cluster = FakeCluster()
        self.cluster.step(self.view)
        self.status, self.at = None, 0

    def chapter(self, *pods, progress=None, seconds=0, view=None, silent=False, **job_status):
        raw = self.cluster.job()
        raw["status"] = {"startTime": text(NOW), "active": len(pods), **job_status}
        for key in [key for key in self.cluster.objects if key[0] is PODS]:
            del self.cluster.objects[key]
        for number, manifest in enumerate(pods):
            manifest["metadata"]["name"] += f"-{number}"
            manifest["metadata"]["ownerReferences"][0]["uid"] = raw["metadata"]["uid"]
            self.cluster.add(PODS, manifest)
        context = self.cluster.context(view or self.view, self.status, after=self.at)
        self.status = plan(dataclasses.replace(context, silent=silent), progress).status
        self.at += seconds
        return self.status.state_seconds

    def spent(self):
        return {name: value for name in STATES if (value := getattr(self.status.state_seconds, name))}


def test_a_life_in_seconds():
    story = Story()
    story.chapter(seconds=4)
    assert story.chapter(pod(0), pod(1), seconds=10).state == "Starting"
    assert story.chapter(pod(0), pod(1), progress=Progress(), seconds=2).state == "Starting"
    assert story.chapter(pod(0), pod(1), progress=Progress(activity="Training"), seconds=100).state == "Training"
    assert story.chapter(pod(0), pod(1), seconds=5).state == "Training", "a new operator has not heard of it yet"
    assert story.chapter(pod(0), progress=Progress(activity="Training"), seconds=30).state == "Recovering"
    assert story.chapter(pod(0), pod(1), progress=Progress(), seconds=7).state == "Recovering"
    assert story.chapter(pod(0), pod(1), progress=Progress(activity="Evaluating"), seconds=50).state == "Training"
    done = pod(0, "Succeeded", code=0), pod(1, "Succeeded", code=0)
    ended = NOW + timedelta(seconds=story.at)
    complete = [{"type": "Complete", "status": "True", "lastTransitionTime": text(ended)}]
    story.at += 3
    final = story.chapter(*done, conditions=complete, completionTime=text(ended))
    assert (final.state, final.since) == (None, ended)
    assert story.spent() == {"pending": 4, "starting": 12, "training": 155, "recovering": 37}
    assert sum(story.spent().values()) == (ended - NOW).total_seconds()


def test_a_suspend_and_a_queue():
    story = Story(queue="team-a")
    story.cluster.job()["spec"]["suspend"] = True
    story.chapter(seconds=60)
    story.cluster.job()["spec"]["suspend"] = False
    story.chapter(pod(0), pod(1), progress=Progress(activity="Training"), seconds=10)
    story.cluster.job()["spec"]["suspend"] = True
    held = job(nodes=2, suspend=True)
    assert story.chapter(seconds=1000, view=held).state == "Suspended"
    story.cluster.job()["spec"]["suspend"] = False
    assert story.chapter(seconds=5).state == "Pending"
    assert story.chapter(pod(0), pod(1), progress=Progress(), seconds=5).state == "Starting"
    story.chapter(pod(0), pod(1), progress=Progress(activity="Training"))
    assert story.spent() == {"queued": 60, "training": 10, "suspended": 1000, "pending": 5, "starting": 5}


@pytest.mark.parametrize(
    ("lost", "silent", "reason"),
    [
        (unheard(pod(1)), False, "NodeUnreachable"),
        (deleted(unheard(pod(1))), False, "NodeUnreachable"),
        (deleted(pod(1)), False, "PodsRestarting"),
        (pod(1), True, "LeaderSilent"),
        (unheard(pod(1)), True, "NodeUnreachable"),
    ],
)
def test_what_is_lost_is_no_training(lost, silent, reason):
    story, said = Story(), Progress(activity="Training", step=3)
    story.chapter(pod(0), pod(1), progress=said, seconds=100)
    assert story.chapter(pod(0), lost, progress=said, silent=silent, seconds=50).state == "Recovering"
    running = next(found for found in story.status.conditions if found.type == "Running")
    assert (story.status.phase, running.status, running.reason) == ("Running", "False", reason)
    assert story.chapter(pod(0), pod(1), progress=said, seconds=7).state == "Training"
    story.chapter(pod(0), pod(1), progress=said, view=job(nodes=2, suspend=True))
    leaving = [deleted(pod(index)) for index in (0, 1)]
    story.chapter(*leaving, progress=said, view=job(nodes=2, suspend=True), seconds=3)
    assert story.spent() == {"training": 100, "recovering": 50}
    assert story.status.state_seconds.state == "Training", "a suspend waits for the checkpoint"


def test_nothing_is_written_while_the_state_is_the_same():
    story = Story()
    first = story.chapter(pod(0), pod(1), progress=Progress(activity="Training"), seconds=100)
    assert story.chapter(pod(0), pod(1), progress=Progress(activity="Training"), seconds=100) == first


def test_a_leader_that_has_ended_is_not_silent():
    """It does not answer any more, while another pod still runs."""
    simulation = Simulation(nodes=2)
    simulation.poller.said = Progress(activity="Training", step=3)
    simulation.until(lambda: simulation.status.get("stateSeconds", {}).get("state") == "Training")
    simulation.poller.is_silent = True
    simulation.end(next(one for one in simulation.running() if "-0-" in one["metadata"]["name"]), 0)
    simulation.sync()
    simulation.reconcile()
    running = next(one for one in simulation.status["conditions"] if one["type"] == "Running")
    assert (running["status"], running["reason"]) == ("True", "PodsRunning")
