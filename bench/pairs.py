"""How near what a model says of two news texts comes to what people said: as a number, and as the cosine of two vectors.

    python -m bench.pairs FOLDER

Needs what `examples/prepare.py FOLDER pairs` fetches. Prints JSON, and keeps it in bench/results: error and correlations on pairs of texts
that were held out, with their 95 % intervals over pairs, of the jobs of two examples, of scikit-learn's ridge regression on plain features, and
of a plain loop over sentence-transformers' loss. Pairs of one text hang together, so the intervals are too narrow.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV

from bench.support.outcomes import SEED, example, interval, record, said, trained
from examples.prepare import prepare, prepare_pairs

EPOCHS, BATCH, RATE, WARMUP, MAX_LENGTH = 2, 16, 5e-5, 0.06, 128
"""Of text-embedding.yaml, for the loop by hand."""

Row = dict[str, Any]
Pairs = tuple[list[str], list[str], np.ndarray]


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    prepare_pairs(folder)
    train, validation, test = (_read(folder, split) for split in ("train", "validation", "test"))
    base = folder / "models" / "minilm"
    found: Row = {"benchmark": "pairs", "train": len(train[2]), "test": len(test[2])}
    measures: dict[str, Callable[[], Row]] = {
        "text-regression.yaml": partial(_regression, folder),
        "scikit-learn: ridge on the cosine of MiniLM's vectors": lambda: _ridge(
            _cosines(base, train), _cosines(base, test)
        ),
        "scikit-learn: ridge on the cosine of TF-IDF": partial(_ridge, *_of_words(train, test)[0]),
        "scikit-learn: ridge on products and differences of TF-IDF": partial(_ridge, *_of_words(train, test)[1]),
        "the mean of the training pairs": partial(_errors, test[2], np.full(len(test[2]), train[2].mean())),
        "text-embedding.yaml": partial(_embedding, folder, test),
        "sentence-transformers' CosineSimilarityLoss, by a plain loop": partial(
            _by_loop, folder, train, validation, test
        ),
        "MiniLM's vectors as they are": lambda: _correlations(test[2], _cosines(base, test)[0].ravel()),
    }
    for name, measure in measures.items():
        found[name] = record("pairs", name, measure)
    print(json.dumps(found, indent=1), flush=True)


def _read(folder: Path, split: str) -> Pairs:
    with (folder / "data" / f"lee-{split}.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    one, other = ([row[name] for row in rows] for name in ("one", "other"))
    return one, other, np.array([float(row["similarity"]) for row in rows])


def _regression(folder: Path) -> Row:
    trained(folder, "pairs-regression", example(folder, "tasks/text-regression.yaml"))
    rows = said(folder, "pairs-regression")
    return _errors(np.array(rows["label"]), np.array(rows["prediction"]))


def _embedding(folder: Path, test: Pairs) -> Row:
    trained(folder, "pairs-embedding", example(folder, "tasks/text-embedding.yaml"))
    return _correlations(test[2], _cosines(folder / "pairs-embedding" / "model", test)[0].ravel())


def _cosines(model: Path | Any, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine of each pair's vectors as features of it, and the scores."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(model), device="cpu") if isinstance(model, Path) else model
    encoder.max_seq_length = MAX_LENGTH
    one, other = (encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False) for texts in pairs[:2])
    return (one * other).sum(axis=1, keepdims=True), pairs[2]


def _of_words(train: Pairs, test: Pairs) -> tuple[Any, Any]:
    """Return features by words, of training and test pairs: cosines, and products with differences."""
    words = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit([*train[0], *train[1]])
    cosines, both = [], []
    for one, other, scores in (train, test):
        first, second = (words.transform(texts).toarray() for texts in (one, other))
        cosines.append(((first * second).sum(axis=1, keepdims=True), scores))
        both.append((np.hstack([first * second, abs(first - second)]), scores))
    return cosines, both


def _ridge(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> Row:
    model = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(*train)
    return _errors(test[1], model.predict(test[0]))


def _errors(actual: np.ndarray, predicted: np.ndarray) -> Row:
    """Return root mean squared error and correlations."""

    def rmse(rows: np.ndarray | slice) -> float:
        return float(np.sqrt(np.mean((actual[rows] - predicted[rows]) ** 2)))

    found = {"rmse": round(rmse(slice(None)), 4), "rmse 95 %": interval(rmse, len(actual))}
    return found if np.ptp(predicted) == 0 else found | _correlations(actual, predicted)


def _correlations(actual: np.ndarray, predicted: np.ndarray) -> Row:
    def pearson(rows: np.ndarray | slice) -> float:
        return float(pearsonr(actual[rows], predicted[rows])[0])

    return {
        "pearson": round(pearson(slice(None)), 4),
        "pearson 95 %": interval(pearson, len(actual)),
        "spearman": round(float(spearmanr(actual, predicted)[0]), 4),
    }


def _by_loop(folder: Path, train: Pairs, validation: Pairs, test: Pairs) -> Row:
    """Return the figures of a model that a plain loop has trained by sentence-transformers' loss, as long as the example's."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
    from transformers import get_cosine_schedule_with_warmup

    torch.manual_seed(SEED)
    model = SentenceTransformer(str(folder / "models" / "minilm"), device="cpu")
    model.max_seq_length = MAX_LENGTH
    loss, steps = CosineSimilarityLoss(model), EPOCHS * -(-len(train[2]) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(WARMUP * steps), steps)
    rng = np.random.default_rng(SEED)
    best: tuple[float, Row] = -1.0, {}
    for _ in range(EPOCHS):
        model.train()
        for rows in np.array_split(rng.permutation(len(train[2])), steps // EPOCHS):
            features = [model.tokenize([texts[n] for n in rows]) for texts in train[:2]]
            value = loss(features, torch.tensor(train[2][rows], dtype=torch.float32))
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        found = _correlations(validation[2], _cosines(model.eval(), validation)[0].ravel())["spearman"]
        if found > best[0]:
            best = found, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(best[1])
    return _correlations(test[2], _cosines(model, test)[0].ravel())


if __name__ == "__main__":
    main()
