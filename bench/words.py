"""How well a bridge tells what drawings and photographs show by words alone, beside probes of the picture encoders with some labels.

    python -m bench.words FOLDER [EXAMPLE...]

FOLDER is that of `bench.alignment`, whose runs are taken and not trained again. Prints JSON, and keeps it in bench/results: accuracy on the
pictures of the test data, which the bridge has seen neither with nor without caption, in telling the folder of Tux Paint's stamps that each
lies in (those with 20 pictures or more to train on), with 95 % intervals (a bootstrap over pictures, and over draws of labels). Of 0 labels a
class the bridge alone, by the folder's name in a text; of 1, 5 and 20 a logistic regression on what the frozen encoders give, joined and
standardised; the same on the bridge's vectors; and the bridge by the mean of each class' text and labelled pictures.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bench.support.outcomes import RESAMPLES, SEED, example, record, trained
from examples.prepare_stamps import prepare_all

EXAMPLES = ("alignment", "alignment-class-names")
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


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_all(folder)
    for name in sys.argv[2:] or EXAMPLES:
        print(json.dumps(record("words", name, partial(_measured, folder, name)), indent=1), flush=True)


def _measured(folder: Path, name: str) -> dict[str, Any]:
    spec = example(folder, f"tasks/{name}.yaml")
    trained(folder, name, spec)
    model = folder / name / "model"
    script = run_path(str(model / "bridge.py"))
    bridge, described = script["load"](str(model)), json.loads((model / "bridge.json").read_text())
    head = script["load_head"](str(model), described, "image")
    pictures, kinds, vectors, features = (
        dict[str, list[Path]](),
        dict[str, np.ndarray](),
        dict[str, Any](),
        dict[str, Any](),
    )
    for split in ("train", "test"):
        table = Path(spec["data"][split]["source"].removeprefix("file://"))
        files = sorted({json.loads(line)["image"] for line in table.read_text().splitlines()})
        pictures[split] = [table.parent / file for file in files]
        kinds[split] = np.array([Path(file).name.partition("-")[0] for file in files])
    counts = Counter(kinds["train"].tolist())
    classes = [kind for kind in sorted(counts) if counts[kind] >= FEWEST and kind in kinds["test"]]
    for split, files in pictures.items():
        kept = np.isin(kinds[split], classes)
        shown = [opened(file) for file, keep in zip(files, kept, strict=True) if keep]
        kinds[split] = np.array([classes.index(kind) for kind in kinds[split][kept]])
        read = bridge.read_image(shown)
        features[split], vectors[split] = read.numpy(), _unit(head(read).detach().numpy())
    texts = [prompt.replace("{}", NAMES.get(kind, kind)) for kind in classes for prompt in PROMPTS]
    named = _unit(bridge.embed_text(texts).numpy().reshape(len(classes), len(PROMPTS), -1).mean(axis=1))
    actual = kinds["test"]
    found: dict[str, Any] = {
        "classes": classes,
        "pictures": len(actual),
        "most frequent": round(float(np.bincount(actual).max() / len(actual)), 4),
        "0 labels": {"bridge, by words": _accuracy((vectors["test"] @ named.T).argmax(axis=1)[None] == actual)},
    }
    for labels in LABELS:
        right: dict[str, list[np.ndarray]] = {}
        for draw in range(DRAWS):
            rng = np.random.default_rng([SEED, labels, draw])
            members = [np.flatnonzero(kinds["train"] == number) for number in range(len(classes))]
            rows = np.concatenate([rng.choice(own, labels, replace=False) for own in members])
            told = kinds["train"][rows]
            for what, values in (("encoders, probe", features), ("bridge, probe", vectors)):
                right.setdefault(what, []).append(_probe(values["train"][rows], told, values["test"]) == actual)
            means = np.stack([vectors["train"][rows[told == number]].mean(axis=0) for number in range(len(classes))])
            both = _unit(named + _unit(means))
            right.setdefault("bridge, by words and pictures", []).append(
                (vectors["test"] @ both.T).argmax(axis=1) == actual
            )
        found[f"{labels} labels"] = {what: _accuracy(np.stack(each)) for what, each in right.items()}
    return found


def _unit(values: np.ndarray) -> np.ndarray:
    """Return rows as long as 1."""
    found: np.ndarray = values / np.linalg.norm(values, axis=1, keepdims=True)
    return found


def _probe(values: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return what a logistic regression on standardised features says of others."""
    scaler = StandardScaler().fit(values)
    with warnings.catch_warnings(action="ignore"):
        regression = LogisticRegression(C=1e-2, max_iter=300).fit(scaler.transform(values), labels)
    found: np.ndarray = regression.predict(scaler.transform(asked))
    return found


def _accuracy(right: np.ndarray) -> dict[str, Any]:
    """Return the mean accuracy over draws and its 95 % interval; `right` is bool of shape (draws, pictures)."""
    rng = np.random.default_rng(SEED)
    draws, pictures = right.shape
    means = [
        right[rng.integers(draws, size=draws)][:, rng.integers(pictures, size=pictures)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return {"accuracy": round(float(right.mean()), 4), "95 %": [round(float(low), 3), round(float(high), 3)]}


def opened(file: Path) -> Any:
    """Return a picture of Pillow."""
    from PIL import Image

    picture = Image.open(file)
    picture.load()
    return picture


if __name__ == "__main__":
    main()
