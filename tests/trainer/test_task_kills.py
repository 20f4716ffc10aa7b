"""Tasks whose two workers die by SIGKILL: the run that goes on ends as the undisturbed one, bit for bit.

Pictures and clips with one label are in `test_augmentation` and `test_audio_runs`; tokens, language and vectors in files of their own.
"""

from __future__ import annotations

import json

import pytest

from tests.trainer.jobs import WORDS, audio_folder, audio_model, bert_folder, image_folder, make_job, timm_folder
from tests.trainer.whole_worker import ends_as_undisturbed

pytestmark = pytest.mark.slow

SINGLE, MULTI = {"accuracy", "auroc"}, {"microF1", "mAP"}
PAIR = {"columns": {"text": "text", "textPair": "other"}}
CASES = {
    "texts, one label": ({"type": "TextClassification"}, {}, SINGLE),
    "pairs of texts, one label": ({"type": "TextClassification"}, PAIR, SINGLE),
    "texts, several labels": ({"type": "TextClassification", "textClassification": {"labels": "Multi"}}, {}, MULTI),
    "numbers": ({"type": "TextRegression"}, {}, {"rmse", "pearson"}),
    "pictures, several labels": (
        {"type": "ImageClassification", "imageClassification": {"labels": "Multi", "imageSize": 32}},
        {},
        MULTI,
    ),
    "clips, several labels": (
        {"type": "AudioClassification", "audioClassification": {"labels": "Multi", "maxSeconds": 0.4}},
        {},
        MULTI,
    ),
}
"""Task, what training data has beside it, and some of its metrics."""


def written(folder, task, *, several):
    """Write a model, and rows of data for a task; return both paths."""
    kind, model, names = task["type"].removesuffix("Classification"), folder / "m", ("far", "many", "tall")
    if kind == "Image":
        timm_folder(model)
        image_folder(folder / "d", 14, names)
    elif kind == "Audio":
        audio_model(model)
        audio_folder(folder / "d", 14, names)
    else:
        bert_folder(model)
    rows = []
    for number in range(40):
        labels = [name for bit, name in enumerate(names) if number >> bit & 1]
        row = {
            "text": " ".join([*labels, WORDS[number % 7], WORDS[number % 11 + 7]]),
            "other": WORDS[number % 5],
            "value": len(labels) * 10 + 0.5,
            "label": labels if several else names[number % 3],
        }
        if kind in ("Image", "Audio"):
            [file] = (folder / "d" / names[number % 3]).glob(f"{number // 3}.*")
            row[kind.lower()] = str(file.relative_to(folder))
        rows.append(row)
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return model, path


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_ends_as_the_undisturbed_one(ranks, tmp_path, case):
    task, train, metrics = CASES[case]
    model, data = written(tmp_path, task, several="several" in case)

    def job_in(name: str):
        return make_job(
            model,
            data,
            task=task,
            data={"test": {"fraction": 0.2}, "train": train},
            strategy={"type": "LinearProbeThenFineTune", "learningRate": {"head": 5e-2, "backbone": 1e-2}},
            training={"epochs": 3, "batchSize": 7, "gradientAccumulationSteps": 2, "checkpoint": {"everySteps": 2}},
            distribution={"numNodes": 2},
            output={"destination": f"file://{tmp_path}/{name}"},
        )

    one = ends_as_undisturbed(job_in, tmp_path)
    assert metrics < set(one["results"]["test"])
    events = map(json.loads, (tmp_path / "killed" / "events.jsonl").read_text().splitlines())
    steps = [event["step"] for event in events if event["event"] == "start"]
    assert steps in ([0, 4], [0, 2]), "the checkpoint of step 4 may still have been on its way"
    for file in ("predictions/test.parquet", "evaluation.json"):
        whole, killed = (tmp_path / name / file for name in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()
