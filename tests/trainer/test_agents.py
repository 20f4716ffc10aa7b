"""Agents of two pods as processes of this machine, each with a loopback address of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
import urllib.request
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.trainer import engine_group
from tests.trainer.engine_group import pods_job
from tests.trainer.mlp_agent import be_agent
from tests.trainer.processes import processes_of
from tests.trainer.ranks import FORKS, free_port
from unfreeze_api.contracts.progress import TERMINATION_MESSAGE_BYTES, Progress, TerminationMessage
from unfreeze_trainer import forks
from unfreeze_trainer.agent.libraries import libraries_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STACKS_SECONDS = 0.5
MOST_STARTS = 20
"""Of agents, in all tests here."""


class Pods:
    """Agents forked from a process that has imported everything; their workers are forks of one that serves them all.

    Without ways to that each agent has a server of its own, as in a pod.
    """

    def __init__(self, folder: Path, run: Path | None = None, *, ways: list[socket.socket] | None = None, **options):
        folder.mkdir(exist_ok=True)
        self.ways = ways
        self.folder, self.port = folder, free_port()
        self.environment = {"UNFREEZE_TEST": json.dumps(options), "UNFREEZE_HTTP_PORT": str(self.port)}
        self.job = pods_job(run or folder / "run", free_port())
        (folder / "job.json").write_text(self.job.to_json())
        self.processes: dict[int, FORKS.Process] = {}

    def start(self, index: int, job_file: str = "job.json") -> None:
        environment = self.environment | {
            "UNFREEZE_JOB": str(self.folder / job_file),
            "JOB_COMPLETION_INDEX": str(index),
            "POD_IP": f"127.0.0.{index + 1}",
            "UNFREEZE_TERMINATION_LOG": str(self.folder / f"termination-{index}"),
        }
        log = self.folder / f"pod-{index}.log"
        with nullcontext() if self.ways is None else self.ways.pop() as way:
            self.processes[index] = FORKS.Process(target=be_agent, args=(environment, log, STACKS_SECONDS, way))
            self.processes[index].start()

    def get(self, index: int, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.{index + 1}:{self.port}{path}", timeout=2) as answer:
                return answer.read()
        except (OSError, http.client.HTTPException):
            return None

    def progress(self, index: int = 0) -> Progress:
        return Progress.model_validate_json(self.until(lambda: self.get(index, "/progress")))

    def until(self, condition, seconds: float = 300):
        """Poll until a condition holds."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))
            time.sleep(0.05)
        return value

    def wait(self, index: int) -> int:
        self.until(lambda: self.processes[index].exitcode is not None)
        return self.processes[index].exitcode

    def message(self, index: int) -> TerminationMessage:
        text = (self.folder / f"termination-{index}").read_text()
        assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
        found = TerminationMessage.from_termination_log(text)
        assert found
        return found

    def worker_of(self, index: int) -> int:
        [pid] = processes_of("unfreeze-worker", self.folder / f"pod-{index}.log")
        return pid


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """Ways of the agents to what forks their workers, as `unfreeze run` has it for the pods of a job."""
    job = pods_job(tmp_path_factory.mktemp("none"), free_port())
    server, ways = forks.start(libraries_of(job), MOST_STARTS)
    yield ways
    for way in ways:
        way.close()
    server.kill()
    server.wait()


@pytest.fixture
def pods(ranks, ways, tmp_path):
    made = []

    def make(folder: Path = tmp_path, run: Path | None = None, **options) -> Pods:
        made.append(Pods(folder, run, ways=ways, **options))
        return made[-1]

    yield make
    for pods in made:
        for process in pods.processes.values():
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def whole(ranks, tmp_path_factory):
    """The run of `pods_job` that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    ranks.call(engine_group.pods_case, folder)
    return folder / "pods"


def test_a_disturbed_job_ends_as_an_undisturbed_one(pods, whole, tmp_path):
    """A killed worker, a pod that is asked to stop, the leader's pod killed: each time the gang goes on."""
    (tmp_path / "slow").touch()
    gang = pods(sleep=0.08, sleepWhile=str(tmp_path / "slow"))
    gang.start(0)
    gang.start(1)
    assert gang.until(lambda: gang.get(0, "/healthz"))
    assert gang.progress().activity == "Starting"

    gang.until(lambda: gang.progress().step >= 6)
    os.kill(gang.worker_of(1), signal.SIGKILL)
    gang.until(lambda: gang.progress().restarts >= 1 and gang.progress(1).restarts >= 1)
    step = gang.progress().step
    gang.until(lambda: gang.progress().step > step + 2)
    assert gang.progress().world_size == 2

    gang.processes[1].terminate()
    assert gang.wait(1) == 143
    stopped = gang.message(1)
    assert (stopped.outcome, stopped.exit_code) == ("Stopped", 143)
    assert stopped.checkpoint.step >= step
    assert (tmp_path / "run" / "checkpoints" / f"step-{stopped.checkpoint.step}").is_dir()
    assert gang.processes[0].exitcode is None, "the other pod waits for the successor"
    gang.start(1)
    gang.until(lambda: gang.progress(1).step > stopped.checkpoint.step + 2)

    metrics = gang.get(0, "/metrics").decode()
    for series in (
        "loss",
        "learning_rate",
        "samples_per_second",
        "progress_ratio",
        "checkpoint_age_seconds",
        "restarts",
        "skipped_steps",
    ):
        assert f"unfreeze_training_{series}" in metrics
    gang.processes[0].kill()
    gang.processes[0].join()
    (tmp_path / "slow").unlink()
    gang.start(0)
    assert (gang.wait(0), gang.wait(1)) == (0, 0)

    message = gang.message(0)
    assert (message.outcome, message.reason) == ("Succeeded", "Completed")
    assert message.message in (tmp_path / "run" / "report.html").read_text().replace("&#39;", "'")
    assert "The model's loss is 0." in message.message
    assert gang.message(1).message == ""
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    undisturbed = json.loads((whole / "report.json").read_text())
    assert message.progress.results["test.accuracy"] == report["results"]["test"]["accuracy"]
    assert report["results"] == undisturbed["results"]
    ours, theirs = (torch.load(folder / "model" / "weights.pt") for folder in (tmp_path / "run", whole))
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []

    before = (tmp_path / "run" / "report.json").read_bytes()
    gang.start(1)  # alone: a finished job needs no gang
    assert gang.wait(1) == 2, "the data of the finished run are looked for, and /none.csv is not there"
    assert (tmp_path / "run" / "report.json").read_bytes() == before


def test_pods_that_others_have_taken_the_place_of_cannot_write_into_the_run(pods, whole, tmp_path):
    """A gang whose nodes were cut off trains on, while its replacement has long begun."""
    late = pods(sleep=0.2)
    for index in (0, 1):
        late.start(index)
    late.until(lambda: late.progress().checkpoint)
    gang = pods(tmp_path / "successor", tmp_path / "run")
    for index in (0, 1):
        gang.start(index)
    assert (late.wait(0), late.wait(1)) == (2, 2)
    for index in (0, 1):
        told = late.message(index)
        assert (told.reason, told.rank) == ("Superseded", 0)
        assert "generation 2; this one was 1" in told.message
    assert (gang.wait(0), gang.wait(1)) == (0, 0)
    report, undisturbed = (json.loads((run / "report.json").read_text()) for run in (tmp_path / "run", whole))
    assert report["results"] == undisturbed["results"]


def test_an_error_of_the_job_on_one_rank_ends_all_pods(pods):
    gang = pods(jobError=1)
    gang.start(0)
    gang.start(1)
    assert (gang.wait(1), gang.wait(0)) == (2, 2)
    for index in (0, 1):
        told = gang.message(index)
        assert (told.reason, told.message, told.rank) == ("InvalidData", "row 3 of data.csv has no label", 1)


def test_workers_that_hang_are_started_again_and_all_say_where_they_were(pods, tmp_path):
    """One rank hangs, the other waits for it in a collective, and its agent alone notices."""
    gang = pods(hang=1, hangMarker=str(tmp_path / "hung"), sleep=0.02)
    for index, seconds in ((0, 5), (1, 3600)):
        job = gang.job.model_copy(update={"hang_timeout_seconds": seconds})
        (tmp_path / f"job-{index}.json").write_text(job.to_json())
        gang.start(index, f"job-{index}.json")
    gang.until(lambda: gang.progress().restarts >= 1 and gang.progress(1).restarts >= 1)
    assert (tmp_path / "hung").exists()
    assert (gang.wait(0), gang.wait(1)) == (0, 0)
    logs = [(tmp_path / f"pod-{index}.log").read_text() for index in (0, 1)]
    assert "in hang_once" in logs[1]
    assert "in hang_once" not in logs[0]
    for log in logs:
        assert "Current thread" in log
        assert "mlp.py" in log
    assert ["no news from the workers for 5 s" in log for log in logs] == [True, False]
    assert gang.message(0).outcome == "Succeeded"


def test_asked_to_stop_before_anything_runs(pods):
    gang = pods()
    gang.start(1)  # nobody hosts the rendezvous
    gang.until(lambda: gang.get(1, "/healthz"))
    gang.processes[1].terminate()
    assert gang.wait(1) == 143
    assert gang.message(1).outcome == "Stopped"


def test_a_broken_job_file_is_an_error_of_the_job(pods):
    gang = pods()
    (gang.folder / "job.json").write_text("{}")
    gang.start(0)
    assert gang.wait(0) == 2
    assert gang.message(0).reason == "InvalidJob"
