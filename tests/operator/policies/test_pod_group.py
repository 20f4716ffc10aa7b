"""The gang as a PodGroup of the scheduler: only where there are such, of all pods that are not done, and in good time."""

from datetime import timedelta

import pytest

from tests.operator.fakes import NOW, FakeCluster, deleted, disrupted, job, pod, text, unscheduled
from tests.operator.simulation import Simulation
from tests.operator.world import spec
from unfreeze_api.contracts.progress import Progress
from unfreeze_operator.cluster.api import ApiError
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.carried import read_carried
from unfreeze_operator.objects.resources import JOBS, POD_GROUPS, PODS
from unfreeze_operator.objects.views import fine_tune_job_view, job_view

TRAINS = Progress(activity="Training", step=3)


def urgent(nodes=2, generation=1, suspend=False, priority="urgent"):
    body = spec(nodes=nodes, suspend=suspend)
    if priority:
        body["template"]["priorityClassName"] = priority
    meta = {"name": "job", "namespace": "ns", "uid": "u1", "resourceVersion": "1", "generation": generation}
    return fine_tune_job_view({"metadata": meta | {"creationTimestamp": text(NOW)}, "spec": body})


def begun(view, *pods, served=True):
    cluster = FakeCluster(pod_groups=served)
    cluster.step(view)
    fill(cluster, *pods)
    return cluster


def fill(cluster, *pods, at=NOW, **status):
    """Let the Job have these pods, and no others."""
    cluster.job()["status"] = {"startTime": text(at), "active": len(pods), **status}
    for key in [key for key in cluster.objects if key[0] is PODS]:
        del cluster.objects[key]
    for manifest in pods:
        manifest["metadata"]["ownerReferences"][0]["uid"] = cluster.job()["metadata"]["uid"]
        cluster.add(PODS, manifest)


def unseen(index):
    """Return a pod of which the scheduler says nothing."""
    raw = unscheduled(index, "")
    return {**raw, "status": {"phase": "Pending"}}


def group(cluster):
    (found,) = cluster.of(POD_GROUPS) or [None]
    return found


def count(cluster):
    return group(cluster)["spec"]["schedulingPolicy"]["gang"]["minCount"]


def named(cluster):
    return cluster.job()["spec"]["template"]["spec"].get("schedulingGroup")


def test_a_gang_is_a_group_that_its_pods_name():
    cluster = begun(urgent(nodes=4))
    made = group(cluster)
    assert (made["apiVersion"], made["kind"]) == ("scheduling.k8s.io/v1beta1", "PodGroup")
    assert made["spec"] == {
        "schedulingPolicy": {"gang": {"minCount": 4}},
        "disruptionMode": {"all": {}},
        "priorityClassName": "urgent",
    }
    assert [owner["kind"] for owner in made["metadata"]["ownerReferences"]] == ["FineTuneJob"]
    assert named(cluster) == {"podGroupName": made["metadata"]["name"]}
    assert "priorityClassName" not in group(begun(job(nodes=2)))["spec"], (
        "the cluster's default is that of its pods too"
    )


@pytest.mark.parametrize(
    ("view", "served"),
    [(job(nodes=4), False), (job(nodes=1), True), (job(nodes=4, queue="team-a"), True)],
    ids=["no such objects", "no gang", "Kueue's"],
)
def test_elsewhere_there_is_nothing_of_it(view, served):
    cluster = begun(view, served=served)
    assert (group(cluster), named(cluster)) == (None, None)
    assert plan(cluster.context(view)).actions == ()


def test_a_job_that_has_begun_without_a_group_keeps_to_that():
    cluster = begun(job(nodes=2), served=False)
    cluster.pod_groups = True
    assert plan(cluster.context(job(nodes=2))).actions == ()


def test_a_group_that_somebody_took_away_is_made_again():
    view, cluster = job(nodes=2), begun(job(nodes=2))
    del cluster.objects[POD_GROUPS, "job-trainers"]
    cluster.step(view)
    assert count(cluster) == 2
    cluster.objects[POD_GROUPS, "job-trainers"]["spec"]["schedulingPolicy"]["gang"]["minCount"] = 1
    cluster.step(view)
    assert count(cluster) == 2, "a smaller number is no gang"
    cluster.pod_groups = False
    del cluster.objects[POD_GROUPS, "job-trainers"]
    assert plan(cluster.context(view)).actions == (), "the server has none any more"
    fill(cluster, unseen(0), unseen(1))
    assert plan(cluster.context(view, after=60)).status.waiting == [], "what cannot be seen may be there"


def test_what_is_done_is_no_part_of_the_gang():
    """A pod that has succeeded does not count for the scheduler: another one would never be replaced."""
    view, cluster = job(nodes=4), begun(job(nodes=4))
    done = pod(3, "Succeeded", code=0)
    fill(cluster, pod(0), pod(1), pod(2), done)
    assert plan(cluster.context(view)).actions == (), "nobody waits, and each end would be a write"
    fill(cluster, pod(0), pod(1), unseen(2), done)
    cluster.step(view)
    assert count(cluster) == 3
    fill(cluster, pod(0), pod(1), unseen(2), succeeded=2)
    cluster.step(view)
    assert count(cluster) == 2, "the Job knows of pods that are gone"
    fill(cluster, unseen(2), succeeded=4)
    cluster.step(view)
    assert count(cluster) == 1, "less is no group"


@pytest.mark.parametrize("nodes", [2, 1, 5])
def test_a_changed_number_of_nodes_is_another_group(nodes):
    cluster = begun(job(nodes=3, suspend=True))
    old = group(cluster)["metadata"]["uid"]
    cluster.step(job(nodes=nodes, suspend=True, generation=2))
    assert cluster.job()["spec"]["completions"] == nodes
    if nodes == 1:
        assert (group(cluster), named(cluster)) == (None, None)
    else:
        assert (count(cluster), named(cluster)) == (nodes, {"podGroupName": "job-trainers"})
        assert group(cluster)["metadata"]["uid"] != old


def test_another_priority_is_another_group():
    """That of a group can never change, and one of another priority than its pods is never scheduled."""
    cluster = begun(urgent(suspend=True))
    cluster.step(urgent(suspend=True, generation=2, priority=""))
    assert "priorityClassName" not in group(cluster)["spec"]
    cluster.step(urgent(suspend=True, generation=3, priority="low"))
    assert group(cluster)["spec"]["priorityClassName"] == "low"


def test_a_group_that_was_not_seen_while_its_job_was_made_anew_is_made_anew_too():
    cluster = begun(urgent(suspend=True))
    cluster.pod_groups = False
    cluster.step(urgent(suspend=True, generation=2, priority="low"))
    assert named(cluster) is None
    cluster.pod_groups = True
    assert plan(cluster.context(urgent(suspend=True, generation=2, priority="low"))).actions == (), "its Job is in none"
    del cluster.objects[JOBS, "job-train"]
    cluster.step(urgent(suspend=True, generation=2, priority="low"))
    assert (group(cluster)["spec"]["priorityClassName"], named(cluster)["podGroupName"]) == ("low", "job-trainers")
    group(cluster)["metadata"]["annotations"] = {}
    assert plan(cluster.context(urgent(suspend=True, generation=2, priority="low"))).actions == ()


def test_a_gang_that_resumes_has_the_priority_that_its_pods_get_now():
    """Where a class has become the cluster's default meanwhile, a group of before would never be scheduled."""
    cluster = begun(job(nodes=2, suspend=True), deleted(pod(0)))
    old = group(cluster)["metadata"]["uid"]
    cluster.step(job(nodes=2, generation=2))
    assert group(cluster)["metadata"]["uid"] == old, "a pod of it still runs"
    cluster = begun(job(nodes=2, suspend=True))
    old = group(cluster)["metadata"]["uid"]
    cluster.step(job(nodes=2, generation=2))
    assert cluster.job()["spec"]["suspend"] is False
    assert group(cluster)["metadata"]["uid"] != old
    assert plan(cluster.context(job(nodes=2, generation=2))).actions == ()


@pytest.mark.parametrize("status", [403, 422])
def test_a_gang_begins_without_a_group_that_is_refused(status, caplog):
    """By a right, a quota, or a policy that knows no PodGroups: it began before there were any."""
    sim = Simulation(nodes=2, served=True)

    def refuse(call, done):
        if call.site == ("create", "podgroups") and not done:
            raise ApiError(status, "", "no PodGroups for you")

    sim.server.interrupt = refuse
    sim.until(lambda: sim.status.get("phase") == "Running")
    template = sim.server.of("jobs")[0]["spec"]["template"]["spec"]
    assert "schedulingGroup" not in template
    assert "no PodGroups for you" in caplog.text
    assert [call.site for call in sim.server.calls].count(("create", "podgroups")) == 1
    sim.change(runPolicy={"suspend": True})
    sim.until(lambda: sim.status["phase"] == "Suspended")
    sim.change(distribution={"numNodes": 3}, runPolicy={"suspend": False})
    sim.until(lambda: sim.status["nodes"] == {"desired": 3, "ready": 3})


def test_a_job_whose_pods_name_a_group_does_not_begin_without_it():
    sim = Simulation(nodes=2, served=True, suspend=True)
    sim.until(lambda: sim.status.get("phase") == "Suspended")
    sim.server.remove("podgroups", "job-trainers")

    def refuse(call, done):
        if call.site == ("create", "podgroups") and not done:
            raise ApiError(403, "Forbidden", "the quota is used up")

    sim.server.interrupt = refuse
    sim.change(runPolicy={"suspend": False})
    sim.until(lambda: sim.status["conditions"][0]["reason"] == "Forbidden")
    assert sim.server.of("jobs")[0]["spec"]["suspend"] is True


def test_an_earlier_jobs_group_is_waited_for():
    cluster = begun(job(nodes=2, uid="u0"))
    del cluster.objects[JOBS, "job-train"]
    for key in [key for key in cluster.objects if key[0] is not POD_GROUPS]:
        del cluster.objects[key]
    status = cluster.step(job(nodes=2)).status
    assert status.conditions[0].reason == "WaitingForDeletion"
    assert "PodGroup job-trainers" in status.conditions[0].message


def test_a_group_that_is_being_deleted_keeps_no_job_from_its_suspend():
    """The server lets it go when the last of its pods has ended."""
    view, cluster = job(nodes=2), begun(job(nodes=2), pod(0), pod(1))
    group(cluster)["metadata"]["deletionTimestamp"] = text(NOW)
    cluster.step(job(nodes=2, suspend=True, generation=2))
    assert cluster.job()["spec"]["suspend"] is True
    del cluster.objects[JOBS, "job-train"]
    assert plan(cluster.context(view)).status.conditions[0].reason == "WaitingForDeletion"


@pytest.mark.parametrize(
    ("spoil", "pods", "reason", "words"),
    [
        ("gone", (unseen(0), unseen(1)), "PodGroupMissing", "PodGroup job-trainers does not exist"),
        ("", (unseen(0),), "PodGroupIncomplete", "waits for 2 pods, 1 are there"),
        ("no room", (unseen(0), unseen(1)), "Unschedulable", "0/2 nodes are available"),
        ("no room", (unscheduled(0, "no GPU"), unscheduled(1, "no GPU")), "Unschedulable", "no GPU"),
    ],
)
def test_what_a_gang_waits_for_is_said_where_its_pods_say_nothing(spoil, pods, reason, words):
    view, cluster = job(nodes=2), begun(job(nodes=2), *pods)
    if spoil == "gone":
        del cluster.objects[POD_GROUPS, "job-trainers"]
    if spoil == "no room":
        said = {"type": "PodGroupInitiallyScheduled", "status": "False", "message": "0/2 nodes are available"}
        group(cluster)["status"] = {"conditions": [{**said, "reason": "Unschedulable"}]}
    early, late = (plan(cluster.context(view, after=seconds)) for seconds in (1, 11))
    if reason.startswith("PodGroup"):
        assert (early.status.waiting, early.requeue_after) == ([], 9)
    assert [found.reason for found in late.status.waiting] == [reason] * len(pods)
    assert words in late.status.waiting[0].message
    assert late.status.conditions[0].reason == reason


def test_a_gang_that_found_its_nodes_once_is_not_said_to_be_scheduled_now():
    cluster = begun(job(nodes=2), unseen(0))
    group(cluster)["status"] = {"conditions": [{"type": "PodGroupInitiallyScheduled", "status": "True"}]}
    assert plan(cluster.context(job(nodes=2), after=60)).status.waiting[0].reason == "PodGroupIncomplete"


class Deadline:
    """A gang of two with 100 s to run, over time."""

    def __init__(self):
        self.view = job(nodes=2, activeDeadlineSeconds=100)
        self.cluster, self.status = begun(self.view), None

    def at(self, second, *pods, view=None):
        fill(self.cluster, *pods)
        return self.look(second, view)

    def look(self, second, view=None):
        for _ in range(2):  # what the first look wrote is what the second one acts on
            context = self.cluster.context(view or self.view, self.status, after=second)
            made = plan(context, TRAINS)
            for action in made.actions:
                self.cluster.apply(action)
            self.status = made.status
        return self.cluster.job()["spec"].get("activeDeadlineSeconds")


def test_the_deadline_does_not_run_while_the_gang_waits():
    story = Deadline()
    assert story.at(0, unseen(0), unseen(1)) is None
    assert story.at(500, unseen(0), unseen(1)) is None
    assert story.at(600, pod(0), pod(1)) == 600 + 100
    assert story.at(630, pod(0), pod(1)) == 600 + 100, "it is written once"
    assert story.at(640, unscheduled(0, "preempted"), unscheduled(1, "preempted")) is None
    assert story.status.phase == "Pending"
    assert story.at(940, pod(0), pod(1)) == 940 + 60
    spent = story.status.state_seconds
    assert (spent.pending, spent.training) == (900, 40)
    assert story.at(950, pod(0), disrupted(pod(1))) == 940 + 60


def test_a_suspend_keeps_what_is_left_of_the_deadline():
    story = Deadline()
    story.at(300, pod(0), pod(1))
    asleep = job(nodes=2, activeDeadlineSeconds=100, suspend=True, generation=2)
    assert story.look(340, asleep) is None
    fill(story.cluster)
    story.cluster.job()["status"] = {}
    story.look(1000, asleep)
    assert story.look(2000) is None
    fill(story.cluster, pod(0), pod(1), at=NOW + timedelta(seconds=2000))
    assert story.look(2010) == 10 + 60
    alone = job(nodes=1, activeDeadlineSeconds=100, suspend=True, generation=3)
    story.look(2030, alone)
    fill(story.cluster)
    story.cluster.job()["status"] = {}
    assert story.look(3000, alone) == 40, "a single pod goes on with what is left"


def test_a_resume_before_the_pods_have_stopped_counts_no_second_twice():
    story = Deadline()
    story.at(300, pod(0), pod(1))
    asleep = job(nodes=2, activeDeadlineSeconds=100, suspend=True, generation=2)
    assert story.look(340, asleep) is None
    assert (story.status.phase, story.status.state_seconds.state) == ("Running", "Training"), (
        "they write their checkpoint"
    )
    story.cluster.job()["status"] = {}
    assert story.look(345) is None, "the Job controller has not begun the next run"
    again = [pod(index, name=f"again-{index}", created=NOW + timedelta(seconds=350)) for index in (0, 1)]
    fill(story.cluster, deleted(pod(0)), deleted(pod(1)), at=NOW + timedelta(seconds=345))
    story.look(348)
    assert story.status.state_seconds.state == "Recovering"
    fill(story.cluster, *again, at=NOW + timedelta(seconds=345))
    assert 55 <= story.look(365) <= 65
    story.look(375, asleep)
    assert 60 <= read_carried(job_view(story.cluster.job())).active_seconds <= 72, "twice 40 and 20 s at most"


def test_a_suspend_right_after_a_resume_counts_no_second_twice():
    story = Deadline()
    story.at(300, pod(0), pod(1))
    asleep = job(nodes=2, activeDeadlineSeconds=100, suspend=True, generation=2)
    story.look(340, asleep)
    story.cluster.job()["status"] = {}
    story.look(345)
    story.look(350, asleep)
    assert 40 <= read_carried(job_view(story.cluster.job())).active_seconds <= 50


@pytest.mark.parametrize("behind", [0, 3600])
def test_the_deadline_runs_where_pods_have_nodes_and_cannot_start(behind):
    """As with an image that does not exist: the job is Pending for ever. A node's clock is not the cluster's."""
    story = Deadline()
    assert story.at(500, unseen(0), unseen(1)) is None
    stuck = [pod(index, "Pending", created=NOW + timedelta(seconds=600)) for index in (0, 1)]
    for raw in stuck:
        placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": text(NOW + timedelta(seconds=600))}
        raw["status"] |= {"startTime": text(NOW + timedelta(seconds=600 - behind)), "conditions": [placed]}
    assert story.at(630, *stuck) is None, "images are being pulled"
    made = plan(story.cluster.context(story.view, story.status, after=630))
    assert made.requeue_after == pytest.approx(30)
    assert story.at(660, *stuck) == 600 + 100
    assert story.status.phase == "Pending"
    assert story.at(680, unseen(0), unseen(1)) is None, "they have been preempted"


def test_a_gang_that_holds_a_part_gives_it_back_as_any_other():
    """One of its pods was lost, and there is no room for another."""
    view, cluster = job(nodes=2), begun(job(nodes=2), pod(0), unscheduled(1, "no room"))
    status = plan(cluster.context(view)).status
    cluster.step(view, status, after=1000)
    assert cluster.job()["spec"]["suspend"] is True
