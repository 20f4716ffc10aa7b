"""Whatever bytes a trainer leaves behind or answers: the job is planned, its status can be written, the page be read."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.crds.test_contracts import MESSAGES, PROGRESS
from tests.operator.fakes import NOW, FakeCluster, job, pod, text
from tests.operator.simulation import METRICS, Simulation
from unfreeze_api.contracts.progress import CheckpointInfo, Progress, TerminationMessage
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.packing import pack
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS, JOBS, PODS
from unfreeze_operator.policies import ORDER, RESTRAINING, lost_pods, network_policy, service
from unfreeze_operator.status.budget import MAX_STATUS_BYTES, stored_bytes, wire
from unfreeze_operator.status.build import condition
from unfreeze_operator.telemetry.job_metrics import JobCollector

EDGES = [
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "1999-12-31T23:59:59Z",
    "2026-01-01T00:00:00",
    0,
    1e18,
]
ODD = st.sampled_from(
    [*EDGES, 2**53 + 1, -(2**63), 10**40, 1e308, -1e308, "\ud800", "\x00", "\u202e", True, None, {}, []]
)
LEAVES = ODD | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner), max_leaves=6
)


@st.composite
def spoiled(draw):
    """Return the JSON of a message of which some fields, at any level, are something else; perhaps cut, perhaps of bytes."""
    tree = json.loads(draw(MESSAGES | PROGRESS).to_json())
    tree = {"outcome": "Failed", "reason": "Odd", "progress": tree} if draw(st.booleans()) else tree
    for _ in range(draw(st.integers(0, 2))):
        node = tree
        while node and isinstance(node, dict | list):
            at = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            if not isinstance(node[at], dict | list) or not node[at] or draw(st.booleans()):
                node[at] = draw(TREES)
                break
            node = node[at]
    raw = json.dumps(tree).encode()
    return raw[: draw(st.integers(0, len(raw)))] if draw(st.integers(0, 4)) == 0 else raw


def heard(raw):
    """Return what the operator takes from an answer of /progress."""
    try:
        return Progress.read(raw)
    except ValueError:
        return None


def page(*views, reported=None):
    cache = Cache(lambda _: None)
    for view in views:
        cache.put(view)
    poller = type(
        "ProgressPoller", (), {"pulls": 0, "reported": lambda _, key: reported if key == ("ns", "job") else None}
    )()
    registry = CollectorRegistry()
    registry.register(JobCollector(cache, poller))
    return list(text_string_to_metric_families(generate_latest(registry).decode()))


def samples(families, name):
    return [sample for family in families for sample in family.samples if sample.name == name]


def ended(code, message):
    """Return a cluster in which the only pod of a job, and the job, have ended, with this termination message."""
    cluster, view = FakeCluster(), job()
    cluster.step(view)
    owner = cluster.job()["metadata"]["uid"]
    cluster.add(PODS, pod(0, "Failed" if code else "Succeeded", code=code, message=message, owner=owner))
    kind = "Failed" if code else "Complete"
    cluster.job()["status"] = {
        "conditions": [{"type": kind, "status": "True", "reason": "Any", "lastTransitionTime": text(NOW)}]
    }
    return cluster, view


@pytest.mark.slow
@settings(max_examples=60)
@given(st.binary(max_size=64) | spoiled(), st.binary(max_size=64) | spoiled(), st.sampled_from([0, 1, 2, 143]))
def test_any_bytes_from_plan_to_wire_and_page(words, answer, code):
    progress = heard(answer)
    running = FakeCluster()
    running.step(job())
    running.add(PODS, pod(0, owner=running.job()["metadata"]["uid"]))
    first = plan(running.context(job()), progress)
    cluster, view = ended(code, words.decode("utf-8", "replace"))  # as the kubelet hands it on
    last = plan(cluster.context(view, first.status), progress)
    assert (first.problems, last.problems) == ((), ())
    assert last.status.phase == ("Failed" if code else "Succeeded")
    for status in (first.status, last.status):
        sent = wire(status)
        assert stored_bytes(sent) <= MAX_STATUS_BYTES
        assert FineTuneJobStatus.model_validate_json(json.dumps(sent, allow_nan=False)) == status
        found = page(dataclasses.replace(view, status=pack(sent)), reported=progress)
        assert samples(found, "unfreeze_job_series_errors_total")[0].value == 0
        assert samples(found, "unfreeze_job_info")


HARM = {
    "deep": '"a": ' + "[" * 17 + "]" * 17,
    "deeper": '"a": ' + "[" * 1900 + "]" * 1900,
    "a surrogate": '"message": "\\ud800"',
    "a surrogate in a name": '"\\udfff": 1',
    "no number": '"a": NaN',
    "infinity": '"a": -Infinity',
    "beyond a float": '"a": 1e999',
    "beyond 2**53": f'"rank": {2**53 + 1}',
    "astronomical": '"exitCode": 1' + "0" * 2000,
    "a calendar's first day": '"checkpoint": {"step": 1, "time": "0001-01-01T00:00:00Z"}',
    "a calendar's last day": '"checkpoint": {"step": 1, "time": "9999-12-31T23:59:59-23:59"}',
    "before 2000": '"checkpoint": {"step": 1, "time": "1999-12-31T23:59:59Z"}',
    "before 2000 by its zone": '"checkpoint": {"step": 1, "time": "2000-01-01T00:30:00+01:00"}',
    "a time without a zone": '"checkpoint": {"step": 1, "time": "2026-01-01T00:00:00"}',
    "another time": '"progress": {"recovery": {"step": 1, "time": "9999-01-01T00:00:00Z", "message": ""}}',
    "two messages": "}{",
    "no end": '"a": {',
}


@pytest.mark.parametrize("part", HARM.values(), ids=list(HARM))
def test_what_would_do_harm_later_is_no_message(part):
    raw = f'{{"outcome": "Failed", "reason": "Odd", {part}}}'
    assert TerminationMessage.from_termination_log(raw) is None
    cluster, view = ended(1, raw)
    status = plan(cluster.context(view)).status
    assert (status.phase, status.failure.reason) == ("Failed", "ContainerFailed")
    assert status.failure.log_tail, "it is shown as the end of a log"
    assert heard(f'{{"step": 1, {part}}}') is None or '"progress"' in part


def test_a_clock_may_be_a_day_ahead_and_no_more():
    def said(hours):
        time = NOW.replace(day=1 + hours // 24, hour=hours % 24)
        return Progress(checkpoint=CheckpointInfo(step=1, time=time)).to_json()

    assert Progress.read(said(36), NOW)
    with pytest.raises(ValueError, match="after tomorrow"):
        Progress.read(said(37), NOW)


def test_the_newest_levels_that_are_known_have_room():
    assert Progress.read('{"step": 7, "a": ' + "[" * 15 + "]" * 15 + "}") == Progress(step=7)


def test_one_jobs_series_cannot_take_the_page_from_the_others():
    good, bad = job(name="good", uid="g"), job()
    for status in (
        {"phase": "Running", "startTime": "9999-12-31T23:59:59-23:59"},
        {"phase": "Running", "progress": {"step": 10**400}},
        {"phase": ["odd"]},
        {"phase": "Running", "progress": {"step": 1, "phaseName": "x", "phaseIndex": "odd"}},
        {"restarts": 7},
    ):
        found = page(good, dataclasses.replace(bad, status=pack(status)))
        assert [sample.labels["job_name"] for sample in samples(found, "unfreeze_job_info")] == ["good"]
        assert samples(found, "unfreeze_job_series_errors_total")[0].value == 1


def failing(monkeypatch, *modules):
    """Let policies raise an error, wherever they stand in the order."""
    broken = {module.check for module in modules}

    def fail(_):
        raise RecursionError("too deep")

    fail.__module__ = modules[0].__name__
    monkeypatch.setattr(
        "unfreeze_operator.decisions.plan.ORDER", tuple(fail if check in broken else check for check in ORDER)
    )


def test_a_policy_that_raises_lets_nothing_be_made(monkeypatch):
    failing(monkeypatch, network_policy)
    made = plan(FakeCluster().context(job()))
    assert [problem.part for problem in made.problems] == ["network_policy"]
    assert JOBS not in [action.resource for action in made.actions], "its pods would have an open network"
    assert made.requeue_after <= 30
    assert made.status.phase == "Pending"


def test_a_policy_that_raises_keeps_no_job_from_its_suspend_its_end_and_its_time_to_live(monkeypatch):
    living, (finished, view) = FakeCluster(), ended(0, "")
    living.step(job())
    failing(monkeypatch, lost_pods, network_policy)
    living.step(job(suspend=True))
    assert living.job()["spec"]["suspend"] is True
    done = plan(finished.context(view)).status
    assert done.phase == "Succeeded"
    (action,) = plan(finished.context(job(ttlSecondsAfterFinished=5), done, after=9)).actions
    assert action.resource == FINE_TUNE_JOBS


def test_what_ends_stops_or_takes_away_makes_nothing():
    """The policies that are asked after another one has raised an error."""
    names = {check.__module__.rpartition(".")[2] for check in set(ORDER) - RESTRAINING}
    assert names == {
        "config_map",
        "service",
        "network_policy",
        "pod_group",
        "child_job",
        "changed_spec",
        "resume",
        "gone_pods",
    }


def test_a_job_ends_when_no_status_can_be_made_of_its_trainers_words(monkeypatch):
    cluster, view = ended(0, TerminationMessage(outcome="Succeeded", reason="Completed").to_json())

    def gather(*_):
        raise OverflowError("date value out of range")

    monkeypatch.setattr("unfreeze_operator.status.build.gather", gather)
    assert plan(cluster.context(view)).status is None
    monkeypatch.undo()
    from_words = TerminationMessage.from_termination_log

    def choke(text):
        if text:
            raise OverflowError("date value out of range")
        return from_words(text)

    monkeypatch.setattr(TerminationMessage, "from_termination_log", choke)
    made = plan(cluster.context(view))
    assert [problem.part for problem in made.problems] == ["status"]
    assert (made.status.phase, condition(made.status, "Complete").status) == ("Succeeded", "True")


def test_errors_of_parts_are_counted_and_the_job_is_looked_at_again(monkeypatch):
    failing(monkeypatch, service)
    simulation = Simulation(nodes=1)
    before = counted("service")
    simulation.round()
    assert counted("service") > before
    assert 0 <= simulation.reconcile() <= 30, "no more often than that"
    assert simulation.status["phase"] == "Pending"


def counted(part):
    return METRICS.registry.get_sample_value("unfreeze_plan_errors_total", {"part": part})
