"""How well a bridge tells what drawings and photographs show by words alone, beside probes of its picture encoders with some labels.

    python -m bench.words FOLDER

Needs `apt-get` and pip, as `bench.alignment` does, whose split it takes. Prints JSON, and keeps it in bench/results: accuracy on the
pictures of the test data, which the bridge has seen neither with nor without caption, in telling the folder of Tux Paint's stamps that each
lies in (those with 20 pictures or more to train on), with 95 % intervals (a bootstrap over pictures, and over draws of labels). The bridge is that
of examples/tasks/alignment-class-names.yaml, with heads that are trained on features that are computed once. Of 0 labels a class the bridge alone, by the
folder's name in a text; of 1, 5 and 20 a logistic regression on what the frozen encoders of pictures give, each made alike and joined; the same
on the bridge's vectors; and the bridge by the mean of each class' text and labelled pictures.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from bench.support.frozen import PICTURES, bridged, features, seen, splits_of, told
from bench.support.outcomes import RESAMPLES, SEED, record
from examples.prepare_stamps import prepare_all

TEXT = "minilm"
WIDTH, RATE = 384, 3e-4
"""As in examples/tasks/alignment-class-names.yaml."""
LABELS = (1, 5, 20)
DRAWS = 20
FEWEST = 20
PROMPTS = ("a picture of {}.", "a drawing of {}.", "{}")
NAMES = {
    "naturalforces": "natural forces",
    "seasonal": "seasonal things",
    "town": "a town",
    "household": "household things",
}
"""What folders are called in a text, where it is not their name."""


class Classes(NamedTuple):
    """What is told apart, and what is known of it."""

    names: list[str]
    kinds: Mapping[str, np.ndarray]
    """The number of the class of each picture, by split."""
    features: Mapping[str, np.ndarray]
    """What the encoders give, made alike and joined, likewise, (pictures, width)."""
    vectors: Mapping[str, np.ndarray]
    """What the bridge gives, as long as 1."""
    named: np.ndarray
    """The bridge's vector of each class' name, (classes, width)."""


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_all(folder)
    prepared = cache(partial(_prepared, folder))
    rows = [record("words", "0 labels a class", lambda: _by_words(prepared()))]
    for labels in LABELS:
        name = f"{labels} label{'s' * (labels > 1)} a class"
        rows.append(record("words", name, partial(_by_labels, prepared, labels)))
    print(json.dumps(rows, indent=1), flush=True)


def _prepared(folder: Path) -> Classes:
    splits = splits_of(folder)
    pictures, texts = seen(folder, splits, [*PICTURES], TEXT)
    classes = {one: told(folder, one, TEXT) for one in PICTURES}
    see, read = bridged(pictures, texts, splits, width=WIDTH, rate=RATE, classes=classes)
    distinct = {split: sorted({*splits[split].pictures}) for split in ("train", "test")}
    kinds = {split: splits[split]._replace(pictures=files).kinds for split, files in distinct.items()}
    counts = Counter(kinds["train"].tolist())
    names = [kind for kind in sorted(counts) if counts[kind] >= FEWEST and kind in kinds["test"]]
    numbers, values, vectors = dict[str, np.ndarray](), dict[str, np.ndarray](), dict[str, np.ndarray]()
    for split, files in distinct.items():
        kept = [file for file, kind in zip(files, kinds[split], strict=True) if kind in names]
        numbers[split] = np.array([names.index(kind) for kind in kinds[split] if kind in names])
        each = [features(folder, one, kept) for one in PICTURES]
        values[split], vectors[split] = np.concatenate([alike(one) for one in each], axis=1), see(*each)
    prompts = [prompt.replace("{}", NAMES.get(kind, kind)) for kind in names for prompt in PROMPTS]
    named = read(features(folder, TEXT, prompts)).reshape(len(names), len(PROMPTS), -1).mean(axis=1)
    return Classes(names, numbers, values, vectors, unit(named))


def _by_words(of: Classes) -> dict[str, Any]:
    actual = of.kinds["test"]
    right = (of.vectors["test"] @ of.named.T).argmax(axis=1) == actual
    frequent = round(float(np.bincount(actual).max() / len(actual)), 4)
    about = {"classes": of.names, "pictures": len(actual), "most frequent": frequent}
    return about | accuracy("bridge, by words", right[None])


def _by_labels(prepared: Any, labels: int) -> dict[str, Any]:
    of: Classes = prepared()
    actual, train = of.kinds["test"], of.kinds["train"]
    right: dict[str, list[np.ndarray]] = {}
    probed = {"encoders, probe": centred(of.features), "bridge, probe": centred(of.vectors)}
    for draw in range(DRAWS):
        rng = np.random.default_rng([SEED, labels, draw])
        members = [np.flatnonzero(train == number) for number in range(len(of.names))]
        rows = np.concatenate([rng.choice(own, labels, replace=False) for own in members])
        for what, values in probed.items():
            right.setdefault(what, []).append(_probe(values["train"][rows], train[rows], values["test"]) == actual)
        means = of.vectors["train"][rows].reshape(len(of.names), labels, -1).mean(axis=1)
        both = unit(of.named + unit(means))
        right.setdefault("bridge, by words and pictures", []).append(
            (of.vectors["test"] @ both.T).argmax(axis=1) == actual
        )
    figures: dict[str, Any] = {}
    for what, each in right.items():
        figures |= accuracy(what, np.stack(each))
    return figures


def unit(values: np.ndarray) -> np.ndarray:
    """Return rows as long as 1."""
    found: np.ndarray = values / np.linalg.norm(values, axis=1, keepdims=True)
    return found


def alike(values: np.ndarray) -> np.ndarray:
    """Return rows with mean 0 and variance 1, as the bridge's heads read them."""
    found: np.ndarray = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
    return found


def centred(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the rows of each split without the mean of those of training, whose numbers vary by 1; no labels are needed for that."""
    train = values["train"]
    mean = train.mean(axis=0)
    return {split: (rows - mean) / (train - mean).std() for split, rows in values.items()}


def _probe(values: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return what a logistic regression says of others."""
    with warnings.catch_warnings(action="ignore"):
        regression = LogisticRegression(max_iter=300).fit(values, labels)
    found: np.ndarray = regression.predict(asked)
    return found


def accuracy(what: str, right: np.ndarray) -> dict[str, Any]:
    """Return the mean accuracy over draws and its 95 % interval; `right` is bool of shape (draws, pictures)."""
    rng = np.random.default_rng(SEED)
    draws, pictures = right.shape
    means = [
        right[rng.integers(draws, size=draws)][:, rng.integers(pictures, size=pictures)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return {what: round(float(right.mean()), 4), f"{what} 95 %": [round(float(low), 3), round(float(high), 3)]}


if __name__ == "__main__":
    main()
