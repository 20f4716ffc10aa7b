"""Runs on audio: their metrics are scikit-learn's on what the export says of each clip alone, and a killed one goes on."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss
from transformers import pipeline

from tests.trainer.audio_group import work_until
from tests.trainer.jobs import audio_folder, audio_model, make_job
from tests.trainer.ranks import run_gang
from unfreeze_trainer.data.clips import decode
from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity

pytestmark = pytest.mark.slow

TRAINING = {"epochs": 3, "batchSize": 6, "checkpoint": {"everySteps": 2}, "evaluate": {"everySteps": 3}}
LABELS = ("high", "low", "lower")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, ranks):
    """A function that returns the folder of a run by so many workers, killed once after a step."""
    folder = tmp_path_factory.mktemp("audio")
    model, train = audio_model(folder / "m"), audio_folder(folder / "train", 7, LABELS)
    test = audio_folder(folder / "test", 4, LABELS)  # 12 clips: shards of 3 workers in batches of 6 are uneven
    (test / "high/3.mp3").unlink()

    @cache
    def run(world, killed=None):
        place = folder / f"run-{world}-{killed}"
        job = make_job(
            model,
            train,
            task={"type": "AudioClassification", "audioClassification": {"maxSeconds": 0.4}},
            data={"test": {"source": f"file://{test}"}},
            strategy={"type": "GradualUnfreezing", "learningRate": {"head": 5e-2, "backbone": 5e-3}},
            training=TRAINING,
            distribution={"numNodes": world, "engine": "DDP"},
            output={"destination": f"file://{place}"},
        )
        if killed is not None:
            assert -9 in run_gang(world, work_until, job, folder / "log", killed)
        assert run_gang(world, work_until, job, folder / "log", None) == [0] * world, (folder / "log").read_text()[
            -3000:
        ]
        return place, test

    return run


@pytest.mark.parametrize("world", [1, 2, 3])
def test_metrics_of_uneven_shards_are_those_of_each_clip_alone(runs, world):
    place, test = runs(world)
    classify = pipeline("audio-classification", model=str(place / "model"))
    labels, said = [], []
    for file in sorted(test.rglob("*.*")):
        scores = {one["label"]: one["score"] for one in classify(decode(str(file), 16_000, 6_400), top_k=None)}
        labels.append(LABELS.index(file.parent.name))
        said.append([scores[label] for label in LABELS])
    found, guesses = json.loads((place / "report.json").read_text())["results"]["test"], np.argmax(said, axis=1)
    assert len(labels) == 11
    assert found["accuracy"] == accuracy_score(labels, guesses)
    assert found["macroF1"] == pytest.approx(f1_score(labels, guesses, average="macro"), rel=1e-12)
    assert found["balancedAccuracy"] == pytest.approx(balanced_accuracy_score(labels, guesses), rel=1e-12)
    assert found["loss"] == pytest.approx(
        log_loss(labels, np.array(said) / np.sum(said, axis=1, keepdims=True), labels=range(3)), rel=1e-4
    )


def test_a_killed_run_ends_as_the_undisturbed_one_bit_for_bit(runs):
    """With dropout and masked spans, which draw from the generators of a step."""
    (whole, _), (killed, _) = runs(2), runs(2, 5)
    ends = []
    for place in (whole, killed):
        checkpoints = Checkpoints(place, Identity("", {}))
        ends.append(checkpoints.load(checkpoints.steps()[0]))
    assert ends[0].weights.keys() == ends[1].weights.keys()
    assert all(torch.equal(tensor, ends[1].weights[name]) for name, tensor in ends[0].weights.items())
    for name, entry in ends[0].moments.items():
        assert all(torch.equal(value, ends[1].moments[name][key]) for key, value in entry.items())
    events = map(json.loads, (killed / "events.jsonl").read_text().splitlines())
    first, again = (event["step"] for event in events if event["event"] == "start")
    assert first == 0
    assert again in (3, 4), "the newest checkpoint may be on its way when a worker is killed"
