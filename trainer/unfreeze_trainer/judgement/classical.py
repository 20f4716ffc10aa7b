"""Classical models by scikit-learn, to compare a trained one with: linear models on TF-IDF of texts, or on features of pictures.

References
----------
HOG: Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177. TF-IDF of words and characters with a linear model as the baseline to
beat: Wang and Manning 2012, ACL P12-2018.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unfreeze_trainer.judgement.said import Said, goodness

if TYPE_CHECKING:
    from PIL.Image import Image

    from unfreeze_trainer.objectives.answers import Kind

Reads = Literal["Texts", "Pictures"]

_FOLDS = 3
_CHOOSING = 3000
"""Samples that choose the regularisation."""
_TURNED = 1200
"""Rows up to which the axes that they span are looked for: of more that takes as long as it spares."""
_NOTHING = 1e-9
"""Share of the largest spread below which an axis has none."""
_WEIGHTS = 2 * 10**7
"""Weights of a linear model on texts at most."""
_MOST_WORDS = 100_000
_WORD = r"(?u)\S+"
_ITERATIONS = 1000
_REGULARISATIONS = {"Texts": (1.0, 10.0, 100.0), "Pictures": (0.001, 0.01, 0.1, 1.0)}
"""Values of C, the inverse strength, that are tried; the strength of ridge regression is its inverse."""

_SIDE, _CELL, _BINS = 64, 8, 9
_SMALL = 8


_OF_ALL_ALIKE = ("accuracy", "subsetAccuracy")
"""Metrics in which each row counts alike, whatever its labels: rare ones are not weighed up for them."""


@dataclass(frozen=True)
class _Option:
    """What is chosen on folds."""

    strength: float
    """Inverse strength of the regularisation."""
    weight: str | None = None
    """`balanced` where labels weigh alike, however rare."""


@dataclass(frozen=True)
class Classical:
    """A fitted model."""

    name: str
    """What it is, for people."""
    regularisation: float
    """Chosen by cross-validation on training samples."""
    predict: Callable[[Iterable[Any]], np.ndarray]
    """Returns outputs of inputs, float64 of shape (samples, outputs): the largest is the class of OneOf, those above 0 are the labels of
    AnyOf, and they are the numbers of Amounts."""


def fit(
    kind: Kind,
    reads: Reads,
    inputs: Iterable[Any],
    targets: np.ndarray,
    *,
    outputs: int,
    pairs: bool,
    seed: int,
    metric: str,
) -> Classical:
    """Fit a linear model on training samples.

    Parameters
    ----------
    kind
        Of the answers.
    reads, inputs
        Texts, each a tuple of one or two; or pictures of Pillow, of which one is held at a time.
    targets
        As `Targets.values` has them.
    outputs
        Classes, labels or numbers.
    pairs
        Whether the texts are pairs.
    seed
        Draws the folds.
    metric
        Of `compared_by`, by which it is going to be compared: what is chosen on the folds is chosen by it too, so that rare labels count for it
        as they do for what it is compared with.
    """
    features = _Texts(outputs, 2 if pairs else 1) if reads == "Texts" else _Pictures()
    matrix, wanted = features.fit(inputs), _wanted(kind, targets, outputs)
    turned = _Turned.of(matrix) if (kind, reads) == ("OneOf", "Texts") else None
    matrix = matrix if turned is None else turned.rows
    make = {"OneOf": _one_of, "AnyOf": _any_of, "Amounts": _amounts}[kind]
    options = [_Option(strength) for strength in _REGULARISATIONS[reads]]
    names = [str(place) for place in range(outputs)]

    def outputs_of(option: _Option, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return _outputs(make(option).fit(matrix[rows], wanted[rows]), matrix[others], outputs)

    def score(rows: np.ndarray, said: np.ndarray) -> float:
        return goodness(Said.of(kind, names, targets[rows], said), metric)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folds that lack a label
        worth = cache(_on_folds(outputs_of, score, rows=len(wanted), seed=seed))
        chosen = max(options, key=worth)
        if kind != "Amounts" and metric not in _OF_ALL_ALIKE:
            chosen = max(chosen, replace(chosen, weight="balanced"), key=worth)
        model = make(chosen).fit(matrix, wanted)
    if turned:
        turned.back(model)
    how = "ridge regression" if kind == "Amounts" else "logistic regression"
    return Classical(
        f"{how} on {features.name}", chosen.strength, lambda given: _outputs(model, features(given), outputs)
    )


@dataclass(frozen=True)
class _Turned:
    """Rows of a wide sparse matrix in the axes that they span: a linear model with an L2 penalty is the same there, and has few weights.

    scikit-learn's logistic regression takes a seventh of the time: most of it goes into vectors as long as the weights are many.
    """

    rows: np.ndarray
    """Of shape (rows, axes)."""
    wide: Any
    axes: np.ndarray

    @classmethod
    def of(cls, matrix: Any) -> _Turned | None:
        """Return the rows of a matrix so; None where that spares nothing."""
        if not matrix.shape[0] <= min(_TURNED, matrix.shape[1]):
            return None
        wide = matrix.astype(np.float64)
        values, axes = np.linalg.eigh((wide @ wide.T).toarray())
        kept = values > _NOTHING * max(values[-1], _NOTHING)
        if not kept.any():
            return None
        spread = np.sqrt(values[kept])
        return cls(axes[:, kept] * spread, wide, axes[:, kept] / spread)

    def back(self, model: Any) -> None:
        """Give a model that was fitted on these rows the weights of the wide ones."""
        model.coef_ = (self.wide.T @ (self.axes @ model.coef_.T)).T
        model.n_features_in_ = self.wide.shape[1]


def _wanted(kind: Kind, targets: np.ndarray, outputs: int) -> np.ndarray:
    if kind != "AnyOf":
        return targets
    has = np.zeros((len(targets), outputs), dtype=int)
    rows, places = np.nonzero(targets >= 0)
    has[rows, targets[rows, places]] = 1
    return has


def _one_of(option: _Option) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=option.strength, class_weight=option.weight, max_iter=_ITERATIONS)


def _any_of(option: _Option) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    one = LogisticRegression(C=option.strength, class_weight=option.weight, max_iter=_ITERATIONS, solver="liblinear")
    return OneVsRestClassifier(one)


def _amounts(option: _Option) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=1 / option.strength)


def _on_folds(
    outputs_of: Callable[[_Option, np.ndarray, np.ndarray], np.ndarray],
    score: Callable[[np.ndarray, np.ndarray], float],
    *,
    rows: int,
    seed: int,
) -> Callable[[_Option], float]:
    """Return what says how good an option's models are on folds that they were not fitted on; of too few rows all are alike.

    Parameters
    ----------
    outputs_of
        Fits an option on rows, and returns its outputs of others.
    score
        How good outputs of rows are, above all others where it is highest.
    rows
        How many there are.
    """
    drawn = np.random.default_rng(seed).permutation(rows)[:_CHOOSING]
    folds = np.array_split(drawn, _FOLDS) if len(drawn) >= _FOLDS * 2 else []

    def worth(option: _Option) -> float:
        found = []
        for fold in folds:
            others = np.concatenate([other for other in folds if other is not fold])
            try:
                found.append((fold, outputs_of(option, others, fold)))
            except ValueError:  # of one class alone
                continue
        value = score(*(np.concatenate(part) for part in zip(*found, strict=True))) if found else -np.inf
        return value if np.isfinite(value) else -np.inf

    return worth


def _outputs(model: Any, matrix: Any, outputs: int) -> np.ndarray:
    """Return a model's outputs in the order of the job's; of what it was not fitted on they are the lowest."""
    if not hasattr(model, "classes_"):
        return np.asarray(model.predict(matrix), dtype=np.float64).reshape(-1, outputs)
    found = np.asarray(model.decision_function(matrix), dtype=np.float64)
    if found.ndim == 1:
        found = np.stack([-found, found], axis=1) if len(model.classes_) == 2 else found[:, None]  # noqa: PLR2004
    if getattr(model, "multilabel_", False):
        return found
    whole = np.full((len(found), outputs), -np.inf)
    whole[:, model.classes_] = found
    return whole


class _Texts:
    """TF-IDF of words, pairs of words, and characters within words; of the texts of a pair beside each other."""

    name = "TF-IDF"

    def __init__(self, outputs: int, texts: int) -> None:
        most = max(1000, min(_MOST_WORDS, _WEIGHTS // max(outputs, 1)) // (2 * texts))
        self._parts = [self._vectorizers(most) for _ in range(texts)]

    @staticmethod
    def _vectorizers(most: int) -> list[Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return [
            TfidfVectorizer(
                sublinear_tf=True, ngram_range=(1, 2), max_features=most, token_pattern=_WORD, dtype=np.float32
            ),
            TfidfVectorizer(
                sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5), max_features=most, dtype=np.float32
            ),
        ]

    def fit(self, inputs: Iterable[tuple[str, ...]]) -> Any:
        return self._beside(inputs, lambda vectorizer, texts: vectorizer.fit_transform(texts))

    def __call__(self, inputs: Iterable[tuple[str, ...]]) -> Any:
        return self._beside(inputs, lambda vectorizer, texts: vectorizer.transform(texts))

    def _beside(self, inputs: Iterable[tuple[str, ...]], make: Callable[[Any, list[str]], Any]) -> Any:
        from scipy.sparse import hstack

        found, inputs = [], list(inputs)
        for place, vectorizers in enumerate(self._parts):
            texts = [texts[place] for texts in inputs]
            found += [make(vectorizer, texts) for vectorizer in vectorizers]
        return hstack(found, format="csr")


class _Pictures:
    """Small pixels, colours and histograms of oriented gradients, each with mean 0 and variance 1 over the training samples."""

    name = "oriented gradients and colours"

    def fit(self, inputs: Iterable[Image]) -> np.ndarray:
        found = self._rows(inputs)
        self._mean, self._scale = found.mean(axis=0), np.maximum(found.std(axis=0), 1e-3)
        return self._scaled(found)

    def __call__(self, inputs: Iterable[Image]) -> np.ndarray:
        return self._scaled(self._rows(inputs))

    @staticmethod
    def _rows(inputs: Iterable[Image]) -> np.ndarray:
        return np.stack([picture_features(picture) for picture in inputs])

    def _scaled(self, found: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (found - self._mean) / self._scale
        return scaled


def picture_features(picture: Image) -> np.ndarray:
    """Return what a classical model sees of a picture, float32 of shape (2148,).

    8 x 8 pixels in colours and 64 of brightness each channel (a histogram of 64), and of 64 x 64 grey pixels the histograms of
    oriented gradients: cells of 8 x 8, 9 directions, blocks of 2 x 2 cells with norm 1.
    """
    colours = picture.convert("RGB")
    small = np.asarray(colours.resize((_SMALL, _SMALL)), dtype=np.float32).ravel() / 255
    levels = np.stack([np.bincount(np.asarray(band).ravel() // 4, minlength=64) for band in colours.split()])
    shares = (levels / levels.sum(axis=1, keepdims=True)).astype(np.float32).ravel()
    grey = np.asarray(colours.convert("L").resize((_SIDE, _SIDE)), dtype=np.float32) / 255
    return np.concatenate([small, shares, oriented_gradients(grey)])


def oriented_gradients(grey: np.ndarray) -> np.ndarray:
    """Return histograms of oriented gradients of a picture of shape (64, 64), float32 of shape (1764,)."""
    down, right = np.gradient(grey)
    strength, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi
    place = angle * (_BINS / np.pi)
    below = np.floor(place).astype(int)
    share = place - below
    cells = _SIDE // _CELL
    row, column = np.indices(grey.shape) // _CELL
    cell = (row * cells + column) * _BINS
    sums = np.zeros(cells * cells * _BINS, dtype=np.float64)
    for direction, weight in ((below, 1 - share), (below + 1, share)):
        np.add.at(sums, cell + direction % _BINS, strength * weight)
    found = sums.reshape(cells, cells, _BINS)
    blocks = np.concatenate([found[:-1, :-1], found[:-1, 1:], found[1:, :-1], found[1:, 1:]], axis=2)
    norms = np.sqrt((blocks**2).sum(axis=2, keepdims=True) + 1e-4)
    return (blocks / norms).astype(np.float32).ravel()
