"""The predictions of validation and test that each run leaves behind."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, f1_score

from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import cut_off, events, run_in
from tests.trainer.jobs import bert_folder, image_folder, make_job, merge, timm_folder
from tests.trainer.mlp import MLPTask
from unfreeze_api.contracts.progress import Progress
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.exports import exporter
from unfreeze_trainer.exports.predictions import About, PredictionsWriter, about, batches, matrix
from unfreeze_trainer.objectives.answers import ABSENT, ANSWERED, UNSEEN, Amounts, AnyOf, OneOf
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training import predictions
from unfreeze_trainer.training.history import CurveFile
from unfreeze_trainer.training.predictions import Kept, Predictions
from unfreeze_trainer.training.run import Run

LABELS = ["a", "b", "<script>"]


def logits(rows, width=3, seed=0):
    return np.random.default_rng(seed).normal(0, 3, (rows, width)).astype(np.float32)


def test_one_of_several_classes():
    outputs = logits(7)
    outputs[3] *= 1e4
    found = OneOf(LABELS).columns(outputs)
    assert found["prediction"].to_pylist() == [LABELS[index] for index in outputs.argmax(1)]
    expected = softmax(outputs.astype(float), axis=1)
    assert np.allclose(matrix(found["probabilities"], 3), expected, atol=1e-7)
    assert np.allclose(found["confidence"], expected.max(1), atol=1e-7)
    assert OneOf(LABELS).labels(np.array([2, 0])).to_pylist() == ["<script>", "a"]


@pytest.mark.parametrize(("unseen", "predicted"), [("a", "a"), (None, None)])
def test_a_row_that_the_model_does_not_see_has_no_probabilities(unseen, predicted):
    outputs = logits(3)
    outputs[1] = np.nan
    found = OneOf(LABELS, unseen=unseen).columns(outputs, np.array([True, False, True]))
    assert found["prediction"].to_pylist()[1] == predicted
    assert found["confidence"].to_pylist()[1] is None
    lists = found["probabilities"].to_pylist()
    assert lists[1] is None
    assert np.allclose([lists[0], lists[2]], softmax(outputs[[0, 2]].astype(float), axis=1))
    assert np.isnan(matrix(found["probabilities"], 3)).all(1).tolist() == [False, True, False]


def test_any_of_several_labels():
    outputs = np.array([[1, -1, 200], [-0.0, -300, -2]], dtype=np.float32)
    found = AnyOf(LABELS).columns(outputs)
    assert found["prediction"].to_pylist() == [["a", "<script>"], []]
    assert np.allclose(matrix(found["probabilities"], 3), expit(outputs.astype(float)), atol=1e-7)
    assert AnyOf(LABELS).labels(np.array([[-1, -1], [0, 2]])).to_pylist() == [[], ["a", "<script>"]]


def test_amounts_are_numbers_and_of_several_targets_lists():
    values = np.array([[1.5], [0.1]])
    assert Amounts(["x"]).columns(values)["prediction"].to_pylist() == [1.5, 0.1]
    assert Amounts(["x", "y"]).labels(np.array([[1.5, 2], [3, 4]])).to_pylist() == [[1.5, 2], [3, 4]]


def test_a_file_says_what_it_is_of_and_the_same_rows_give_the_same_bytes(tmp_path):
    what = About(split="test", step=4, task="TextClassification", kind="OneOf", names=LABELS)
    for name in ("one.parquet", "other.parquet"):
        with PredictionsWriter(tmp_path / name, what) as file:
            for seed in (0, 1):
                file.write(what.answers.columns(logits(5, seed=seed)))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()
    assert about(tmp_path / "one.parquet") == what
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "one.parquet").read_bytes()[:-9])
    assert about(tmp_path / "broken.parquet") is about(tmp_path / "none.parquet") is None
    assert sum(len(batch) for batch in batches(tmp_path / "one.parquet", ["prediction"])) == 10


class Samples(MLPTask):
    """Samples with a number of rows each, as words are; the outputs of a row tell which it is."""

    def __init__(self, counts, lost=(), unseen=()):
        self.counts = np.array(counts)
        self.ends = np.cumsum(self.counts)
        self.splits = {"test": len(counts)}
        self.lost, self.unseen = set(lost), set(unseen)
        self.answers = OneOf(LABELS, unseen="a")

    def rows_of(self, _):
        return self.counts

    def known(self, _, samples, **__):
        rows = np.concatenate([np.arange(self.ends[i] - self.counts[i], self.ends[i]) for i in samples])
        return {"row": OneOf([str(row) for row in range(self.ends[-1])]).labels(rows)}

    def kept(self, rank, world_size, size=3):
        kept = Kept(self, "test", rank, world_size)
        mine = range(len(self.counts))[rank::world_size]
        for low in range(0, len(self.counts) + size, size):  # the last ones only fill up
            kept.add(torch.empty(0), [*mine[low : low + size]])
        return kept

    def keep(self, _, indices):
        width = max([*self.counts[indices], 1])
        outputs, states = (
            torch.full((max(1, len(indices)), width, 3), torch.nan),
            torch.zeros(max(1, len(indices)), width),
        )
        for place, index in enumerate(indices):
            for word in range(self.counts[index]):
                row = self.ends[index] - self.counts[index] + word
                outputs[place, word] = torch.tensor([0, 0, row / 10])
                states[place, word] = UNSEEN if row in self.unseen else ANSWERED
            if index in self.lost:
                states[place] = ABSENT
        return outputs, states


class Ranks:
    """The engine of one of several ranks, whose parts the others have computed already."""

    def __init__(self, rank, parts):
        self.rank, self.world_size, self.parts, self.sent = rank, len(parts) + 1, parts, []

    def all_reduce(self, tensor):
        self.sent.append(tensor.clone())
        return tensor + sum(part[len(self.sent) - 1].nan_to_num() for part in self.parts)


def written(task, world_size, tmp_path, kept=Samples.kept):
    """Return the rows that some ranks write."""
    others, job = [], SimpleNamespace(output=SimpleNamespace(prediction_inputs="Omit"), task=SimpleNamespace(type="X"))
    generation = SimpleNamespace(aside=tmp_path.joinpath, commit=lambda *_: None)
    for rank in reversed(range(world_size)):
        engine = Ranks(rank, [] if rank else others)
        engine.world_size = world_size
        folder = SimpleNamespace(path=tmp_path, generation=None if rank else generation)
        Predictions(job, task, engine, folder).write("test", kept(task, rank, world_size), 3)
        others.append(engine.sent)
    return pq.read_table(tmp_path / "test.parquet")


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("counts", [[1] * 10, [1, 4, 0, 2, 9, 1, 1], [2]])
def test_each_row_is_there_once_and_in_order_however_many_ranks(monkeypatch, tmp_path, world_size, counts):
    monkeypatch.setattr(predictions, "_PART", 12)
    table = written(Samples(counts), world_size, tmp_path)
    rows = np.arange(sum(counts))
    assert table["row"].to_pylist() == [str(row) for row in rows]
    outputs = np.stack([0 * rows, 0 * rows, rows / 10], 1)
    assert np.allclose(matrix(table["probabilities"].combine_chunks(), 3), softmax(outputs, axis=1))


def test_what_could_not_be_read_is_left_out_and_what_is_not_seen_says_so(tmp_path):
    table = written(Samples([2, 3, 1], lost=[1], unseen=[1, 5]), 2, tmp_path)
    assert table["row"].to_pylist() == ["0", "1", "5"]
    assert table["confidence"].is_null().to_pylist() == [False, True, True]


def test_what_is_too_much_is_left_out(monkeypatch):
    monkeypatch.setattr(predictions, "MAX_KEPT", 29)
    assert Kept.of(Samples([1] * 10), "test", 0, 1) is None
    assert Kept.of(Samples([1] * 9), "test", 0, 1) is not None


def scores(path):
    table = pq.read_table(path)
    label, prediction = table["label"].to_pylist(), table["prediction"].to_pylist()
    return {
        "accuracy": accuracy_score(label, prediction),
        "macroF1": f1_score(label, prediction, average="macro"),
    }


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_run_leaves_those_of_its_best_weights_and_makes_no_further_pass(tmp_path):
    run = run_in(tmp_path)
    passes, measure = [], run.evaluator.measure
    run.evaluator.measure = lambda split: (passes.append(split), measure(split))[1]
    complete(run)
    report = json.loads((tmp_path / "report.json").read_text())
    assert passes.count("test") == 1
    assert passes.count("validation") == len(events(tmp_path, "evaluation"))
    for split in ("validation", "test"):
        path = tmp_path / "predictions" / f"{split}.parquet"
        assert about(path).step == report["bestStep"]
        assert scores(path) == pytest.approx({name: report["results"][split][name] for name in ("accuracy", "macroF1")})
        assert pq.read_table(path)["row"].to_pylist() == list(range(1, 1 + MLPTask.splits[split]))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("step", [7, 25])
def test_a_run_that_was_cut_off_leaves_the_same_bytes(tmp_path, step):
    complete(run_in(tmp_path / "whole"))
    cut_off(tmp_path / "cut", step)
    predicted = tmp_path / "cut" / "predictions" / "validation.parquet"
    if predicted.exists():  # as a crash between it and its checkpoint would leave it, or a disk
        predicted.write_bytes(b"PAR1")
    complete(run_in(tmp_path / "cut"))
    for name in ("predictions/validation.parquet", "predictions/test.parquet", "evaluation.json", "label-issues.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    whole, cut = (history(tmp_path / name) for name in ("whole", "cut"))
    evaluations = [[row | {"loss": ""} for row in rows if row["validation.loss"]] for rows in (whole, cut)]
    assert evaluations[0] == evaluations[1], "the smoothed loss of the training alone begins anew"
    for rows in (whole, cut):
        steps = [int(row["step"]) for row in rows]
        assert steps == sorted(set(steps))
        assert len(events(tmp_path / "whole", "evaluation")) == sum(bool(row["validation.loss"]) for row in rows)


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_history_goes_on_where_its_run_does(tmp_path):
    generation = SimpleNamespace(
        aside=lambda name: tmp_path / f".{name}", commit=lambda aside, path: aside.replace(path), check=lambda: None
    )

    def resumed(step, **change):
        options = {"step": step, "total_steps": 5000, "blocks": ["a,b", "head"], "metrics": ["loss", "accuracy"]}
        return CurveFile(tmp_path, generation, **options | change)

    def progress(step):
        rates, metrics = {"head": 0.1}, {"accuracy": float("nan")}
        return Progress(step=step, phase_name="head, alone", loss=1 / step, learning_rates=rates, metrics=metrics)

    curve = resumed(0)
    for step in (3, 10, 15, 21):
        curve.trained(progress(step))
    curve.evaluated(progress(22))
    with (tmp_path / "history.csv").open("a") as file:
        file.write("23,0.5,he")  # as a crash cuts it
    assert [row["step"] for row in history(tmp_path)[:-1]] == ["10", "21", "22"]
    assert history(tmp_path)[2]["learningRate.a,b"] == ""
    assert history(tmp_path)[2]["phase"] == "head, alone"
    resumed(21).evaluated(progress(22))
    assert [row["step"] for row in history(tmp_path)] == ["10", "21", "22"]
    before = (tmp_path / "history.csv").read_bytes()
    resumed(30)
    assert (tmp_path / "history.csv").read_bytes() == before
    resumed(22, metrics=["mcc", "loss"], blocks=["head"])
    assert [row["learningRate.head"] for row in history(tmp_path)] == ["0.1"] * 3, "as an older version wrote it"
    assert history(tmp_path)[2]["validation.mcc"] == ""
    resumed(22)
    assert history(tmp_path)[2]["validation.accuracy"] == "", "a metric without a value has none"


def pairs(folder):
    rows = [{"one": f"how {i}", "other": f"is {i % 5}", "kinds": ["a", "b"][: i % 3]} for i in range(40)]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text": "one", "textPair": "other", "label": "kinds"}
    task = {"type": "TextClassification", "textClassification": {"labels": "Multi"}}
    return bert_folder(folder / "m"), folder / "t.jsonl", {"task": task, "data": {"train": {"columns": columns}}}, rows


def numbers(folder):
    rows = [{"text": f"how {i}", "x": i / 3, "y": 2.0 * i} for i in range(40)]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"values": ["x", "y"]}
    return (
        bert_folder(folder / "m"),
        folder / "t.jsonl",
        {"task": {"type": "TextRegression"}, "data": {"train": {"columns": columns}}},
        rows,
    )


def pictures(folder):
    rows = [{"file": f"{label}/{i}.png", "label": label} for label in ("blue", "red") for i in range(6)]
    task = {"type": "ImageClassification", "imageClassification": {"imageSize": 32}}
    image_folder(folder / "i")
    (folder / "i" / "red" / "2.png").write_bytes(b"no picture")
    return timm_folder(folder / "m"), folder / "i", {"task": task, "data": {"onError": "Skip"}}, rows


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "loaded_here")
@pytest.mark.parametrize("kind", [pairs, numbers, pictures])
def test_rows_are_those_of_the_source_and_give_the_metrics(tmp_path, kind):
    model, source, change, rows = kind(tmp_path)
    output = {"destination": f"file://{tmp_path}/run", "predictions": {"inputs": "Include"}}
    job = make_job(model, source, **merge({"output": output, "data": {"validation": {"fraction": 0.5}}}, change))
    forget_accelerate()
    task = open_task(job)
    complete(Run(job, task, task.build_model(), open_engine(job), None))
    path = tmp_path / "run" / "predictions" / "validation.parquet"
    results = json.loads((tmp_path / "run" / "report.json").read_text())["results"]["validation"]
    found = pq.read_table(path).to_pylist()
    of_source = [rows[row["row"] - 1] for row in found]
    assert [row["row"] for row in found] == sorted(row["row"] for row in found)
    if kind is pairs:
        assert [(row["text"], row["textPair"], row["label"]) for row in found] == [
            (row["one"], row["other"], row["kinds"]) for row in of_source
        ]
        right = [row["label"] == row["prediction"] for row in found]
        assert results["subsetAccuracy"] == pytest.approx(np.mean(right))
        assert all([p > 0.5 for p in row["probabilities"]] == [n in row["prediction"] for n in "ab"] for row in found)
    elif kind is numbers:
        assert [(row["text"], row["label"]) for row in found] == [(r["text"], [r["x"], r["y"]]) for r in of_source]
        errors = np.array([row["label"] for row in found]) - np.array([row["prediction"] for row in found])
        assert results["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-12)
        assert "probabilities" not in found[0]
    else:
        assert [(row["file"], row["label"]) for row in found] == [(row["file"], row["label"]) for row in of_source]
        assert "red/2.png" not in {row["file"] for row in found}
        assert results["accuracy"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in found]))


@pytest.mark.slow
def test_a_million_rows_of_ten_classes_would_fit_into_a_gibibyte(tmp_path):
    """Torch takes 580 MiB of it. Of 1,000,000 rows the peak was 936 MiB in all, of which 361 were rows."""
    rows = 80_000
    command = [sys.executable, "-m", "tests.trainer.many_rows", str(rows), str(tmp_path)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert said["after"] - said["before"] < 170 + 270 * rows / 1_000_000, said


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_what_is_said_of_a_model_is_not_worth_the_model(monkeypatch, tmp_path):
    def fail(*_):
        raise ZeroDivisionError("of some figure")

    monkeypatch.setattr(exporter, "write_evaluation", fail)
    monkeypatch.setattr(exporter, "write_page", fail)
    complete(run_in(tmp_path))
    assert (tmp_path / "report.json").is_file()
    told = [event["message"] for event in events(tmp_path, "warning")]
    assert told == [
        f"{name} could not be written: ZeroDivisionError: of some figure" for name in ("evaluation.json", "report.html")
    ]
