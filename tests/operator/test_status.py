"""The status from what is there: failures, totals, texts, and what must not get lost."""

import copy
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from tests.operator.fakes import NOW, FakeCluster, deleted, disrupted, job, pod, text
from unfreeze_api.contracts.budget import MAX_DECISIONS
from unfreeze_api.contracts.progress import (
    CheckpointInfo,
    DecisionInfo,
    PhaseResult,
    Progress,
    ProgressInfo,
    Recovery,
    TerminationMessage,
)
from unfreeze_api.contracts.status import Condition, Failure, FineTuneJobStatus
from unfreeze_api.grammar.durations import duration
from unfreeze_operator.decisions.events import MOST_RESTARTS, event, notes
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.carried import accelerator_seconds
from unfreeze_operator.objects.resources import PODS
from unfreeze_operator.objects.views import has_termination_message, job_view, pod_view
from unfreeze_operator.observed.failure import first_failed, pod_failure
from unfreeze_operator.status.build import condition, delayed, worth_writing
from unfreeze_operator.status.training import at_rest, gather, summarize


def words(**fields):
    return TerminationMessage(**{"outcome": "Failed", "reason": "InvalidData", **fields}).to_termination_log()


def world(*pods, conditions=(), **job_status):
    view = job(nodes=2)
    cluster = FakeCluster()
    cluster.step(view)
    raw = cluster.job()
    found = [{"type": t, "status": "True", "reason": r, "lastTransitionTime": text(NOW)} for t, r in conditions]
    raw["status"] = {"conditions": found, **job_status}
    for number, manifest in enumerate(pods):
        manifest["metadata"]["name"] += f"-{number}"
        manifest["metadata"]["ownerReferences"][0]["uid"] = raw["metadata"]["uid"]
        cluster.add(PODS, manifest)
    return cluster, view


def observed(*pods, old=None, after=0, progress=None, **fields):
    cluster, view = world(*pods, **fields)
    return plan(cluster.context(view, old, after=after), progress).status


def views(*manifests):
    return [pod_view(raw | {"metadata": raw["metadata"] | {"uid": str(n)}}) for n, raw in enumerate(manifests)]


@pytest.mark.parametrize(
    "asked",
    [
        "Eviction API: evicting",
        "Taint manager: deleting due to NoExecute taint",
        "Device Taint manager: deleting due to NoExecute taint",
        "default-scheduler: preempting to accommodate a higher priority pod",
    ],
)
def test_who_takes_a_pod_away_is_said(asked):
    leaving = deleted(disrupted(pod(1)))
    leaving["status"]["conditions"][-1]["message"] = asked
    status = observed(pod(0), leaving, old=FineTuneJobStatus(phase="Running"))
    running = status.conditions[0]
    assert (running.status, running.reason) == ("False", "PodsRestarting")
    assert running.message == f"1 of 2 pods running; job-1-running-1 is taken away ({asked}) and writes its checkpoint"


def test_the_pod_that_failed_first_has_the_cause():
    early = pod(1, "Failed", code=1, ended=NOW + timedelta(seconds=5), message=words(rank=1))
    late = pod(0, "Failed", code=1, ended=NOW + timedelta(seconds=9), message=words(reason="Other"))
    assert pod_failure(first_failed(views(late, early))).rank == 1


def test_what_a_leader_said_counts_although_its_pod_is_gone():
    at = CheckpointInfo(step=5, time=NOW)
    said = TerminationMessage(
        outcome="Stopped", reason="Stopped", checkpoint=at, progress=Progress(step=5, checkpoint=at)
    )
    cluster, view = world()
    last = pod(0, "Failed", code=143, message=said.to_termination_log())
    last["metadata"]["ownerReferences"][0]["uid"] = cluster.job()["metadata"]["uid"]
    cluster.departed.append(last)
    assert plan(cluster.context(view), None).status.checkpoint == at


@pytest.mark.parametrize("gone", [True, False])
def test_what_a_leader_said_counts_although_another_one_is_there(gone):
    """A node is drained: one look at the job may see the end of the old pod and the new one at once."""
    at = CheckpointInfo(step=5, time=NOW + timedelta(seconds=9))
    said = TerminationMessage(outcome="Stopped", reason="Stopped", checkpoint=at).to_termination_log()
    old = FineTuneJobStatus(phase="Running", checkpoint=CheckpointInfo(step=3, time=NOW))
    last = deleted(pod(0, "Failed", code=143, message=said))
    new = pod(0, created=NOW + timedelta(seconds=9))
    cluster, view = world(new) if gone else world(last, new)
    if gone:
        last["metadata"]["ownerReferences"][0]["uid"] = cluster.job()["metadata"]["uid"]
        cluster.departed.append(last)
    known = plan(cluster.context(view, old)).status
    assert known.checkpoint == at
    back = CheckpointInfo(step=4, time=NOW)
    assert plan(cluster.context(view, known), Progress(checkpoint=back)).status.checkpoint == back, (
        "who leads knows best"
    )


def test_a_checkpoint_that_was_found_broken_is_not_shown_again():
    """Not by the last words of who wrote it, before the leader at hand has written another one."""
    ended = [NOW + timedelta(seconds=seconds) for seconds in (10, 110)]
    fives, nines = (CheckpointInfo(step=step, time=at) for step, at in zip((5, 9), ended, strict=True))
    said = {at.step: words(outcome="Stopped", reason="Stopped", checkpoint=at) for at in (fives, nines)}
    wrote = [
        deleted(pod(0, "Failed", name=f"old-{at.step}", code=143, ended=at.time, message=said[at.step]))
        for at in (fives, nines)
    ]
    last, three = pod(0, name="new", created=NOW + timedelta(seconds=200)), CheckpointInfo(step=3, time=NOW)

    def seen(before, *pods, said=None, after=0):
        return observed(*copy.deepcopy(pods), pod(1), old=before, progress=said, after=after)

    before = FineTuneJobStatus(phase="Running", checkpoint=three)
    assert seen(before, wrote[0], last).checkpoint == fives
    for checkpoint in (three, None):
        lost = Recovery(step=3, time=NOW, message="step-5 is broken")
        status = seen(before, wrote[0], last, said=Progress(recovery=lost, checkpoint=checkpoint), after=20)
        assert status.checkpoint == three
        assert seen(status, wrote[0], last, after=30).checkpoint == three, "the operator has started again"
    assert seen(status, *wrote, last, after=120).checkpoint == nines, "that one was written later"
    lost = Recovery(step=3, time=NOW, message="step-9 is broken")
    status = seen(status, *wrote, last, said=Progress(recovery=lost, checkpoint=three), after=220)
    assert condition(status, "CheckpointBroken").last_transition_time == NOW + timedelta(seconds=220)
    assert seen(status, *wrote, last, after=230).checkpoint == three


def test_an_error_of_the_job_wins_within_the_same_second():
    pods = views(pod(0, "Failed", code=1), pod(1, "Failed", code=2, message=words(rank=1)))
    assert first_failed(pods).index == 1


def test_an_earlier_round_of_failures_is_past():
    hour = timedelta(hours=1)
    old = pod(0, "Failed", code=137, reason="OOMKilled", ended=NOW + timedelta(minutes=1))
    new = pod(0, "Failed", code=1, created=NOW + hour, ended=NOW + 2 * hour, message=words(reason="New"))
    assert pod_failure(first_failed(views(old, new))).reason == "New"


def test_a_pod_that_was_asked_to_stop_did_not_fail():
    assert first_failed(views(deleted(pod(0, "Failed", code=143)))) is None
    assert first_failed(views(disrupted(pod(0, "Failed", code=143)))) is None


def test_a_pod_that_stopped_unasked_did():
    (found,) = views(pod(0, "Failed", code=143, message=words(outcome="Stopped", reason="Stopped")))
    assert pod_failure(first_failed([found])).reason == "UnexpectedStop"


@pytest.mark.parametrize(
    ("reason", "code", "expected"),
    [("OOMKilled", 137, "OutOfMemory"), ("Evicted", 1, "Evicted"), ("Error", 7, "ContainerFailed")],
)
def test_without_words_the_container_tells(reason, code, expected):
    (found,) = views(pod(0, "Failed", code=code, reason=reason, message="last line"))
    failure = pod_failure(found)
    assert (failure.reason, failure.exit_code, failure.node, failure.log_tail) == (
        expected,
        code,
        "node-0",
        "last line",
    )


REJECTED = "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate nvidia.com/gpu"
EVICTED = "The node was low on resource: ephemeral-storage. Container trainer was using 20Gi, request is 0"


@pytest.mark.parametrize(
    ("found", "reason", "said"),
    [
        ({"reason": "UnexpectedAdmissionError", "message": REJECTED}, "ContainerCannotRun", REJECTED),
        ({"reason": "Evicted", "message": EVICTED}, "Evicted", EVICTED),
        ({"reason": "Evicted", "message": EVICTED, "code": 137}, "Evicted", EVICTED),
        ({"code": 137, "by": "PodGC: node no longer exists"}, "ContainerFailed", "PodGC: node no longer exists"),
        ({"by": "PodGC: node no longer exists"}, "ContainerFailed", "PodGC: node no longer exists"),
    ],
    ids=["no device", "not started", "evicted", "killed", "without an end"],
)
def test_what_the_node_says_of_the_end_is_shown(found, reason, said):
    """As kubelets write it: what they did not take has no container, what they evict ended in their own way."""
    raw = pod(0, "Failed", code=found.get("code"), reason="Error", message="last line")
    raw["status"] |= {key: found[key] for key in ("reason", "message") if key in found}
    if "by" in found:
        raw = disrupted(raw)
        raw["status"]["conditions"][-1]["message"] = found["by"]
    failure = pod_failure(views(raw)[0])
    assert (failure.reason, failure.exit_code) == (reason, found.get("code"))
    assert said in failure.message
    assert "None" not in failure.message
    assert failure.log_tail == ("last line" if "code" in found else None)


def test_who_is_done_is_not_missed_when_its_pod_is_gone():
    """A drain takes ended pods away too, while the leader still exports."""
    whole = observed(pod(0), pod(1))
    status = observed(pod(0), old=whole, after=9, startTime=text(NOW), succeeded=1, active=1)
    running = condition(status, "Running")
    assert (status.phase, running.status, running.reason) == ("Running", "True", "PodsRunning")


def test_phases_of_a_start():
    assert observed().phase == "Pending"
    assert observed(pod(0)).phase == "Pending"
    running = observed(pod(0), pod(1))
    assert (running.phase, running.nodes.ready, running.start_time) == ("Running", 2, NOW)


def test_the_end_waits_for_the_termination_messages_but_not_for_ever():
    ended = {"conditions": [("Complete", "CompletionsReached")], "completionTime": text(NOW)}
    assert observed(pod(0), pod(1, "Succeeded", code=0), **ended).phase == "Running"
    assert observed(pod(0), pod(1, "Succeeded", code=0), after=31, **ended).phase == "Succeeded"


def test_the_leaders_termination_message_completes_the_status():
    progress = Progress(activity="Done", percent=100, step=9, total_steps=9, results={"test.accuracy": 0.9})
    last = words(outcome="Succeeded", reason="Completed", progress=progress)
    pods = pod(0, "Succeeded", code=0, message=last), pod(1, "Succeeded", code=0)
    status = observed(*pods, conditions=[("Complete", "")], completionTime=text(NOW))
    assert status.results == {"test.accuracy": 0.9}
    assert status.summary.metric == "accuracy 0.900 (test)"
    assert status.completion_time == NOW


def test_a_leader_that_starts_again_does_not_take_progress_away():
    old = FineTuneJobStatus(
        progress=ProgressInfo(percent=41, step=410, total_steps=1000),
        checkpoint=CheckpointInfo(step=400, time=NOW),
        phases=[PhaseResult(name="head", steps=1, seconds=1, trainable_parameters=1, metrics={"accuracy": 0.5})],
    )
    status = observed(pod(0), pod(1), old=old, progress=Progress())
    assert (status.progress, status.checkpoint, status.phases) == (old.progress, old.checkpoint, old.phases)
    started = Progress(activity="Training", step=401, percent=40)
    assert observed(pod(0), pod(1), old=old, progress=started).progress.step == 401


def test_phases_that_a_short_message_left_out_stay():
    metrics = {"accuracy": 0.5}
    phases = [PhaseResult(name=n, steps=1, seconds=1, trainable_parameters=1, metrics=metrics) for n in ("head", "all")]
    cut = [phase.model_copy(update={"metrics": {}}) for phase in phases]
    old = FineTuneJobStatus(phases=phases)
    assert gather(old, None, Progress(activity="Done", phases=cut)).phases == phases
    assert gather(old, None, Progress(activity="Done", phases=cut[1:])).phases == phases


def test_stages_are_told_apart():
    one, two = (PhaseResult(name=name, steps=9, seconds=1, trainable_parameters=1) for name in ("domain.all", "all"))
    first = Progress(activity="Training", step=9, total_steps=9, percent=99, stage="1 of 2: domain", phases=[one])
    status = observed(pod(0), pod(1), progress=first)
    assert (status.progress.stage, status.summary.progress) == ("1 of 2: domain", "99% stage 1 of 2")
    assert [point.step for point in status.history] == [9]
    last = Progress(
        activity="Training", step=2, total_steps=4, percent=50, stage="2 of 2: the job itself", phases=[one]
    )
    status = observed(pod(0), pod(1), old=status, progress=last)
    assert [point.step for point in status.history] == [2]  # steps of the stage before are others
    done = last.model_copy(update={"step": 4, "percent": 100, "phases": [two]})
    assert observed(pod(0), pod(1), old=status, progress=done).phases == [one, two]


def test_last_words_count_before_the_pods_phase_follows_and_after_the_pod_is_gone():
    said = TerminationMessage(
        outcome="Succeeded", reason="Completed", progress=Progress(activity="Done", results={"test.accuracy": 0.9})
    )
    last = pod(0, "Running", code=0, message=said.to_termination_log())
    assert observed(last, pod(1)).results == {"test.accuracy": 0.9}
    assert has_termination_message(*views(last))
    assert not has_termination_message(*views(pod(0)))


def test_a_training_that_diverged_can_still_be_written():
    nan = Progress.model_validate_json('{"state": "Training", "step": 1, "loss": NaN, "metrics": {"accuracy": NaN}}')
    status = observed(pod(0), pod(1), progress=nan)
    assert status.progress.loss is None
    assert status.progress.metrics == {}
    json.dumps(status.model_dump(mode="json"), allow_nan=False)


def test_restarts_count_replaced_pods_and_never_fall():
    pods = pod(0, "Failed", code=1), pod(0), pod(1)
    status = observed(*pods)
    assert status.restarts.pods == 1
    assert observed(pod(0), pod(1), old=status).restarts.pods == 1


def test_a_live_pod_never_counts_more_than_its_end_confirms():
    (live,) = views(pod(0))
    (ended,) = views(pod(0, "Succeeded", code=0, ended=NOW + timedelta(seconds=3)))
    during = accelerator_seconds([live], 2, NOW + timedelta(seconds=3, microseconds=900_000))
    assert during == accelerator_seconds([ended], 2, NOW + timedelta(seconds=9)) == 6


def test_a_node_whose_clock_is_behind_makes_no_pod_dearer():
    """What was told of a live pod is never taken back: it would be counted once more for the pod that replaces it."""
    behind = timedelta(minutes=10)
    live, ended = pod(0), pod(0, "Failed", code=1, ended=NOW - behind + timedelta(hours=1))
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": text(NOW)}
    for raw in (live, ended):
        raw["status"]["startTime"] = text(NOW - behind)
        raw["status"]["conditions"].append(placed)
    last = NOW + timedelta(hours=1)
    assert [accelerator_seconds(views(raw), 1, last) for raw in (live, ended)] == [3600, 3600]


def test_the_clock_of_accelerators_alone_is_written_once_a_minute():
    old = FineTuneJobStatus(phase="Running", accelerator_seconds=100)
    assert not worth_writing(old, old.model_copy(update={"accelerator_seconds": 219}), 2)
    assert worth_writing(old, old.model_copy(update={"accelerator_seconds": 220}), 2)
    assert worth_writing(old, old.model_copy(update={"accelerator_seconds": 101, "phase": "Failed"}), 2)


def test_a_time_of_transition_moves_only_with_its_value():
    first = observed(pod(0), pod(1))
    again = observed(pod(0), pod(1), old=first, after=100)
    assert again.conditions == first.conditions
    crashed = observed(pod(0, "Failed", code=1), pod(1), old=first, after=100, active=1)
    assert crashed.phase == "Running"
    running = condition(crashed, "Running")
    assert (running.status, running.reason, running.last_transition_time) == (
        "False",
        "PodsRestarting",
        NOW + timedelta(seconds=100),
    )


def reconciling(status):
    """Return whether kstatus takes the job for one that is not yet as its spec wants it, and why."""
    found = condition(status, "Reconciling")
    return found is not None and found.status == "True" and found.reason


def test_a_job_is_being_reconciled_while_pods_should_run_and_do_not():
    pending = observed()
    assert reconciling(pending) == "PodsPending"
    running = observed(pod(0), pod(1), old=pending)
    assert not reconciling(running)
    assert reconciling(observed(pod(0, "Failed", code=1), pod(1), old=running, active=1)) == "PodsRestarting"
    failed = observed(pod(0, "Failed", code=1), old=pending, conditions=[("Failed", "BackoffLimitExceeded")])
    assert (condition(failed, "Stalled").status, reconciling(failed)) == ("True", False)


@pytest.mark.parametrize(
    ("end", "pods", "fields", "phase"),
    [
        (("Complete", "CompletionsReached"), [pod(0, "Succeeded", code=0)], {}, "Succeeded"),
        (("Complete", "CompletionsReached"), [pod(1, "Succeeded", code=0)], {}, "Running"),
        (("Complete", "CompletionsReached"), [pod(0, "Failed", code=1)], {}, "Running"),
        (("Complete", "CompletionsReached"), [], {}, "Running"),
        (("Complete", "CompletionsReached"), [], {"after": 30}, "Succeeded"),
        (("Failed", "BackoffLimitExceeded"), [pod(1, "Failed", code=1)], {}, "Failed"),
        (("Failed", "BackoffLimitExceeded"), [], {}, "Running"),
        (("Failed", "BackoffLimitExceeded"), [], {"after": 30}, "Failed"),
        (("Failed", "DeadlineExceeded"), [], {}, "Failed"),
    ],
)
def test_a_job_ends_when_its_pods_say_how_and_they_may_be_heard_of_later_than_its_end(end, pods, fields, phase):
    running = FineTuneJobStatus(phase="Running")
    status = observed(*copy.deepcopy(pods), old=running, conditions=[end], active=1, **fields)
    assert status.phase == phase
    assert (status.completion_time is not None) == (phase != "Running")


@pytest.mark.parametrize(("step", "reason"), [(20, "WentBack"), (0, "StartedOver")])
def test_a_broken_checkpoint_stands_in_the_status_for_good_and_is_told_once(step, reason):
    lost = Recovery(step=step, time=NOW, message="step-40: weights.safetensors has 7 of 99 bytes: ...")
    before = observed(pod(0), pod(1))
    after = observed(pod(0), pod(1), old=before, progress=Progress(recovery=lost))
    told = condition(after, "CheckpointBroken")
    assert (told.status, told.reason, told.message) == ("True", reason, lost.message)
    assert [(note.type, note.reason, note.text) for note in notes(before, after)] == [
        ("Warning", "CheckpointBroken", lost.message)
    ]
    # Another leader, which found everything whole, changes nothing.
    later = observed(pod(0), pod(1), old=after, after=60, progress=Progress(step=50))
    assert condition(later, "CheckpointBroken") == told
    assert notes(after, later) == []
    assert condition(before, "CheckpointBroken") is None


@pytest.mark.parametrize(("low", "status"), [(-0.03, "False"), (0.0, "False"), (0.01, "True")])
def test_what_a_model_is_worth_is_told_once_the_job_has_succeeded(low, status):
    figures = {"validation.majority": 0.625, "validation.gainLow": low, "validation.gainHigh": 0.0551}
    progress = Progress(activity="Done", percent=100, step=9, total_steps=9, results={"test.accuracy": 0.9, **figures})
    running = observed(pod(0), pod(1), progress=progress)
    assert condition(running, "Useful") is None
    last = words(outcome="Succeeded", reason="Completed", progress=progress)
    pods = pod(0, "Succeeded", code=0, message=last), pod(1, "Succeeded", code=0)
    ended = {"conditions": [("Complete", "")], "completionTime": text(NOW)}
    after = observed(*pods, old=running, **ended)
    told = condition(after, "Useful")
    reason = "BetterThanMajority" if status == "True" else "NoBetterThanMajority"
    assert (after.phase, told.status, told.reason) == ("Succeeded", status, reason)
    assert (
        f"has 0.625 on the validation data; the 95 % interval of what the model has more is {low:+.3f} to"
        in told.message
    )
    warned = [("Warning", reason, told.message)] if status == "False" else []
    events = [(note.type, note.reason, note.text) for note in notes(running, after)]
    assert events == [*warned, ("Normal", "Succeeded", "the job has succeeded")]
    assert notes(after, after) == []
    silent = pod(0, "Succeeded", code=0, message=words(outcome="Succeeded", reason="Completed")), pods[1]
    assert condition(observed(*silent, **ended), "Useful") is None, "an older trainer does not compare"


def test_how_good_the_model_is_stands_in_complete_and_stays_when_the_pod_is_gone():
    sentence = "The model's accuracy is 0.913 on 538 test samples (95 % interval 0.890 to 0.935)."
    last = words(outcome="Succeeded", reason="Completed", message=sentence)
    ended = {"conditions": [("Complete", "")], "completionTime": text(NOW)}
    after = observed(pod(0, "Succeeded", code=0, message=last), pod(1, "Succeeded", code=0), **ended)
    assert condition(after, "Complete").message == f"the job has succeeded. {sentence}"
    later = observed(old=after, after=60, **ended)
    assert condition(later, "Complete") == condition(after, "Complete")
    silent = pod(0, "Succeeded", code=0, message=words(outcome="Succeeded", reason="Completed"))
    assert condition(observed(silent, **ended), "Complete").message == "the job has succeeded"


@pytest.mark.parametrize("told", ["größe " * 300, "大" * 600, "x" * 3000])
def test_an_event_is_no_longer_than_the_api_server_takes(told):
    status = FineTuneJobStatus(phase="Failed", failure=Failure(reason="InvalidData", message=told))
    (note,) = notes(FineTuneJobStatus(phase="Running"), status)
    assert 1000 < len(event(job(), note, NOW, "me")["note"].encode()) <= 1024


def test_a_trainer_cannot_have_events_made_at_will():
    """Each look at the job hears something new of a trainer that makes it up."""
    cluster, view = world(pod(0), pod(1))
    status, posted = FineTuneJobStatus(), Counter()
    for step in range(100):
        made = [DecisionInfo(type=f"T{step}", answer="", message="new", step=step + more) for more in range(3)]
        lost = Recovery(step=1, time=NOW, message=f"step-{step} is broken")
        said = Progress(activity="Training", step=step, restarts=step, decisions=made, recovery=lost)
        new = plan(cluster.context(view, status, after=step), said).status
        names = [(note.reason, event(view, note, NOW, "me")["metadata"]["name"]) for note in notes(status, new)]
        posted.update(dict.fromkeys(names, 1))
        status = new
    told = Counter(reason for reason, _ in posted)
    trainers = {"Decided": MAX_DECISIONS, "CheckpointBroken": MOST_RESTARTS + 1, "WorkersRestarted": MOST_RESTARTS}
    assert told == {"Running": 1, **trainers}


def test_a_gang_that_was_preempted_and_runs_again_is_told_of_each_time():
    """Of the scheduler's: its Job is the same one, and began when it did."""
    for grouped, runs in ((True, 3), (False, 1)):
        _, view = world()
        child = replace(job_view(world(startTime=text(NOW))[0].job()), pod_group="job-trainers" if grouped else "")
        seen = [
            FineTuneJobStatus(phase=phase, conditions=[running(phase == "Running", second)])
            for second, phase in enumerate(("Pending", "Running") * 3)
        ]
        told = [note for old, new in pairwise(seen) for note in notes(old, new, child) if note.reason == "Running"]
        names = {event(view, note, NOW, "me")["metadata"]["name"] for note in (*told, *told)}
        assert (len(told), len(names)) == (3, runs)


def running(holds, second):
    at = NOW + timedelta(seconds=second)
    return Condition(type="Running", status=str(holds), reason="PodsRunning", message="", last_transition_time=at)


def test_a_decision_stands_in_the_status_for_good_and_is_told_once():
    first = DecisionInfo(type="Range", answer="2e-5", message="the loss falls fastest at 2e-5", step=0)
    second = DecisionInfo(type="Baseline", answer="No", message="it is not better", step=40, warning=True)
    before = observed(pod(0), pod(1), progress=Progress(step=9, decisions=[first]))
    after = observed(pod(0), pod(1), old=before, progress=Progress(step=40, decisions=[first, second]))
    assert after.decisions == [first, second]
    assert [(note.type, note.reason, note.text) for note in notes(before, after)] == [
        ("Warning", "Decided", "Baseline: it is not better")
    ]
    assert notes(after, after) == []
    # Another leader, which resumes from before the second one, or says nothing of decisions.
    for said in (Progress(), Progress(step=20, decisions=[first])):
        later = observed(pod(0), pod(1), old=after, progress=said)
        assert later.decisions == [first, second]
        assert notes(after, later) == []
    again = observed(
        pod(0), pod(1), old=after, progress=Progress(decisions=[first, second.model_copy(update={"answer": "Yes"})])
    )
    assert [one.answer for one in again.decisions] == ["2e-5", "Yes"]
    last = words(outcome="Succeeded", reason="Completed", progress=Progress(activity="Done", decisions=[first, second]))
    ended = observed(pod(0, "Succeeded", code=0, message=last), old=before, conditions=[("Complete", "")])
    assert ended.decisions == [first, second]


def test_of_more_than_eight_decisions_the_last_ones_are_told_too():
    """As of a job with Auto, several rungs and evidence, whose end says the most."""
    gates = [DecisionInfo(type="Rung", answer="Yes", message=f"gate {step}", step=step) for step in range(7)]
    end = [DecisionInfo(type=kind, answer="No", message="", step=9) for kind in ("Strategy", "Baseline", "Forgetting")]
    before = observed(pod(0), pod(1), progress=Progress(step=9, decisions=gates))
    after = observed(pod(0), pod(1), old=before, progress=Progress(step=9, decisions=[*gates, *end]))
    told = notes(before, after)
    assert [note.text for note in told] == [f"{one.type}: " for one in sorted(end, key=lambda one: one.key)]
    assert len({event(job(), note, NOW, "me")["metadata"]["name"] for note in told}) == 3
    again = observed(pod(0), pod(1), old=after, progress=Progress(decisions=[end[0].model_copy(update={"step": 20})]))
    names = {event(job(), note, NOW, "me")["metadata"]["name"] for note in (*told, *notes(after, again))}
    assert len(names) <= 4, "once of each type"


def test_the_newest_eight_decisions_stay():
    many = [DecisionInfo(type="Gate", answer="Go", message="on", step=step) for step in range(12)]
    status = observed(pod(0), pod(1), progress=Progress(decisions=many[:8]))
    status = observed(pod(0), pod(1), old=status, progress=Progress(decisions=many[4:]))
    assert status.decisions == many[4:]
    assert observed(pod(0), pod(1), old=status, progress=Progress(decisions=many[:8])).decisions == many[4:]


def test_each_step_of_life_is_told_once():
    pending, running = observed(), observed(pod(0), pod(1))
    assert notes(FineTuneJobStatus(), pending) == [], "the status tells"
    assert [note.reason for note in notes(pending, running)] == ["Running"]
    assert notes(running, running) == []
    [first], [second] = notes(pending, running), notes(pending, running.model_copy(update={"observed_generation": 3}))
    assert first.mark != second.mark, "resumed within the same second: two events"
    assert notes(running, running.model_copy(update={"progress": ProgressInfo(step=5)})) == []


@pytest.mark.parametrize("reason", ["NameTaken", "Forbidden", "NodesGivenBack"])
@pytest.mark.parametrize("before", [None, "Running"])
def test_what_keeps_a_job_from_its_pods_is_an_event_whatever_phase_it_comes_with(reason, before):
    """A quota or a name that is taken is met at the very first look; nodes are given back by a gang that ran before."""
    old = FineTuneJobStatus() if before is None else observed(pod(0), pod(1))
    blocked = delayed(observed(old=old), NOW, reason, "why")
    assert (old.phase, blocked.phase) == (before, "Pending")
    assert [(note.type, note.reason, note.text) for note in notes(old, blocked)] == [("Warning", reason, "why")]
    assert notes(blocked, blocked) == []


def test_a_running_job_whose_child_cannot_be_mended_is_written_once():
    """It is tried again each minute, and its pods run all the while."""
    whole = observed(pod(0), pod(1))
    first = delayed(
        observed(pod(0), pod(1), old=whole, after=60), NOW + timedelta(seconds=60), "Forbidden", "why", old=whole
    )
    again = delayed(
        observed(pod(0), pod(1), old=first, after=120), NOW + timedelta(seconds=120), "Forbidden", "why", old=first
    )
    assert condition(first, "Running").last_transition_time == NOW + timedelta(seconds=60)
    assert not worth_writing(first, again, 0)


def test_two_operators_tell_of_a_run_once_and_each_run_of_a_queue_is_told():
    """One of them knows the job's status as it was before."""
    pending, running = observed(), observed(pod(0), pod(1))
    late = pending.model_copy(update={"conditions": []})
    first, second = (job_view(world(startTime=text(NOW + timedelta(hours=hours)))[0].job()) for hours in (0, 1))
    marks = [notes(old, running, job)[0].mark for old, job in ((pending, first), (late, first), (pending, second))]
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0s"), (35, "35s"), (95, "1m35s"), (3600, "1h"), (3660, "1h1m"), (90061, "1d1h"), (120, "2m")],
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_what_is_fetched_is_shown_and_does_not_hide_how_far_the_training_was():
    said = Progress(fetched_bytes=3 << 30, total_bytes=16_000_000_000)
    first = gather(FineTuneJobStatus(), None, said)
    assert (first.progress.fetched_bytes, first.progress.total_bytes) == (3 << 30, 16_000_000_000)
    assert summarize(first, "accuracy").progress == "fetching 3.0 of 14.9 GiB"
    trained = FineTuneJobStatus(progress=ProgressInfo(percent=40, step=4, total_steps=10))
    again = gather(trained, None, said)
    assert (again.progress.step, again.progress.total_bytes) == (4, 16_000_000_000)
    loading = gather(FineTuneJobStatus(progress=again.progress), None, Progress())
    assert summarize(loading, "accuracy").progress == "40%"
    assert at_rest(again.progress).total_bytes is None
