"""The first build's agent and worker beside this operator, and this build's beside the first operator."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.crds.corpus import patched
from tests.skew import operator_side
from tests.support import first_build
from tests.support.newer import KEY, planted
from tests.trainer.jobs import bert_folder, make_job, write_csv
from unfreeze_api.apiserver.manifest import Loader
from unfreeze_trainer.commands.local import run_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IP = "127.0.0.1"
AGENT, WORKER = ("-m", "unfreeze_trainer.agent.main"), ("-m", "unfreeze_trainer.worker")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """The first build's source."""
    return first_build.extract(tmp_path_factory.mktemp("first-build"), tests=True)


@pytest.fixture(scope="module")
def first_operator(build):
    """The operator of the first build: a function of `operator_side`, carried out by it."""

    def ask(name, *arguments):
        done = subprocess.run(
            [sys.executable, "-P", operator_side.__file__],
            input=json.dumps([[name, arguments]]),
            env=first_build.environment(build),
            cwd=build,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[0]

    return ask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skew")
    bert_folder(folder / "bert")
    for name, rows in (("good", 24), ("validation", 15), ("test", 12)):
        write_csv(folder / f"{name}.csv", rows)
    (folder / "bad.csv").write_text("text,label\nwhat is far,a\nwho is tall,\n")
    return folder


def spec(folder, run, data="good.csv"):
    return {
        "model": {"source": f"file://{folder}/bert"},
        "task": {"type": "TextClassification"},
        "data": {
            name: {"source": f"file://{folder}/{source}"}
            for name, source in (("train", data), ("validation", "validation.csv"), ("test", "test.csv"))
        },
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 30, "batchSize": 4, "evaluate": {"everySteps": 60}},
        "output": {"destination": f"file://{folder}/{run}"},
    }


def free_port(ip):
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return probe.getsockname()[1]


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks pods itself, whatever proxy the environment names or a test has named before."""


class Pod:
    """A pod as a process; what it says is kept."""

    def __init__(self, folder: Path, name: str, job_file: str, *, program=AGENT, environment=os.environ):
        self.log, self.termination_log = folder / f"{name}.log", folder / f"{name}.termination"
        job = json.loads(job_file)
        # No name server here, and all of them are job-0.job.
        job["distribution"] |= {"rendezvousHost": IP, "rendezvousPort": free_port("")}
        (folder / f"{name}.json").write_text(json.dumps(job))
        port = free_port(IP)
        self.url = f"http://{IP}:{port}/progress"
        mine = {"UNFREEZE_JOB": folder / f"{name}.json", "UNFREEZE_TERMINATION_LOG": self.termination_log, "POD_IP": IP}
        mine |= {"UNFREEZE_HTTP_PORT": port, "JOB_COMPLETION_INDEX": 0, "OMP_NUM_THREADS": 1}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program],
                env=environment | {key: str(value) for key, value in mine.items()},
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        self.answers: dict[tuple[str, bool], str] = {}
        """The newest answer in each state, before the first step and after it."""
        self.unheard: OSError | http.client.HTTPException | None = None
        """Why there was no answer, the last time that there was none."""

    def listen(self) -> bool:
        """Ask once how far it is; return whether it has ended."""
        try:
            with DIRECT.open(self.url, timeout=5) as answer:
                text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:  # also one that ends between head and body of its answer
            self.unheard = error
            return self.process.poll() is not None
        told = json.loads(text)
        self.answers[told["state"], told["step"] > 0] = text
        return False

    @property
    def message(self) -> str:
        return self.termination_log.read_text()


@pytest.fixture(scope="module")
def pods(folder, build, first_operator):
    """Pods of both builds, each with the job.json of the other build's operator; a job.json for this build is newer."""
    old, specs = first_build.environment(build), {}
    for name in ("old-good", "old-bad", "new-good", "new-bad"):
        specs[name] = spec(folder, f"run-{name}", "bad.csv" if name.endswith("bad") else "good.csv")
    ours = {name: text for name, (text, _) in zip(specs, operator_side.job_files(list(specs.values())), strict=True)}
    firsts = {
        name: text for name, (text, _) in zip(specs, first_operator("job_files", list(specs.values())), strict=True)
    }
    unsupported = json.dumps(json.loads(firsts["new-good"]) | {"schemaVersion": 3, "training": "of another shape"})
    started = {
        "old-good": Pod(folder, "old-good", ours["old-good"], environment=old),
        "old-bad": Pod(folder, "old-bad", ours["old-bad"], environment=old),
        "new-good": Pod(folder, "new-good", json.dumps(planted(json.loads(firsts["new-good"])))),
        "new-bad": Pod(folder, "new-bad", json.dumps(planted(json.loads(firsts["new-bad"])))),
        "unsupported": Pod(folder, "unsupported", unsupported),
        "unsupported-worker": Pod(folder, "unsupported-worker", unsupported, program=WORKER),
        "unsupported-old": Pod(folder, "unsupported-old", unsupported, environment=old),
    }
    try:
        while [pod for pod in started.values() if not pod.listen()]:
            time.sleep(0.03)
        yield started
    finally:
        for pod in started.values():
            pod.process.kill()
            pod.process.wait()


def newer(text):
    return json.dumps(planted(json.loads(text)))


def told_of(pod):
    """Return what an operator hears of a pod that has trained, from its start on."""
    seen = pod.answers
    assert ("Training", True) in seen, (pod.unheard, pod.log.read_text())
    return [starting(pod), seen["Training", True]]


def starting(pod):
    """Return what an operator hears of a pod that starts."""
    assert ("Starting", False) in pod.answers, (pod.answers.keys(), pod.unheard, pod.log.read_text())
    return pod.answers["Starting", False]


def check_success(statuses, folder, run):
    start, training, end = statuses
    assert (start["phase"], start["stateSeconds"]["state"]) == ("Running", "Starting")
    assert (training["phase"], training["stateSeconds"]["state"]) == ("Running", "Training")
    assert training["progress"]["totalSteps"] == 180
    assert 0 < training["progress"]["step"] <= 180
    report = json.loads((folder / run / "report.json").read_text())
    assert (end["phase"], end["summary"]["progress"]) == ("Succeeded", "100%")
    assert end["results"]["test.accuracy"] == report["results"]["test"]["accuracy"]
    assert end["checkpoint"]["step"] == 180
    assert [phase["name"] for phase in end["phases"]] == ["all"]


def check_failure(status):
    assert (status["phase"], status["failure"]["reason"], status["failure"]["exitCode"]) == ("Failed", "InvalidData", 2)
    assert "bad.csv" in status["failure"]["message"]
    (failed,) = [one for one in status["conditions"] if one["type"] == "Failed"]
    assert (failed["status"], failed["reason"]) == ("True", "InvalidData")


def test_the_first_trainer_succeeds_under_this_operator(pods, folder):
    pod, whole = pods["old-good"], spec(folder, "run-old-good")
    assert pod.process.returncode == 0, pod.log.read_text()
    heard = operator_side.statuses(whole, told_of(pod), pod.message, 0)
    check_success(heard, folder, "run-old-good")
    assert operator_side.statuses(whole, [newer(answer) for answer in told_of(pod)], newer(pod.message), 0) == heard


def test_the_first_trainer_fails_under_this_operator(pods, folder):
    pod, whole = pods["old-bad"], spec(folder, "run-old-bad", "bad.csv")
    assert pod.process.returncode == 2, pod.log.read_text()
    for message in (pod.message, newer(pod.message)):
        check_failure(operator_side.statuses(whole, [starting(pod)], message, 2)[-1])


def test_this_trainer_succeeds_under_the_first_operator(pods, folder, first_operator):
    pod = pods["new-good"]
    assert pod.process.returncode == 0, pod.log.read_text()
    heard = first_operator("statuses", spec(folder, "run-new-good"), told_of(pod), pod.message, 0)
    check_success(heard, folder, "run-new-good")


def test_this_trainer_fails_under_the_first_operator(pods, folder, first_operator):
    pod = pods["new-bad"]
    assert pod.process.returncode == 2, pod.log.read_text()
    whole = spec(folder, "run-new-bad", "bad.csv")
    check_failure(first_operator("statuses", whole, [starting(pod)], pod.message, 2)[-1])


def test_what_a_trainer_ignores_is_said_once_in_its_pod(pods):
    said = [line for line in pods["new-good"].log.read_text().splitlines() if "is of a newer operator; ignored" in line]
    assert len(said) == 1
    assert f"training.checkpoint.{KEY}" in said[0]


def test_another_schema_version_ends_agent_and_worker_at_once(pods, first_operator, folder):
    pod, worker, old = pods["unsupported"], pods["unsupported-worker"], pods["unsupported-old"]
    assert (pod.process.returncode, worker.process.returncode, old.process.returncode) == (2, 2, 2)
    told = json.loads(pod.message)
    assert (told["outcome"], told["reason"], told["exitCode"]) == ("Failed", "UnsupportedJobFile", 2)
    assert "it has schemaVersion 3, and this version of Unfreeze reads 1 and 2" in told["message"]
    assert "UnsupportedJobFile: " in worker.log.read_text()
    assert json.loads(old.message)["reason"] == "InvalidJob"  # and so it is the first build
    for side in (operator_side.statuses, lambda *arguments: first_operator("statuses", *arguments)):
        status = side(spec(folder, "none"), [], pod.message, 2)[-1]
        assert (status["phase"], status["failure"]["reason"]) == ("Failed", "UnsupportedJobFile")


def test_a_finished_run_of_the_other_build_is_not_trained_again(pods, build, folder):
    runs = {name: folder / f"run-{name}-good" for name in ("old", "new")}
    before = {name: (run / "report.json").read_bytes() for name, run in runs.items()}
    texts = [text for text, _ in operator_side.job_files([spec(folder, run.name) for run in runs.values()])]
    new, old = Pod(folder, "new", texts[0]), Pod(folder, "old", texts[1], environment=first_build.environment(build))
    assert (old.process.wait(), new.process.wait()) == (2, 0), old.log.read_text() + new.log.read_text()
    assert json.loads(old.message)["reason"] == "ForeignRunFolder"
    assert (
        "go on with the version that wrote it, or choose another output.destination"
        in json.loads(old.message)["message"]
    )
    assert json.loads(new.message)["progress"]["state"] == "Done"
    assert {name: (run / "report.json").read_bytes() for name, run in runs.items()} == before


def test_another_schema_version_ends_unfreeze_run(tmp_path, capsys):
    job = make_job("/none", "/none.csv", output={"destination": f"file://{tmp_path}/run"})
    assert run_job(job.model_copy(update={"schema_version": 3})) == 2
    assert "Failed: UnsupportedJobFile: " in capsys.readouterr().err


def test_both_operators_write_the_same_job_file(build, first_operator):
    """What is made anew after an upgrade is what was there before, and no job is started again for it."""
    base, cases = (
        yaml.load((build / "tests/crds/corpus" / file).read_text(), Loader) for file in ("base.yaml", "good.yaml")
    )
    specs = [patched(base, case["patch"])["spec"] for case in cases]
    assert len(specs) > 50
    assert operator_side.job_files(specs) == first_operator("job_files", specs)
