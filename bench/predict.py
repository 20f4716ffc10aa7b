"""How fast `unfreeze predict` asks a model, beside transformers' pipeline, on texts of mixed length.

    python -m bench.predict [FOLDER [SAMPLES]]

Needs the package of the examples' weights, which go into FOLDER, and into a temporary one without. Both have the same classifier of MiniLM's size, the same texts, batch size and threads,
and turn about in one process. Prints JSON: seconds of each, and how many times as fast as the pipeline; fails below 1.3 and where
the two say different things. Reading the table is counted, importing libraries and loading the model are not.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from examples.prepare import prepare
from unfreeze_trainer.commands.asked import ask
from unfreeze_trainer.commands.finished import find_model
from unfreeze_trainer.commands.predict import BATCH_SIZE, predictions

GOAL = 1.3
ROUNDS = 3
WORDS = [
    "what",
    "is",
    "the",
    "name",
    "of",
    "river",
    "that",
    "long",
    "city",
    "and",
    "how",
    "many",
    "people",
    "live",
    "there",
    "since",
    "they",
    "built",
    "it",
    "all",
]


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, samples = Path((sys.argv[1:] or [scratch])[0]), int((sys.argv[2:] or ["400"])[0])
        prepare(folder)
        found = _measured(folder, samples)
    print(json.dumps(found, indent=1), flush=True)
    if not found["same"] or found["ratio"] < GOAL:
        sys.exit(1)


def _measured(folder: Path, samples: int) -> dict[str, Any]:
    model, table = _model(folder), folder / "mixed.jsonl"
    rng = random.Random(0)  # noqa: S311 - texts, not a secret
    texts = [" ".join(rng.choices(WORDS, k=round(rng.lognormvariate(3, 0.9)) + 1)) for _ in range(samples)]
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    classify = _pipeline(model)
    seconds: dict[str, list[float]] = {"unfreeze": [], "pipeline": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        theirs = [found["label"] for found in classify(texts, batch_size=BATCH_SIZE, truncation=True)]
        seconds["pipeline"].append(time.perf_counter() - start)
        asked = ask(find_model(model, None), table, columns={}, labelled=False, skip=False, device="cpu")
        _ = asked.module
        start = time.perf_counter()
        again = ask(find_model(model, None), table, columns={}, labelled=False, skip=False, device="cpu")
        again.__dict__["module"] = asked.module
        ours = [
            name for rows in predictions(again, BATCH_SIZE, inputs=False) for name in rows["prediction"].to_pylist()
        ]
        seconds["unfreeze"].append(time.perf_counter() - start)
    best = {name: min(times) for name, times in seconds.items()}
    ratio = best["pipeline"] / best["unfreeze"]
    lengths = [len(text.split()) for text in texts]
    return {
        "benchmark": "predict",
        "samples": samples,
        "batchSize": BATCH_SIZE,
        "threads": torch.get_num_threads(),
        "words": {"median": statistics.median(lengths), "most": max(lengths)},
        "seconds": best,
        "ratio": round(ratio, 2),
        "goal": GOAL,
        "same": ours == theirs,
    }


def _model(folder: Path) -> Path:
    """Return the folder of a classifier of MiniLM with an untrained head."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = folder / "models" / "classifier"
    if not place.exists():
        torch.manual_seed(0)
        base = folder / "models" / "minilm"
        names = dict(enumerate("abcdef"))
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(names), id2label=names, trust_remote_code=False
        )
        model.save_pretrained(place)
        AutoTokenizer.from_pretrained(base, model_max_length=256, trust_remote_code=False).save_pretrained(place)
    return place


def _pipeline(model: Path) -> Any:
    from transformers import pipeline

    return pipeline("text-classification", model=str(model), device="cpu", trust_remote_code=False)


if __name__ == "__main__":
    main()
