"""Runs with several labels for each sample: what the report says is what plain libraries find on the exported model."""

import json
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    matthews_corrcoef,
    roc_auc_score,
)

from tests.trainer.jobs import WORDS, bert_folder, image_folder, make_job, timm_folder
from tests.trainer.ranks import run_gang
from tests.trainer.whole_worker import work

pytestmark = pytest.mark.slow

NAMES = ("far", "many", "tall")  # in the order of class ids


def rows(count: int, start: int = 0) -> list[dict]:
    """Return texts whose words are their labels, none too."""
    made = []
    for number in range(start, start + count):
        labels = [name for bit, name in enumerate(NAMES) if number >> bit & 1]
        made.append({"text": " ".join([*labels, WORDS[number % 7], WORDS[number % 11 + 7]]), "label": labels})
    return made


def write(path, samples):
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    bert_folder(folder / "bert")
    write(folder / "t.jsonl", rows(64))
    write(folder / "v.jsonl", rows(23, 100))
    return folder


def run(folder, workers, name, **change):
    job = make_job(
        folder / change.pop("model", "bert"),
        folder / change.pop("train", "t.jsonl"),
        output={"destination": f"file://{folder / name}"},
        distribution={"numProcPerNode": workers},
        **change,
    )
    codes = run_gang(workers, work, job, folder / f"{name}.log")
    assert codes == [0] * workers, (folder / f"{name}.log").read_text()[-5000:]
    return json.loads((folder / name / "report.json").read_text())


def expected(targets: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    predictions = logits > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "microF1": f1_score(targets, predictions, average="micro"),
            "macroF1": f1_score(targets, predictions, average="macro"),
            "mAP": average_precision_score(targets, logits),
            "subsetAccuracy": accuracy_score(targets, predictions),
        }


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_uneven_shares_of_texts_are_measured_as_scikit_learn_measures_them(ranks, folder, workers):
    from transformers import pipeline

    report = run(
        folder,
        workers,
        f"text-{workers}",
        task={"type": "TextClassification", "textClassification": {"labels": "Multi"}},
        data={"validation": {"fraction": None, "source": f"file://{folder / 'v.jsonl'}"}},
        strategy={"learningRate": {"head": 0.02, "backbone": 0.005}},
        training={"epochs": 3, "batchSize": 13, "metric": "mAP", "checkpoint": {"afterSuccess": "Delete"}},
    )
    classify = pipeline("text-classification", model=str(folder / f"text-{workers}" / "model"), top_k=None)
    assert classify.model.config.problem_type == "multi_label_classification"
    samples = rows(23, 100)
    found = [
        {answer["label"]: answer["score"] for answer in answers}
        for answers in classify([sample["text"] for sample in samples])
    ]
    targets = np.array([[name in sample["label"] for name in NAMES] for sample in samples])
    scores = torch.tensor([[answer[name] for name in NAMES] for answer in found])
    measured = report["results"]["validation"]
    assert measured.pop("loss") > 0
    assert measured == pytest.approx(expected(targets, scores.logit().numpy()), rel=1e-6)
    assert measured["mAP"] > 0.8
    assert "for label, logit in zip(labels" in report["exports"][0]["usage"]


def test_rare_labels_are_drawn_and_measured_as_scikit_learn_measures_them(ranks, folder):
    from transformers import pipeline

    rare = [{"text": sample["text"], "label": len(sample["label"]) // 2} for sample in rows(64)]
    write(folder / "rare.jsonl", rare)
    samples = [{"text": sample["text"], "label": len(sample["label"]) // 2} for sample in rows(23, 100)]
    write(folder / "rare-v.jsonl", samples)
    report = run(
        folder,
        3,
        "rare",
        train="rare.jsonl",
        task={"textClassification": {"sampling": "Balanced", "focalLoss": {"gamma": 1}}},
        data={"validation": {"fraction": None, "source": f"file://{folder / 'rare-v.jsonl'}"}},
        strategy={"learningRate": {"head": 0.02, "backbone": 0.005}},
        training={"epochs": 3, "batchSize": 13, "metric": "auroc"},
    )
    classify = pipeline("text-classification", model=str(folder / "rare" / "model"), top_k=None)
    found = [
        {answer["label"]: answer["score"] for answer in answers}["1"]
        for answers in classify([sample["text"] for sample in samples])
    ]
    targets, scores = np.array([sample["label"] for sample in samples]), np.array(found)
    measured = report["results"]["validation"]
    assert measured["auroc"] == pytest.approx(roc_auc_score(targets, scores), rel=1e-6)
    assert measured["mcc"] == pytest.approx(matthews_corrcoef(targets, scores > 0.5), rel=1e-12)
    assert measured["brier"] == pytest.approx(brier_score_loss(targets, scores), rel=1e-4)
    assert measured["loss"] == pytest.approx(log_loss(targets, scores), rel=1e-4), "as it is, whatever was trained on"
    assert len(measured) == 8


def test_pictures_with_several_labels(ranks, folder):
    timm_folder(folder / "timm")
    image_folder(folder / "pictures", per_label=8)
    samples = [
        {"image": f"pictures/{name}/{number}.png", "label": [name, *(["_first"] if number < 4 else [])][number == 7 :]}
        for name in ("blue", "red")
        for number in range(8)
    ]
    write(folder / "p.jsonl", samples)
    report = run(
        folder,
        2,
        "pictures-run",
        model="timm",
        train="p.jsonl",
        task={"type": "ImageClassification", "imageClassification": {"labels": "Multi", "imageSize": 32}},
        training={"epochs": 1, "batchSize": 5},
    )
    assert report["data"]["labels"] == ["_first", "blue", "red"]
    assert "8 have the label '_first', which reads like what is kept aside" in " ".join(report["warnings"])
    assert set(report["results"]["validation"]) == {"microF1", "macroF1", "mAP", "subsetAccuracy", "loss"}
    said = {}
    picture = f'Image.open("{folder}/pictures/red/0.png")'
    exec(report["exports"][0]["usage"].replace('Image.open("picture.png")', picture), said)
    assert said["labels"] == ["_first", "blue", "red"]
