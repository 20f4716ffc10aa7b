"""`unfreeze features`: vectors equal to those that the plain library gives, of a job's base and of a finished model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.trainer.jobs import bert_folder, write_csv
from unfreeze_api.cli import main
from unfreeze_trainer.ranking import extract

pytestmark = pytest.mark.slow

ROWS = 23
JOB = {
    "model": {"source": "base"},
    "task": {"type": "TextClassification", "textClassification": {"maxLength": 16, "pooling": "Mean"}},
    "data": {"train": {"source": "texts.csv"}, "validation": {"fraction": 0.2}},
    "strategy": {"type": "FeatureExtraction"},
    "output": {"destination": "run"},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    bert_folder(folder / "base")
    write_csv(folder / "texts.csv", rows=ROWS)
    job = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}, "spec": JOB}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder


def ask(*arguments: object, code: int = 0) -> str:
    found = CliRunner().invoke(main, ["features", *map(str, arguments)], catch_exceptions=False)
    assert found.exit_code == code, found.output
    return " ".join(found.output.split())


def texts(folder: Path) -> list[dict[str, str]]:
    with (folder / "texts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@torch.inference_mode()
def plain(folder: Path, rows: list[dict[str, str]]) -> list[np.ndarray]:
    """Return the mean over the tokens of each layer's output, one text at a time."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    found = []
    for row in rows:
        inputs = tokenizer(row["text"], truncation=True, max_length=16, return_tensors="pt")
        layers = model(**inputs, output_hidden_states=True).hidden_states
        found.append(torch.stack([layer[0].mean(0) for layer in layers]).numpy())
    return list(np.stack(found, axis=1))


def vectors(table) -> np.ndarray:
    return np.array(table["features"].to_pylist(), dtype=np.float32)


@pytest.mark.parametrize("chunk", [extract.CHUNK, 4])
def test_the_features_of_a_jobs_base_are_those_of_the_plain_library(here, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(extract, "CHUNK", chunk)
    ask(here / "job.yaml", "--output", tmp_path / "read.parquet", "--batch-size", 3)
    ask(here / "job.yaml", "--output", tmp_path / "first.parquet", "--layer", "layer.0", "--inputs")
    read, first = pq.read_table(tmp_path / "read.parquet"), pq.read_table(tmp_path / "first.parquet")
    known = texts(here)
    rows = [known[row - 1] for row in read["row"].to_pylist()]
    assert len(rows) < ROWS, "what is held out is in another split"
    layers = plain(here / "base", rows)
    assert read["label"].to_pylist() == [row["label"] for row in rows]
    assert first["text"].to_pylist() == [row["text"] for row in rows]
    assert np.allclose(vectors(read), layers[-1], atol=1e-5)
    assert np.allclose(vectors(first), layers[1], atol=1e-5)
    assert not list(tmp_path.glob(".*"))


def test_splits_are_those_of_the_training(here, tmp_path):
    found = []
    for split in ("train", "validation"):
        ask(here / "job.yaml", "--split", split, "--output", tmp_path / f"{split}.parquet")
        found += pq.read_table(tmp_path / f"{split}.parquet")["row"].to_pylist()
    assert sorted(found) == list(range(1, ROWS + 1))
    assert "--split test: the job has no spec.data.test" in ask(
        here / "job.yaml", "--split", "test", "--output", tmp_path / "test.parquet", code=2
    )


def test_a_finished_model_is_asked_about_rows_without_labels(here, tmp_path):
    from transformers import AutoTokenizer, BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(here / "base", num_labels=3).eval()
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(here / "base").save_pretrained(tmp_path / "model")
    rows = texts(here)[:7]
    (tmp_path / "new.csv").write_text("\n".join(["text", *(row["text"] for row in rows)]) + "\n")
    ask(tmp_path / "model", tmp_path / "new.csv", "--output", tmp_path / "f.parquet", "--layer", "layer.0")
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["row", "features"]
    assert np.allclose(vectors(table), plain(here / "base", rows)[1], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["job.yaml", "--output", "f.csv"], "the file ends in .parquet"),
        (["job.yaml", "texts.csv", "--output", "f.parquet"], "is a job, whose data are its own"),
        (["base", "--output", "f.parquet"], "DATA has to say what the model is asked of"),
        (["job.yaml", "--layer", "layer.9", "--output", "f.parquet"], "has no such layer: choose one of layer.0"),
        (["base", "texts.csv", "--output", "f.parquet"], "by the file of a job that names it"),
        (["job.yaml", "--column", "text=x", "--output", "f.parquet"], "--column is for DATA"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(here, arguments, said):
    first, *others = arguments
    places = [here / one if (here / one).exists() or one.startswith("f.") else one for one in [first, *others]]
    assert said in ask(*places, code=2)
    assert not (here / "f.parquet").exists()
