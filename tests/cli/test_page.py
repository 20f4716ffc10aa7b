"""The status page and the table of jobs, from objects as the API has them: what they show, and what they keep out."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.support.newer import planted
from unfreeze_cli.page import page
from unfreeze_cli.spark import BLOCKS, spark
from unfreeze_cli.text import console, plain
from unfreeze_cli.top import table

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds):
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


SPEC = {
    "model": {"source": "pvc://models/minilm"},
    "task": {"type": "TextClassification"},
    "strategy": {"type": "GradualUnfreezing"},
    "distribution": {"numNodes": 2, "engine": "DDP"},
    "training": {"metric": "accuracy"},
}
RUNNING = {
    "phase": "Running",
    "conditions": [{"type": "Running", "status": "True", "reason": "PodsRunning"}],
    "startTime": ago(100),
    "nodes": {"desired": 2, "ready": 2},
    "progress": {
        "percent": 41, "step": 410, "totalSteps": 1000, "epoch": 1.25, "phaseIndex": 1, "phaseCount": 3,
        "phaseName": "layer.5", "loss": 0.42, "metrics": {"accuracy": 0.81}, "samplesPerSecond": 310.0, "etaSeconds": 95,
    },
    "history": [{"step": 5, "loss": 2.0}, {"step": 40, "loss": 1.0, "metric": 0.25}, {"step": 70, "loss": 0.6}],
    "checkpoint": {"step": 400, "time": ago(12)},
    "restarts": {"inPlace": 1, "pods": 2},
    "phases": [{"name": "head", "steps": 170, "seconds": 21, "trainableParameters": 2310, "metrics": {"accuracy": 0.25}}],
    "acceleratorSeconds": 7200,
    "summary": {"progress": "41% (2/3)", "metric": "accuracy 0.810", "eta": "1m35s", "checkpoint": "400"},
}  # fmt: skip
FAILED = {
    "phase": "Failed",
    "startTime": ago(300),
    "completionTime": ago(60),
    "failure": {
        "reason": "OutOfMemory",
        "message": "raise the limit",
        "pod": "job-1-b",
        "node": "node-0",
        "rank": 3,
        "exitCode": 137,
        "logTail": "Traceback\n  boom",
    },
}


def job(status, name="job", namespace="ns"):
    meta = {"name": name, "namespace": namespace, "creationTimestamp": ago(120)}
    return {"metadata": meta, "spec": SPEC, "status": status}


def pod(index, name, phase="Running", ended=None):
    state = {"terminated": ended} if ended else {"running": {}}
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": ago(90),
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"nodeName": f"node-{index}"},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"state": state}],
        },
    }


def printed(what):
    out = io.StringIO()
    Console(file=out, width=200, highlight=False, markup=False).print(what)
    return out.getvalue()


def shown(status, pods=()):
    return printed(page(job(status), pods if pods is None else list(pods), NOW))


@pytest.mark.parametrize("status", [RUNNING, FAILED], ids=["running", "failed"])
def test_what_a_newer_operator_says_besides_is_passed_over(status):
    pods = [pod(0, "job-0-a")]
    assert shown(planted(status), map(planted, pods)) == shown(status, pods)
    tables = [printed(table([one], NOW, namespaces=False)) for one in (job(planted(status)), job(status))]
    assert tables[0] == tables[1]
    assert "Judging" in shown(status | {"phase": "Judging"}, pods)


def test_a_job_that_runs():
    text = shown(
        RUNNING, [pod(0, "job-0-a"), pod(1, "job-1-a", "Failed", {"reason": "Error", "exitCode": 1}), pod(1, "job-1-b")]
    )
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "ns/job Running created 2m ago"
    assert lines[1] == "TextClassification from pvc://models/minilm: GradualUnfreezing, DDP on 2 nodes"
    assert "41 % step 410/1000 epoch 1.2 310 samples/s 1m35s left" in text.replace("  ", " ")
    assert "loss 2 █▄▂▁ 0.42" in lines
    assert "accuracy 0.25 ▁ █ 0.81" in lines
    assert "head done 170 21s 2,310 0.25" in lines
    assert "layer.5 now (2 of 3)" in lines
    assert "0 job-0-a node-0 Running 1m30s" in lines
    assert "1 job-1-a node-1 Failed: Error, exit code 1 (replaced) 1m30s" in lines
    assert "Newest checkpoint: step 400, 12s old" in lines
    assert "Restarts: 1 in place, 2 pods replaced" in lines
    assert "Accelerators: 2.00 hours" in lines
    cost = {"acceleratorHours": 2.0, "estimatedAcceleratorHours": 5.4}
    assert "Accelerators: 2.00 hours of about 5.40\n" in shown(RUNNING | {"cost": cost})
    money = {"amount": 5.0, "estimatedAmount": 13.5, "currency": "EUR"}
    told = "Accelerators: 2.00 hours of about 5.40: 5.00 of about 13.50 EUR\n"
    assert told in shown(RUNNING | {"cost": cost | money})
    assert "Accelerators: 2.00 hours: 5.00 EUR\n" in shown(RUNNING | {"cost": {"amount": 5.0, "currency": "EUR"}})
    assert "Failure" not in text


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"towers": [{"modality": "Image", "source": "pvc://m/vit"}, {"modality": "Text", "source": "pvc://m/bert"}]}, "pvc://m/vit, pvc://m/bert"),
        ({"candidates": [{"source": "pvc://m/a"}, {"source": "pvc://m/b"}]}, "one of pvc://m/a, pvc://m/b"),
    ],
)  # fmt: skip
def test_a_job_of_several_models(model, told):
    several = job(RUNNING)
    several["spec"] = SPEC | {"model": model}
    assert f"TextClassification from {told}: GradualUnfreezing" in printed(page(several, [], NOW))


def test_the_metric_is_the_tasks_where_the_spec_names_none():
    progress = {**RUNNING["progress"], "metrics": {"spearman": 0.81, "accuracy": 0.5}}
    other = job({**RUNNING, "progress": progress, "summary": {"metric": "spearman 0.810"}})
    other["spec"] = {name: value for name, value in SPEC.items() if name != "training"}
    other["status"]["phases"] = [RUNNING["phases"][0] | {"metrics": {"spearman": 0.25}}]
    lines = [" ".join(line.split()) for line in printed(page(other, [], NOW)).splitlines()]
    assert "spearman 0.25 ▁ █ 0.81" in lines
    assert "PHASE STEPS TIME TRAINABLE SPEARMAN" in lines
    assert "head done 170 21s 2,310 0.25" in lines


def test_a_job_that_failed():
    text = shown({**FAILED, "progress": RUNNING["progress"]})
    assert "Failed  took 4m, ended 1m ago" in text
    assert "PHASE" not in text
    assert "Failure\n  OutOfMemory: raise the limit\n  pod job-1-b, node node-0, rank 3, exit code 137" in text
    assert "Traceback" in text
    assert "boom" in text


def test_what_is_out_of_date_in_the_spec_stands_last():
    warning = "spec.output.export is deprecated: write exports"
    assert shown({**RUNNING, "warnings": [warning]}).endswith(f"\n\nWarning: {warning}\n")


def test_a_failure_that_the_job_went_on_after_is_called_so():
    assert "after which the job continues" in shown({**RUNNING, "failure": FAILED["failure"]})


def test_what_it_waits_for():
    waiting = [{"pod": "job-0-a", "reason": "ImagePull", "message": "image x: not found"}]
    running = {"type": "Running", "status": "False", "reason": "ImagePull", "message": "job-0-a: image x: not found"}
    text = shown({"phase": "Pending", "conditions": [running], "waiting": waiting})
    assert "job-0-a: ImagePull: image x: not found" in text


def test_pods_that_one_may_not_list_are_no_reason_to_show_nothing():
    assert "You may not list the pods" in shown(RUNNING, None)


@pytest.mark.parametrize("status", [{}, {"observedGeneration": -1}])
def test_a_job_that_no_operator_has_seen(status):
    assert "No operator has looked at this job yet" in shown(status)


def test_results():
    assert "  test.accuracy  0.93" in shown({"phase": "Succeeded", "results": {"test.accuracy": 0.93}})


def test_decisions():
    first = {
        "type": "Baseline",
        "answer": "No",
        "message": "it is not better\n\x1b[31mthan TF-IDF",
        "step": 9,
        "warning": True,
    }
    text = shown(
        {**RUNNING, "decisions": [first, {"type": "Range", "answer": "2e-5", "message": "it falls there", "step": 0}]}
    )
    assert (
        "Decisions\n  Baseline: No: it is not better \N{REPLACEMENT CHARACTER}[31mthan TF-IDF\n  Range: 2e-5: it falls"
        in text
    )


@pytest.mark.parametrize("useful", ["True", "False"])
def test_a_model_that_is_no_better_than_guessing_is_said_first(useful):
    told = {"type": "Useful", "status": useful, "reason": "NoBetterThanMajority", "message": "it has .5"}
    lines = shown({"phase": "Succeeded", "conditions": [told], "results": {"test.accuracy": 0.5}}).splitlines()
    assert ("NoBetterThanMajority: it has .5" in lines[2]) == (useful == "False")


def test_how_good_the_model_is_is_said_first():
    told = {"type": "Complete", "status": "True", "message": "the job has succeeded. The model's accuracy is 0.913."}
    lines = shown({"phase": "Succeeded", "conditions": [told]}).splitlines()
    assert lines[2].strip() == "The model's accuracy is 0.913."
    plain = shown({"phase": "Succeeded", "conditions": [told | {"message": "the job has succeeded"}]})
    assert "has succeeded" not in plain


def test_what_is_left_out_is_counted():
    text = shown({**RUNNING, "omitted": {"phases": 1, "results": 4}, "results": {"test.accuracy": 0.93}})
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[lines.index("head done 170 21s 2,310 0.25") - 1] == "1 earlier done report.json"
    assert "and 4 more in report.json" in lines
    last = RUNNING["progress"] | {"phaseIndex": 2, "phaseName": "head"}
    assert "now (" not in shown({**RUNNING, "omitted": {"phases": 2}, "progress": last}), "all three have ended"


@pytest.mark.parametrize(
    ("stage", "ended", "now"),
    [
        ("1 of 2: domain", [], "domain.layer.5 now (2 of 3)"),
        ("1 of 2: domain", ["domain.head", "domain.layer.5"], None),
        ("2 of 2: the job itself", ["domain.head", "domain.layer.5", "domain.layer.4", "head"], "layer.5 now (2 of 3)"),
        ("2 of 2: the job itself", ["domain.layer.5", "head", "layer.5"], None),
    ],
)
def test_the_present_phase_of_a_stage_is_shown_however_many_have_ended_before_it(stage, ended, now):
    phases = [RUNNING["phases"][0] | {"name": name} for name in ended]
    text = shown({**RUNNING, "progress": RUNNING["progress"] | {"stage": stage}, "phases": phases})
    assert [" ".join(one.split()) for one in text.splitlines() if "now (" in one] == [now] * (now is not None)


def test_what_pods_write_cannot_command_the_terminal():
    evil = "\x1b]0;title\x07\x1b[2J\x1b[31m\u202edevil\r"
    failure = {"reason": evil, "message": evil, "pod": evil, "logTail": evil}
    progress = {**RUNNING["progress"], "phaseName": evil, "metrics": {evil: 1.0}}
    text = shown({**RUNNING, "failure": failure, "progress": progress, "results": {evil: 1.0}})
    assert not set(text) & set("\x1b\x07\r\u202e")


@pytest.mark.parametrize(
    "evil", ["\u200b", "\u2060", "\ufeff", "\xad", "\U000e0041", "\u2028", "\u061c", "\x9b", "\ud800"]
)
def test_what_is_not_seen_is_shown_as_such(evil):
    assert plain(f"a{evil}b") == "a\N{REPLACEMENT CHARACTER}b"


def test_what_pods_write_cannot_pass_for_lines_of_the_page():
    fake = "x\nPhase: Succeeded"
    failure = {"reason": fake, "message": fake, "pod": fake}
    progress = {**RUNNING["progress"], "phaseName": fake, "metrics": {fake: 1.0}}
    text = shown({**RUNNING, "failure": failure, "progress": progress, "results": {fake: 1.0}})
    assert "Phase: Succeeded" in text
    assert not any(one.startswith("Phase:") for one in text.splitlines())


@given(st.text())
def test_plain_text_keeps_lines_and_drops_commands(text):
    assert all(char.isprintable() or ord(char) > 127 or char in "\n\t" for char in plain(text))
    assert plain(text).count("\n") == text.count("\n")


@given(st.lists(st.none() | st.floats(-1e9, 1e9)))
def test_a_spark_line_has_a_character_for_each_value_from_least_to_greatest(values):
    line = spark(values)
    known = [value for value in values if value is not None]
    assert len(line) == (len(values) if known else 0)
    assert set(line) <= {*BLOCKS, " "}
    if known and max(known) > min(known):
        assert line[values.index(max(known))] == BLOCKS[-1]
        assert line[values.index(min(known))] == BLOCKS[0]


def test_nothing_is_cut_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    name = "a-name-of-fifty-two-characters-which-is-the-most-ab"
    failure = {**FAILED["failure"], "message": "one two three " * 30 + "end", "logTail": "x" * 300}
    console().print(table([job(RUNNING, name)], NOW, namespaces=True))
    console().print(page(job({**FAILED, "failure": failure}), [pod(0, f"{name}-0-abcde")], NOW))
    lines = capsys.readouterr().out.splitlines()
    assert any(name in line and "accuracy 0.810" in line for line in lines)
    assert any(f"{name}-0-abcde" in line for line in lines)
    assert any(line.endswith("end") and line.startswith("  OutOfMemory: one") for line in lines)
    assert "    " + "x" * 300 in lines


def test_top_lists_running_jobs_first_and_adds_them_up():
    jobs = [job(FAILED, "a"), job(RUNNING, "b"), job({}, "c"), job(RUNNING, "d", "other")]
    text = printed(table(jobs, NOW, namespaces=True))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert [line.split()[1] for line in lines[1:5]] == ["b", "d", "c", "a"]
    assert lines[1] == "ns b Running 41% (2/3) 410/1000 0.42 accuracy 0.810 310 1m35s 2/2 3 2.0 2m"
    assert lines[-1] == "2 of 4 jobs running, 620 samples/s on 4 nodes"


@pytest.mark.parametrize("field", sorted(RUNNING))
def test_a_status_of_another_version_is_shown_without_what_it_lacks(field):
    left = {name: value for name, value in RUNNING.items() if name != field}
    assert "ns/job" in shown(left, [pod(0, "job-0-a")])
    printed(table([job(left)], NOW, namespaces=False))


def test_what_is_fetched_is_a_bar():
    fetching = {"phase": "Running", "progress": {"percent": 0, "fetchedBytes": 3 << 30, "totalBytes": 16_000_000_000}}
    assert "fetching 3.0 of 14.9 GiB" in shown(fetching)
