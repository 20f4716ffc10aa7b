"""kubectl apply -> operator -> two pods -> a model that plain transformers loads, and the same without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.jobs import SECONDS, finished, manifest
from tests.e2e.watched import JOB, Watched
from tests.operator.world import Json, World, condition, until
from unfreeze_cli.kubectl import Kubectl
from unfreeze_cli.report import FIGURES, FILE, fetch

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]


def test_apply_to_model(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, seen = watched.world, watched.seen
    status = seen[-1]
    assert status["phase"] == "Succeeded", status
    assert condition(status, "Complete")["status"] == "True"
    percents = [state["progress"]["percent"] for state in seen if "progress" in state]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 4, percents
    assert status["phases"][0]["name"] == "head"
    sizes = [phase["trainableParameters"] for phase in status["phases"]]
    assert len(sizes) == 3
    assert sizes == sorted(set(sizes))
    assert any(state.get("summary", {}).get("eta") for state in seen)
    report = json.loads((world.folder / JOB / "report.json").read_text())
    assert report["results"]["test"]["accuracy"] == status["results"]["test.accuracy"]

    [decided] = status["decisions"]
    assert decided["type"] == "Forgetting"
    facts, events = watched.described.split("\nEvents:")
    assert decided["message"][:20] in facts
    assert f"{decided['type']}: " in next(line for line in events.splitlines() if "Decided" in line)

    page, evaluation = (_file(world, monkeypatch, name) for name in (FILE, FIGURES))
    assert evaluation == (world.folder / JOB / "evaluation.json").read_text(encoding="utf-8")
    assert page == (world.folder / JOB / "report.html").read_text(encoding="utf-8")
    sentence = condition(status, "Complete")["message"].removeprefix("the job has succeeded. ")
    assert sentence.startswith("The model's accuracy is ")
    assert sentence in page.replace("&#39;", "'")
    logs = world.cluster.kubectl("-n", world.namespace, "logs", "-l", f"unfreeze.dev/job-name={JOB}", "--tail=-1")
    assert "step" in logs
    assert _answer(world.folder / JOB / "model", "How far is it from Denver to Aspen ?") in report["data"]["labels"]
    local = _run_locally(watched.file, world.folder, tmp_path / "local")
    assert local["results"] == report["results"]
    assert [phase["metrics"] for phase in local["phases"]] == [phase["metrics"] for phase in report["phases"]]


def test_wrong_column_fails_at_once_and_says_what_to_change(watched: Watched) -> None:
    status = watched.wrong
    assert status["phase"] == "Failed"
    assert status["failure"]["exitCode"] == 2
    assert "questoin" in status["failure"]["message"]
    assert "question" in status["failure"]["message"].replace("questoin", "")
    assert condition(status, "Stalled")["status"] == "True"
    assert not status.get("restarts", {}).get("pods")


def test_suspended_job_resumes_from_its_checkpoint(world: World) -> None:
    job = manifest("pause")
    job["spec"]["training"]["epochs"] = 6
    world.create("pause", job["spec"])
    world.wait(lambda status: status.get("progress", {}).get("step", 0) > 3, "pause", what="training", seconds=SECONDS)
    world.suspend(True, "pause")
    until(lambda: not world.children("pods"), "no pods", SECONDS)
    status = world.wait_phase("Suspended", "pause")
    kept = status["checkpoint"]["step"]
    assert kept > 0
    world.suspend(False, "pause")
    status = finished(world, "pause", [])
    assert status["phase"] == "Succeeded", status
    events = [json.loads(line) for line in (world.folder / "pause/events.jsonl").read_text().splitlines()]
    starts = [event["step"] for event in events if event["event"] == "start"]
    assert starts[0] == 0
    assert starts[-1] >= kept


def _file(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """Return what `kubectl ftj report` and `status --classes` bring."""
    monkeypatch.setenv("PATH", f"{world.cluster.folder / 'bin'}:{os.environ['PATH']}")
    kubectl = Kubectl((f"--namespace={world.namespace}", f"--kubeconfig={world.cluster.kubeconfig}"))
    text = fetch(kubectl, JOB, name, seconds=SECONDS)
    until(
        lambda: not kubectl.json("get", "pods", "--selector=unfreeze.dev/reads-report-of")["items"], "its pod is gone"
    )
    return text


def _answer(model: Path, question: str) -> str:
    program = (
        "from runpy import run_path;"
        f"print(run_path({str(model / 'pooled.py')!r})['classifier']({str(model)!r})({question!r})[0]['label'])"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def _run_locally(file: Path, claim: Path, output: Path) -> Json:
    command = [
        str(Path(sys.executable).parent / "unfreeze"),
        "run",
        str(file),
        "--output",
        str(output),
        "--workers",
        "2",
    ]
    subprocess.run([*command, "--claim", f"shared={claim}"], check=True, capture_output=True)
    return json.loads((output / "report.json").read_text())
