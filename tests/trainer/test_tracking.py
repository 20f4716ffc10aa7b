"""Trackers with real backends on this machine, read back: TensorBoard's files, an MLflow store, W&B offline."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.trainer.jobs import bert_folder, make_job, write_csv
from unfreeze_api.contracts.progress import Progress
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.training import tracking
from unfreeze_trainer.training.tracking import Tracking, check_trackers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TENSORBOARD = {"tensorBoard": {}}


def tracked(folder: Path, trackers: dict, **change):
    output = {"destination": f"file://{folder / 'run'}"}
    (folder / "run").mkdir(exist_ok=True)
    return make_job(folder / "bert", folder / "words.csv", tracking=trackers, output=output, **change)


def mlflow_of(folder: Path) -> dict:
    return {"mlflow": {"uri": f"file://{folder / 'mlflow'}", "experiment": "words"}}


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return what TensorBoard's files say: step -> value by tag (a file is a list of TFRecords)."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for file in sorted((folder / "run/tensorboard").glob("events.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            if event.session_log.status == event.session_log.START:  # TensorBoard hides what stood at later steps
                found = {tag: {at: old[at] for at in old if at < event.step} for tag, old in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            data = data[16 + length :]
    return found


def mlflow_runs(folder: Path) -> tuple:
    """Return MLflow's client and the runs of the experiment."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow import MlflowClient

    client = MlflowClient(f"file://{folder / 'mlflow'}")
    experiment = client.get_experiment_by_name("words")
    return client, client.search_runs([experiment.experiment_id])


def test_a_training_tells_all_trackers(tmp_path):
    bert_folder(tmp_path / "bert")
    write_csv(tmp_path / "words.csv")
    trackers = TENSORBOARD | mlflow_of(tmp_path) | {"wandb": {"mode": "Offline"}}
    job = tracked(tmp_path, trackers, data={"test": {"fraction": 0.25}}, training={"epochs": 2})
    (tmp_path / "job.json").write_text(job.to_json())
    environment = os.environ | {"UNFREEZE_JOB": str(tmp_path / "job.json"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "unfreeze_trainer.worker"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run/report.json").read_text())
    steps = sum(phase["steps"] for phase in report["phases"])

    client, (run,) = mlflow_runs(tmp_path)
    assert (run.info.run_name, run.info.status) == ("job", "FINISHED")
    assert run.data.params["strategy.type"] == "FullFineTuning"
    assert run.data.params["training.batchSize"] == "4"
    validation = {
        metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "validation/accuracy")
    }
    assert sorted(validation) == [steps // 2, steps]
    assert run.data.metrics["test/accuracy"] == report["results"]["test"]["accuracy"]
    assert {
        "train/loss",
        "train/samplesPerSecond",
        "train/tokensPerSecond",
        "learningRate/head",
    } <= run.data.metrics.keys()

    board = scalars(tmp_path)
    assert board.keys() == run.data.metrics.keys()
    assert board["validation/accuracy"] == pytest.approx(validation)
    (offline,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    assert offline.stem == "run-" + json.loads((tmp_path / "run/tracking.json").read_text())["wandb"]
    assert b"validation/accuracy" in offline.read_bytes()


def test_a_job_that_goes_on_writes_into_the_same_runs(tmp_path):
    job = tracked(tmp_path, TENSORBOARD | mlflow_of(tmp_path))
    for step, value in ((0, 0.1), (2, 0.9)):
        telling = Tracking(job, step, enabled=True)
        for later in (1, 2):
            telling.metrics("validation", {"accuracy": value + later}, step + later)
        telling.close()
    client, (run,) = mlflow_runs(tmp_path)
    history = client.get_metric_history(run.info.run_id, "validation/accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.1), (2, 2.1), (3, 1.9), (4, 2.9)]
    assert sorted(scalars(tmp_path)["validation/accuracy"]) == [1, 2, 3, 4]


def test_what_was_told_of_steps_that_a_rollback_undoes_is_hidden(tmp_path):
    telling = Tracking(tracked(tmp_path, TENSORBOARD), 0, enabled=True)
    for to in (2, 0):
        for step in (1, 2, 3, 4):
            telling.metrics("validation", {"accuracy": step}, step)
        telling.went_back(to)
        telling.progress(Progress(step=to + 1, loss=1.0, rollbacks=1))
    telling.close()
    board = scalars(tmp_path)
    assert (board["validation/accuracy"], board["train/rollbacks"]) == ({}, {1: 1.0})


def test_training_figures_are_told_now_and_then_and_metrics_always(tmp_path):
    telling = Tracking(tracked(tmp_path, TENSORBOARD), 0, enabled=True)
    for step in range(1, 50):
        telling.progress(Progress(step=step, loss=1 / step, learning_rates={"head": 0.1}))
        telling.metrics("validation", {"loss": 1.0}, step)
    telling.close()
    board = scalars(tmp_path)
    assert board["train/loss"] == {1: 1.0}
    assert len(board["validation/loss"]) == 49


def test_a_tracker_that_fails_costs_neither_the_training_nor_the_others(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    dead = {"mlflow": {"uri": "http://127.0.0.1:9", "experiment": "words"}}  # the port of a service that nobody runs
    telling = Tracking(tracked(tmp_path, dead | TENSORBOARD), 0, enabled=True)
    with caplog.at_level(logging.WARNING, "unfreeze_trainer.training.tracking"):
        for step in (1, 2, 3):
            telling.metrics("validation", {"accuracy": 0.5}, step)
        telling.close()
    assert sorted(scalars(tmp_path)["validation/accuracy"]) == [1, 2, 3]
    (warning,) = [
        record.getMessage() for record in caplog.records if record.name == "unfreeze_trainer.training.tracking"
    ]
    assert warning.startswith("mlflow fails, the training continues without it: ")


def test_a_tracker_that_does_not_answer_holds_the_end_up_for_a_while_only(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.1)
    monkeypatch.setitem(tracking._OPENERS, "tensorBoard", lambda *_: threading.Event().wait())
    telling = Tracking(tracked(tmp_path, TENSORBOARD), 0, enabled=True)
    telling.metrics("validation", {"accuracy": 0.5}, 1)
    telling.close()
    assert "the trackers do not take the last figures" in caplog.text


def test_ranks_that_do_not_tell_open_nothing(tmp_path):
    telling = Tracking(tracked(tmp_path, TENSORBOARD), 0, enabled=False)
    telling.metrics("validation", {"accuracy": 0.5}, 1)
    telling.close()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("trackers", "package"),
    [
        (TENSORBOARD, "tensorBoard: tensorboardX"),
        ({"mlflow": {"uri": "http://mlflow:5000"}}, "mlflow: mlflow"),
        ({"wandb": {"mode": "Offline"}}, "wandb: wandb"),
    ],
)
def test_a_tracker_that_is_not_installed_is_an_error_of_the_job(tmp_path, monkeypatch, trackers, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(JobError, match=rf"spec\.tracking\.{package} is not installed .* '\.\[trackers\]'"):
        check_trackers(tracked(tmp_path, trackers))


def test_wandb_online_without_its_key_is_an_error_of_the_job(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    online = tracked(tmp_path, {"wandb": {"secretRef": {"name": "wandb"}}})
    with pytest.raises(JobError, match="WANDB_API_KEY is not set: put it into the Secret"):
        check_trackers(online)
    monkeypatch.setenv("WANDB_API_KEY", "k")
    check_trackers(online)
