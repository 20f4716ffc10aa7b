"""Whether neighbours say beforehand which encoders go together best: pictures and texts of Tux Paint's stamps, four pairs of encoders.

    python -m bench.encoders FOLDER

Needs `apt-get` and pip, as `bench.alignment` does, whose split it takes. Prints JSON, and keeps it in bench/results. First, without any training, of
each encoder the share of training rows whose 10 nearest neighbours among the others lie in the same folder of stamps (nearness is the cosine
of centred features), and of each pair the mean of its two: the pairs are ranked by it. Then what linear heads on each pair reach, as examples/tasks/alignment.yaml has
them, trained on features that are computed once: recall@1 on the test data, the mean of both ways and of some seeds, with its 95 % interval (a
bootstrap over captions). At last the rank correlation of both over the pairs.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bench.support.frozen import LINEAR, PICTURES, Rows, bridged, features, hits_of, seen, splits_of
from bench.support.outcomes import SEED, interval, record
from examples.prepare_multilingual import write_multilingual
from examples.prepare_stamps import prepare_all

TEXTS = ("minilm", "multilingual-e5-small")
NEIGHBOURS = 10
SEEDS = range(SEED, SEED + 3)


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_all(folder)
    write_multilingual(folder / "models" / "multilingual-e5-small")
    splits = splits_of(folder)
    ranked = sorted(product(PICTURES, TEXTS), key=lambda pair: -_neighbours(folder, splits["train"], *pair)[2])
    rows = [record("encoders", " + ".join(pair), partial(_measured, folder, splits, *pair)) for pair in ranked]
    each = [[row[name] for row in rows] for name in ("neighbours of both", "recall@1")]
    correlation = round(float(spearmanr(*each).statistic), 3)
    print(json.dumps({"rows": rows, "rank correlation": correlation}, indent=1), flush=True)


def _neighbours(folder: Path, train: Rows, picture: str, text: str) -> list[float]:
    """Return the measure of pictures, of texts, and the mean of both."""
    each = (features(folder, picture, train.pictures), features(folder, text, train.texts))
    both = [neighbours(values, train.kinds) for values in each]
    return [*both, sum(both) / 2]


def _measured(folder: Path, splits: dict[str, Rows], picture: str, text: str) -> dict[str, Any]:
    test, (pictures, texts) = splits["test"], seen(folder, splits, [picture], text)
    asked = features(folder, picture, test.pictures), features(folder, text, test.texts)
    right = np.equal.outer(test.texts, test.texts)
    hits = []
    for seed in SEEDS:
        see, read = bridged(pictures, texts, splits, **LINEAR, seed=seed)
        scores = see(asked[0]) @ read(asked[1]).T
        hits.append([hits_of(scores, right), hits_of(scores.T, right)])
    ways = np.mean(hits, axis=0)
    one, other, both = (round(value, 4) for value in _neighbours(folder, splits["train"], picture, text))
    return {
        "neighbours of pictures": one,
        "neighbours of texts": other,
        "neighbours of both": both,
        "recall@1": round(float(ways.mean()), 4),
        "recall@1 95 %": interval(lambda drawn: float(ways[:, drawn].mean()), len(test.texts)),
        "image to text": round(float(ways[0].mean()), 4),
        "text to image": round(float(ways[1].mean()), 4),
    }


def neighbours(values: np.ndarray, kinds: np.ndarray) -> float:
    """Return the share of the nearest neighbours that are of the same kind, of features of shape (rows, width)."""
    centred = values - values.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = centred @ centred.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    return float((kinds[nearest] == kinds[:, None]).mean())


if __name__ == "__main__":
    main()
