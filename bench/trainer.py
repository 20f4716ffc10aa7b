"""How well texts are told apart after the same training by transformers' Trainer: same base, split, batches, rate and epochs.

    python -m bench.trainer FOLDER [SET...]

Sets are trec (1,000 questions of six kinds) and sections (1,000 of Debian's packages, in the eight largest sections; needs `apt-get
update`). Prints JSON for each, and keeps it in bench/results: accuracy on texts that were held out, with its 95 % interval, with the encoder frozen and with all of it
trained, and frozen below a head that learns which tokens count. The Trainer accumulates no gradients, and keeps the epoch that is best on the same validation texts.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bench.support.outcomes import SEED, record, said, told, trained
from bench.tags import packages
from examples.prepare import prepare

SAMPLES, HELD_OUT, VALIDATION = 1000, 500, 100
SECTIONS = 8
MAX_LENGTH = 32
RATES = {"frozen": 1e-2, "all": 2e-4}
HOW = {"frozen": "encoder frozen", "all": "all of it trained"}
EPOCHS, BATCH = 3, 32

Rows = list[tuple[str, str]]


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    for name in sys.argv[2:] or ("trec", "sections"):
        rows = questions(folder) if name == "trec" else sections()
        splits = {
            "validation": rows[:VALIDATION],
            "test": rows[VALIDATION : VALIDATION + HELD_OUT],
            "train": rows[VALIDATION + HELD_OUT :],
        }
        for split, part in splits.items():
            write(folder / f"{name}-{split}.csv", part)
        found: dict[str, Any] = {"benchmark": "trainer", "set": name} | {key: len(part) for key, part in splits.items()}
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "scikit-learn: TF-IDF and logistic regression": partial(_plain, splits["train"], splits["test"])
        }
        for how, words in HOW.items():
            measures[f"Unfreeze, {words}"] = partial(_tuned, folder, name, how)
            measures[f"Trainer, {words}"] = partial(_by_trainer, folder, name, how, splits)
        measures["Unfreeze, encoder frozen, pooling Attention"] = partial(_tuned, folder, name, "frozen", "Attention")
        for what, measure in measures.items():
            found[what] = record("trainer", f"{name}: {what}", measure)
        print(json.dumps(found, indent=1), flush=True)


def questions(folder: Path) -> Rows:
    """Return questions with their kinds: of the examples' training and test questions so many."""
    with (folder / "data" / "trec-train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["question"], row["label"]) for row in csv.DictReader(file)]
    return rows[: SAMPLES + HELD_OUT + VALIDATION]


def sections() -> Rows:
    """Return descriptions of packages with their sections, those that most packages are in."""
    rows = [*{text: section for text, _, section in packages() if section}.items()]
    frequent = {name for name, _ in Counter(section for _, section in rows).most_common(SECTIONS)}
    rows = sorted(row for row in rows if row[1] in frequent)
    random.Random(SEED).shuffle(rows)  # noqa: S311 - a split, not a secret
    return rows[: SAMPLES + HELD_OUT + VALIDATION]


def write(path: Path, rows: Rows) -> None:
    """Write rows as a table of texts and labels."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def _plain(train: Rows, test: Rows) -> dict[str, Any]:
    """Return what a logistic regression on words and pairs of words is right in."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    (texts, labels), (others, actual) = zip(*train, strict=True), zip(*test, strict=True)
    return told(model.fit(texts, labels).predict(others) == np.array(actual))


def _tuned(folder: Path, name: str, how: str, pooling: str = "Auto") -> dict[str, Any]:
    """Return what a model that Unfreeze has trained is right in."""
    job = f"{name}-{how}" + ("" if pooling == "Auto" else f"-{pooling.lower()}")
    rate = {"learningRate": {"head": RATES[how]}}
    every = {"type": "FullFineTuning", "learningRate": {"head": RATES[how], "backbone": RATES[how]}}
    spec = {
        "model": {"source": f"file://{folder}/models/minilm"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": MAX_LENGTH, "pooling": pooling}},
        "data": {split: {"source": f"file://{folder}/{name}-{split}.csv"} for split in ("train", "validation", "test")},
        "strategy": every if how == "all" else {"type": "FeatureExtraction", **rate},
        "training": {"epochs": EPOCHS, "batchSize": BATCH, "seed": SEED},
    }
    trained(folder, job, spec)
    rows = said(folder, job)
    return told(np.array(rows["label"]) == np.array(rows["prediction"]))


def _by_trainer(folder: Path, name: str, how: str, splits: dict[str, Rows]) -> dict[str, Any]:
    """Return what a model that transformers' Trainer has trained is right in."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

    set_seed(SEED)
    labels = sorted({label for _, label in splits["train"]})
    place = folder / "models" / "minilm"
    tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=len(labels), trust_remote_code=False)
    if how == "frozen":
        model.base_model.requires_grad_(False)

    def made(rows: Rows) -> list[dict[str, Any]]:
        tokens = tokenizer([text for text, _ in rows], truncation=True, max_length=MAX_LENGTH)
        return [
            {key: values[n] for key, values in tokens.items()} | {"label": labels.index(label)}
            for n, (_, label) in enumerate(rows)
        ]

    arguments = TrainingArguments(
        output_dir=str(folder / f"{name}-{how}-trainer"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        learning_rate=RATES[how],
        weight_decay=0.01,
        lr_scheduler_type="cosine",
        warmup_steps=round(0.06 * EPOCHS * len(splits["train"]) / BATCH),
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=SEED,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=made(splits["train"]),
        eval_dataset=made(splits["validation"]),
        processing_class=tokenizer,
        compute_metrics=lambda given: {"accuracy": float((given.predictions.argmax(axis=1) == given.label_ids).mean())},
    )
    trainer.train()
    given = trainer.predict(made(splits["test"]))
    return told(given.predictions.argmax(axis=1) == given.label_ids)


if __name__ == "__main__":
    main()
