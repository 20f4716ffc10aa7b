"""How well Debian's packages are tagged: a multi-label task on real data, beside logistic regressions on words.

    python -m bench.tags FOLDER

Needs Debian's package lists (`apt-get update`) and the package of the examples' weights. Prints JSON, and keeps it in bench/results:
metrics on the packages that were held out, of MiniLM, frozen and with all of it trained, without weights and with `classWeights:
Balanced`, and of scikit-learn's TF-IDF with a logistic regression for each tag. Tags that fewer than one of 50 packages have are left out.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer

from bench.support.outcomes import SEED, interval, record, said, trained
from examples.prepare import prepare

SAMPLES, HELD_OUT = 2000, 1000
RARE = 50
FROZEN = {"type": "FeatureExtraction", "learningRate": {"head": 2e-2}}, 8
ALL = {"type": "FullFineTuning", "learningRate": {"head": 5e-3, "backbone": 5e-4}}, 6
PROBED = {
    "type": "LinearProbeThenFineTune",
    "linearProbeThenFineTune": {"probeEpochs": 8},
    "learningRate": {"head": 2e-2, "backbone": 1e-4},
}
TUNED: dict[str, tuple[tuple[dict[str, Any], int], dict[str, Any]]] = {
    "MiniLM, frozen": (FROZEN, {}),
    "MiniLM, frozen, pooling Attention": (FROZEN, {"pooling": "Attention"}),
    "MiniLM, frozen, classWeights Balanced": (FROZEN, {"classWeights": "Balanced"}),
    "MiniLM, all of it trained": (ALL, {}),
    "MiniLM, its head first, then all of it": ((PROBED, 12), {}),
    "MiniLM, its head first, then all of it, pooling Attention": ((PROBED, 10), {"pooling": "Attention"}),
}
"""Strategy, epochs and options of each job."""

Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    train, test = _split(SAMPLES)
    for name, part in (("train", train), ("test", test)):
        (folder / f"tags-{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in part))
    found: Row = {"benchmark": "tags", "train": len(train), "test": len(test)}
    found["tags"] = len({tag for one in train for tag in one["label"]})
    plain = "scikit-learn: TF-IDF and a logistic regression for each tag"
    found[plain] = record("tags", plain, lambda: _plain(train, test))
    for name, (how, options) in TUNED.items():
        found[name] = record("tags", name, partial(_tuned, folder, name, train, how, options))
    print(json.dumps(found, indent=1), flush=True)


def _split(samples: int) -> tuple[list[Row], list[Row]]:
    """Return packages to train on and to measure on: each text once, of both those with tags that are not rare."""
    rows = list({text: tags for text, tags, _ in packages() if tags}.items())
    random.Random(SEED).shuffle(rows)  # noqa: S311 - a split, not a secret
    rows = rows[: samples + HELD_OUT]
    counts = Counter(tag for _, tags in rows[HELD_OUT:] for tag in tags)
    kept = {tag for tag, count in counts.items() if count * RARE >= samples}
    made = [{"text": text, "label": sorted(kept.intersection(tags))} for text, tags in rows]
    return made[HELD_OUT:], made[:HELD_OUT]


def packages() -> Iterator[tuple[str, list[str], str]]:
    """Yield description, tags and section of each package."""
    lists = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    for entry in lists.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in entry.splitlines():
            if not line.startswith(" "):
                name, _, value = line.partition(": ")
                fields[name] = value
            else:
                fields[name] += line
        text = next((fields[name] for name in fields if name.startswith("Description") and "md5" not in name), "")
        yield text, [tag for tag in fields.get("Tag", "").replace(" ", "").split(",") if tag], fields.get("Section", "")


def _plain(train: list[Row], test: list[Row]) -> Row:
    """Return the metrics of a logistic regression for each tag on words and pairs of words."""
    binarizer, words = MultiLabelBinarizer(), TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    targets = binarizer.fit_transform([row["label"] for row in train])
    model = OneVsRestClassifier(LogisticRegression(C=10, solver="liblinear"))
    model.fit(words.fit_transform([row["text"] for row in train]), targets)
    scores = model.predict_proba(words.transform([row["text"] for row in test]))
    return _measured(binarizer.transform([row["label"] for row in test]), scores)


def _measured(actual: np.ndarray, scores: np.ndarray) -> Row:
    """Return metrics of probabilities of each tag, and how sure two of them are."""
    predicted = scores > 0.5  # noqa: PLR2004 - more probable than not

    def precision(rows: np.ndarray | slice) -> float:
        return float(
            np.mean([average_precision_score(*pair) for pair in zip(actual[rows].T, scores[rows].T, strict=True)])
        )

    def micro(rows: np.ndarray | slice) -> float:
        return float(f1_score(actual[rows], predicted[rows], average="micro"))

    every = slice(None)
    return {
        "microF1": round(micro(every), 4),
        "microF1 95 %": interval(micro, len(actual)),
        "macroF1": round(f1_score(actual, predicted, average="macro", zero_division=0), 4),
        "mAP": round(precision(every), 4),
        "mAP 95 %": interval(precision, len(actual)),
        "subsetAccuracy": round(accuracy_score(actual, predicted), 4),
    }


def _tuned(folder: Path, name: str, train: list[Row], how: tuple[Row, int], options: Row) -> Row:
    """Return the test metrics of a MiniLM that has learned the tags."""
    strategy, epochs = how
    job = f"tags-{[*TUNED].index(name)}"
    task = {"type": "TextClassification", "textClassification": {"labels": "Multi", "maxLength": 32, **options}}
    spec = {
        "model": {"source": f"file://{folder}/models/minilm"},
        "task": task,
        "data": {
            "train": {"source": f"file://{folder}/tags-train.jsonl"},
            "validation": {"fraction": 0.1},
            "test": {"source": f"file://{folder}/tags-test.jsonl"},
        },
        "strategy": strategy,
        "training": {"epochs": epochs, "batchSize": 32, "metric": "mAP", "seed": SEED},
    }
    reported = trained(folder, job, spec)
    rows, binarizer = said(folder, job), MultiLabelBinarizer().fit([one["label"] for one in train])
    found = _measured(binarizer.transform(rows["label"]), np.array(rows["probabilities"]))
    assert abs(found["mAP"] - reported["mAP"]) < 1e-4, "the report says otherwise"  # noqa: PLR2004 - it is rounded
    return found


if __name__ == "__main__":
    main()
