"""How well parts of addresses are told apart, word by word, beside scikit-learn on the words themselves.

    python -m bench.addresses FOLDER

Needs what `examples/prepare.py FOLDER addresses` fetches. Prints JSON, and keeps it in bench/results: F1 of spans and accuracy of words
on the addresses that were held out, with their 95 % intervals over addresses, of the example's job and of a logistic regression on words,
shapes and endings of a window of five.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bench.support.outcomes import example, interval, record, said, trained
from examples.prepare import prepare, prepare_addresses

AROUND = 2

Tags = list[list[str]]
Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    prepare_addresses(folder)
    train, test = (_read(folder, split) for split in ("train", "test"))
    found: Row = {"benchmark": "addresses", "train": len(train), "test": len(test)}
    measures = {
        "token-classification.yaml": partial(_tuned, folder),
        "scikit-learn: logistic regression on words, shapes and endings": partial(_plain, train, test),
    }
    for name, measure in measures.items():
        found[name] = record("addresses", name, measure)
    print(json.dumps(found, indent=1), flush=True)


def _read(folder: Path, split: str) -> list[Row]:
    lines = (folder / "data" / f"addresses-{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _tuned(folder: Path) -> Row:
    """Return the figures of the example's job."""
    trained(folder, "addresses", example(folder, "tasks/token-classification.yaml"))
    words = said(folder, "addresses")
    rows = [[*one] for _, one in groupby(range(len(words["row"])), key=words["row"].__getitem__)]
    actual, predicted = ([[words[what][n] for n in row] for row in rows] for what in ("label", "prediction"))
    return _measured(actual, predicted)


def _plain(train: list[Row], test: list[Row]) -> Row:
    """Return the figures of a logistic regression on each word and those around it."""
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=10, max_iter=500))
    words = [_features(row["tokens"], place) for row in train for place in range(len(row["tokens"]))]
    model.fit(words, [tag for row in train for tag in row["tags"]])
    predicted = [
        model.predict([_features(row["tokens"], place) for place in range(len(row["tokens"]))]).tolist() for row in test
    ]
    return _measured([row["tags"] for row in test], predicted)


def _features(tokens: list[str], place: int) -> dict[str, bool]:
    found = {f"from the end {len(tokens) - place}": True, f"from the start {place}": True}
    for near in range(max(0, place - AROUND), min(len(tokens), place + AROUND + 1)):
        word = tokens[near]
        shape = re.sub("[0-9]+", "0", re.sub("[a-z]+", "a", re.sub("[A-Z]+", "A", word)))
        found |= {
            f"{near - place} {what}": True for what in (word.lower(), f"shape {shape}", f"end {word[-3:].lower()}")
        }
    return found


def _measured(actual: Tags, predicted: Tags) -> Row:
    """Return F1 of spans, each a run of one tag, and accuracy of words."""
    spans, said_spans = ([set(_spans(tags)) for tags in each] for each in (actual, predicted))
    counts = np.array([(len(a & b), len(a), len(b)) for a, b in zip(spans, said_spans, strict=True)])
    words = np.array(
        [(sum(x == y for x, y in zip(a, b, strict=True)), len(a)) for a, b in zip(actual, predicted, strict=True)]
    )

    def f1(rows: np.ndarray | slice) -> float:
        both, one, other = counts[rows].sum(axis=0)
        return float(2 * both / (one + other))

    def accuracy(rows: np.ndarray | slice) -> float:
        right, all_of_them = words[rows].sum(axis=0)
        return float(right / all_of_them)

    every = slice(None)
    return {
        "spanF1": round(f1(every), 4),
        "spanF1 95 %": interval(f1, len(counts)),
        "tokenAccuracy": round(accuracy(every), 4),
        "tokenAccuracy 95 %": interval(accuracy, len(words)),
    }


def _spans(tags: list[str]) -> list[tuple[int, int, str]]:
    found, begin = [], 0
    for tag, run in groupby(tags):
        end = begin + len([*run])
        found.append((begin, end, tag))
        begin = end
    return found


if __name__ == "__main__":
    main()
