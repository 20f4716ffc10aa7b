"""The budget of a status: below 32 KiB whatever pods and scheduler say, written seldom, and the same once it is written."""

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crds.test_budget_of_progress import ended, largest
from tests.crds.test_contracts import PROGRESS
from tests.operator.fakes import NOW, FakeCluster, job, pod, text, unscheduled
from tests.operator.simulation import Simulation
from unfreeze_api.contracts.progress import Progress, ProgressInfo, TerminationMessage
from unfreeze_api.contracts.status import (
    Condition,
    Cost,
    Failure,
    FineTuneJobStatus,
    HistoryPoint,
    Restarts,
    WaitingPod,
)
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import PODS
from unfreeze_operator.status.budget import MAX_STATUS_BYTES, clipped, stored_bytes, wire, within_budget
from unfreeze_operator.status.build import delayed, held, refused, urgent
from unfreeze_operator.status.training import gather, summarize

WIDE = ["<", "\x00", "\N{LINE SEPARATOR}", "€", "\N{ICE CUBE}", "x"]
"""Characters that take six, three, four bytes and one of JSON."""


def size(status):
    return stored_bytes(wire(status))


def hostile_words(character):
    """Return a termination message as long as Kubernetes keeps them, of a leader that tells all there is to tell."""
    said = TerminationMessage(
        outcome="Failed", reason="R" * 64, message=character * 1500, rank=2**31, exit_code=1, log_tail=character * 1500
    )
    return said.to_termination_log()


def full(progress, *, character="x", old=None):
    """Return what is planned for a job of 40 pods, of which one has failed, one is gone and the others wait."""
    view, cluster = job(nodes=40), FakeCluster()
    cluster.step(view)
    owner = cluster.job()["metadata"]["uid"]
    pods = [
        pod(0),
        pod(1, "Failed", code=1, message=hostile_words(character)),
        pod(2, "Failed", code=2, message=character * 4096),
    ]
    pods += [unscheduled(index, character * 32768) for index in range(3, 40)]
    for number, raw in enumerate(pods):
        raw["metadata"]["name"] = f"job-{number}-".ljust(253, "p")
        raw["spec"] |= {"nodeName": "n" * 253} if number < 3 else {}
        raw["metadata"]["ownerReferences"] = [{"uid": owner, "controller": True}]
        cluster.add(PODS, raw)
    return plan(cluster.context(view, old), progress).status


def filled(status, character="x"):
    """Return a status with every part as large as its schema allows, as an operator of before may have written it."""
    kinds = ("Running", "Suspended", "Complete", "Failed", "Reconciling", "Stalled", "CheckpointBroken", "Useful")
    conditions = [
        Condition(type=kind, status="Unknown", reason="R" * 64, message=character * 32768, last_transition_time=NOW)
        for kind in kinds
    ]
    failure = Failure(
        reason="R" * 64,
        message=character * 4096,
        pod="p" * 253,
        node="n" * 253,
        rank=2**53,
        exit_code=-(2**53),
        log_tail=character * 4096,
    )
    said = largest(128)
    return status.model_copy(
        update={
            "conditions": conditions,
            "waiting": [WaitingPod(pod="p" * 253, reason="R" * 64, message=character * 1024)] * 16,
            "history": [HistoryPoint(step=2**53, loss=-1e300 / 3, metric=-1e-300 / 3)] * 64,
            "failure": failure,
            "progress": said.info(),
            "phases": said.phases,
            "results": said.results,
            "decisions": said.decisions[-8:],
            "cost": Cost(
                accelerator_hours=1e15 / 3,
                estimated_accelerator_hours=1e15 / 3,
                amount=1e15 / 3,
                estimated_amount=1e15 / 3,
                currency="EUR",
                text=character * 64,
            ),
        }
    )


@pytest.mark.parametrize(("length", "character"), [(128, "<"), (63, "<"), (8, "<"), (63, "€"), (63, "x")])
def test_the_largest_status_is_below_32_kib(length, character):
    status = full(largest(length), character=character)
    assert MAX_STATUS_BYTES / 2 < size(status) <= MAX_STATUS_BYTES
    parts = {"conditions", "failure", "waiting", "progress", "phases", "history", "omitted", "decisions"}
    assert parts | ({"results"} if length < 64 else set()) <= {*wire(status)}
    assert len(status.phases) >= 3
    assert full(largest(length), character=character, old=status) == status, "written once, it rests"


@pytest.mark.slow
@pytest.mark.parametrize("character", ["<", "€"])
def test_so_is_what_an_operator_of_before_has_left(character):
    old = filled(full(largest(128)), character)
    assert size(old) > 10 * MAX_STATUS_BYTES
    for status in (
        within_budget(old),
        full(None, old=old),
        full(largest(63), old=old),
        delayed(old, NOW, "NameTaken", character * 9000),
        refused(job(), old, NOW, "InvalidSpec", character * 9000),
        held(job(), old, NOW, "InvalidSpec", character * 9000),
    ):
        assert size(status) <= MAX_STATUS_BYTES
        assert within_budget(status) == status
        assert status.phases


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(PROGRESS, min_size=1, max_size=4), st.text(max_size=2000))
def test_whatever_leaders_say_one_after_another(answers, message):
    status = FineTuneJobStatus(failure=Failure(reason="R", message=message))
    for said in answers:
        training = gather(status, None, said)
        status = within_budget(
            status.model_copy(
                update={
                    "progress": training.progress,
                    "phases": training.phases,
                    "results": training.results,
                    "decisions": training.decisions,
                    "omitted": training.omitted,
                    "summary": summarize(training, "accuracy"),
                }
            )
        )
        assert size(status) <= MAX_STATUS_BYTES
        assert within_budget(status) == status
        assert FineTuneJobStatus.model_validate_json(json.dumps(wire(status))) == status


def test_an_honest_status_is_not_changed():
    status = full(None)
    assert not status.omitted
    many = [ended(f"layer.{number}") for number in range(24)]
    told = Progress(activity="Training", step=99, phase_index=24, phases=many, metrics={"accuracy": 0.5})
    status = full(told)
    assert status.phases == many
    assert status.omitted is None


def told(*names, **fields):
    return Progress(activity="Training", phases=[ended(name) for name in names], **fields)


def after(*answers, old=None):
    """Return what a status has after a job's leader has said this and that."""
    status = old or FineTuneJobStatus()
    for said in answers:
        training = gather(status, None, said)
        status = within_budget(status.model_copy(update={"phases": training.phases, "omitted": training.omitted}))
    return status


def listed(status):
    return [phase.name for phase in status.phases], status.omitted and status.omitted.phases


def layers(first, last):
    return [f"layer.{number}" for number in range(first, last)]


@pytest.mark.slow
def test_the_newest_64_phases_are_listed_and_the_others_counted():
    assert listed(after(told(*layers(0, 64)))) == (layers(0, 64), None)
    assert listed(after(told(*layers(0, 100)))) == (layers(36, 100), 36)
    growing = [told(*layers(0, number)) for number in range(58, 101)]
    assert listed(after(*growing)) == (layers(36, 100), 36)
    assert listed(after(*growing, *growing[-1:] * 3)) == (layers(36, 100), 36)


@pytest.mark.slow
def test_so_it_is_with_a_leader_that_tells_of_its_newest_alone():
    windows = [told(*layers(max(0, number - 64), number), phase_index=number) for number in range(58, 101)]
    assert listed(after(*windows)) == (layers(36, 100), 36)
    assert listed(after(windows[-1])) == (layers(36, 100), 36), "nobody has looked before"
    assert listed(after(windows[0], windows[-1])) == (layers(36, 100), 36), "nor for a long time"
    assert listed(after(*windows[:30], told(*layers(0, 100)))) == (layers(36, 100), 36), "a leader of before"


def test_a_leader_that_is_seen_late_tells_the_rest_later():
    short = Progress(activity="Done", phase_index=3)  # its termination message had no place for phases
    assert listed(after(short)) == ([], 3)
    assert listed(after(short, told(*layers(0, 4), phase_index=3))) == (layers(0, 4), None)
    assert listed(after(told("layer.3", phase_index=4), told(*layers(0, 4), phase_index=4))) == (layers(0, 4), None)


def test_a_phase_that_has_ended_is_not_told_otherwise_later():
    first = after(told("head", "layer.1"))
    other = Progress(phases=[ended(name, {"accuracy": 0.1}) for name in ("head", "layer.1", "layer.0")])
    assert after(other, old=first).phases == [*first.phases, other.phases[-1]]


def test_the_newest_phase_may_end_again_after_a_step_back():
    first = after(told("head", "layer.1"))
    again = Progress(phases=[ended("head"), ended("layer.1", {"accuracy": 0.1})])
    assert after(told("head"), again, old=first).phases == again.phases


def test_metrics_that_are_left_out_are_counted():
    metrics = {f"m{number}": 0.5 for number in range(12)}
    status = full(
        Progress(
            activity="Done",
            metrics=metrics,
            phases=[ended("head", metrics)],
            results={f"test.m{n}": 1.0 for n in range(21)},
        )
    )
    assert (len(status.progress.metrics), len(status.phases[0].metrics), len(status.results)) == (8, 8, 20)
    assert (status.omitted.phases, status.omitted.metrics, status.omitted.results) == (0, 4, 1)


def test_a_phase_that_took_for_ever_can_be_written():
    status = after(Progress(phases=[ended("head").model_copy(update={"seconds": float("inf")})]))
    json.dumps(wire(status), allow_nan=False)


@pytest.mark.parametrize("value", [1e300, -1e300, 1e6, 999_999.9])
def test_the_column_of_a_metric_has_room_for_any_value(value):
    training = gather(FineTuneJobStatus(), None, Progress(metrics={"loss": value}))
    assert float(summarize(training, "loss").metric.split()[1]) == pytest.approx(value, rel=1e-2)


@pytest.mark.parametrize("character", WIDE)
def test_long_texts_end_with_a_mark(character):
    cut = clipped(character * 5000, 300)
    assert cut == character * (len(cut) - 1) + "…"
    assert 290 < stored_bytes(cut) - 2 <= 300
    assert clipped(cut, 300) == cut
    assert clipped(character * 40, 300) == character * 40


def test_a_size_is_that_of_gos_json():
    """encoding/json escapes <, > and & for HTML, and two separators for JavaScript."""
    assert stored_bytes({"a": "<>&\u2028\u2029\n€\x01"}) == len(
        rb'{"a":"\u003c\u003e\u0026\u2028\u2029\n' + "€".encode() + rb'\u0001"}'
    )


@pytest.mark.parametrize(
    ("value", "go"), [(0.5, "0.5"), (1e15, "1000000000000000.0"), (-1.5e20, "-150000000000000000000"), (1e21, "1e+21")]
)
def test_large_numbers_have_as_many_digits_as_in_go(value, go):
    assert stored_bytes({"a": [value]}) == len('{"a":[]}') + len(go)


def test_of_a_log_the_end_stays():
    log = "".join(f"line {number}\n" for number in range(1000))
    status = within_budget(FineTuneJobStatus(failure=Failure(reason="R", log_tail=log[-4096:])))
    assert status.failure.log_tail.startswith("…")
    assert log.endswith(status.failure.log_tail[1:])


# -- how often it is written -----------------------------------------------------------------------------------


def running():
    simulation = Simulation(nodes=1)
    simulation.until(lambda: simulation.status.get("phase") == "Running")
    simulation.server.calls.clear()
    return simulation


def writes(simulation):
    return sum(call.resource == "finetunejobs/status" for call in simulation.server.calls)


def test_a_trainer_has_its_status_written_at_most_once_in_5_seconds():
    simulation = running()
    for step in range(1, 61):
        simulation.poller.said = Progress(activity="Training", step=step, total_steps=100, percent=step)
        simulation.round()
    assert 10 <= writes(simulation) <= 13
    assert simulation.status["progress"]["step"] >= 55


def test_what_it_said_last_is_written_without_another_word():
    simulation = running()
    for _ in range(5):
        simulation.round()
    for step in (1, 2, 3):
        simulation.poller.said = Progress(activity="Training", step=step, total_steps=100)
        simulation.round()
    assert simulation.status["progress"]["step"] == 1
    simulation.sync()
    assert 0 < simulation.reconcile() <= 5, "it is looked at again when its turn has come"
    simulation.until(lambda: simulation.status["progress"]["step"] == 3, most=5)


def test_a_clock_that_is_put_back_does_not_hold_it_up():
    simulation = running()
    simulation.poller.said = Progress(activity="Training", step=1, total_steps=100)
    simulation.until(lambda: simulation.status.get("progress", {}).get("step") == 1)
    simulation.now -= timedelta(hours=1)
    simulation.poller.said = Progress(activity="Training", step=2, total_steps=100)
    simulation.sync()
    assert 0 < simulation.reconcile() <= 5


def test_no_word_of_a_trainer_is_urgent():
    simulation = running()
    for step in range(1, 31):
        simulation.poller.said = Progress(
            activity="Training" if step % 2 else "Starting",
            step=step,
            restarts=step,
            phase_name=f"layer.{step}",
            phases=[ended(f"layer.{number}") for number in range(step)],
            recovery={"step": step % 2, "time": NOW, "message": f"broken {step}"},
            checkpoint={"step": step, "time": NOW + timedelta(seconds=step)},
        )
        simulation.round()
    assert writes(simulation) <= 8, "one more, as the condition of broken checkpoints comes"
    assert len(simulation.server.of("events")) < 25


def test_an_end_is_written_at_once():
    simulation = running()
    simulation.poller.said = Progress(activity="Training", step=1)
    simulation.round()
    simulation.end(simulation.running()[0], 0)
    simulation.until(lambda: simulation.status.get("phase") == "Succeeded", most=3)
    assert simulation.status["results"] == {"test.accuracy": 0.9}


@pytest.mark.parametrize(
    ("change", "at_once"),
    [
        ({"phase": "Failed"}, True),
        ({"failure": Failure(reason="R")}, True),
        ({"conditions": []}, True),
        ({"restarts": Restarts(pods=1)}, True),
        ({"restarts": Restarts(in_place=1)}, False),
        ({"progress": ProgressInfo(step=9)}, False),
        ({"results": {"test.accuracy": 1.0}}, False),
        ({"start_time": NOW}, False),
    ],
)
def test_changes_of_phase_condition_and_failure_are_urgent(change, at_once):
    condition = Condition(type="Running", status="True", reason="PodsRunning", last_transition_time=NOW)
    old = FineTuneJobStatus(phase="Running", conditions=[condition], restarts=Restarts())
    assert urgent(old, old.model_copy(update=change)) is at_once


def test_a_job_without_pods_is_not_held_up():
    simulation = running()
    simulation.change(runPolicy={"suspend": True})
    simulation.until(lambda: simulation.status.get("phase") == "Suspended")
    assert simulation.status["checkpoint"] == {"step": 5, "time": text(NOW)}
