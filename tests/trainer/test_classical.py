"""Classical models: they learn what is there to be learned, of each kind of answer."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unfreeze_trainer.judgement import classical
from unfreeze_trainer.judgement.classical import fit, oriented_gradients, picture_features
from unfreeze_trainer.judgement.said import Said, goodness

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

WORDS = ("how many miles", "who wrote it", "where is the lake")


def texts(ids, pairs=False):
    found = [(f"{WORDS[index]} {number % 7}",) for number, index in enumerate(ids)]
    return [("which?", *one) for one in found] if pairs else found


@pytest.mark.parametrize("pairs", [False, True])
def test_words_tell_classes_apart(pairs):
    ids = np.arange(60) % 3
    model = fit("OneOf", "Texts", texts(ids, pairs), ids, outputs=3, pairs=pairs, seed=0, metric="accuracy")
    assert model.name == "logistic regression on TF-IDF"
    outputs = model.predict(texts(ids[::-1], pairs))
    assert outputs.shape == (60, 3)
    assert (outputs.argmax(axis=1) == ids[::-1]).all()


def test_classes_that_were_not_drawn_are_never_predicted():
    ids = np.array([0, 3] * 10)
    model = fit("OneOf", "Texts", texts(ids // 3), ids, outputs=5, pairs=False, seed=0, metric="accuracy")
    outputs = model.predict(texts(ids // 3))
    assert outputs.shape == (20, 5)
    assert (outputs.argmax(axis=1) == ids).all()
    assert np.isneginf(outputs[:, [1, 2, 4]]).all()


def test_any_number_of_labels_also_of_one_that_no_sample_has():
    ids = np.arange(60) % 3
    targets = np.array([[0, 1], [1, -1], [-1, -1]])[ids]
    model = fit("AnyOf", "Texts", texts(ids), targets, outputs=3, pairs=False, seed=0, metric="microF1")
    outputs = model.predict(texts(ids))
    assert ((outputs > 0) == np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)[ids]).all()


@pytest.mark.parametrize(("kind", "metric", "least"), [("OneOf", "macroF1", 0.7), ("AnyOf", "microF1", 0.6)])
def test_rare_labels_count_as_they_do_for_what_it_is_compared_with(kind, metric, least):
    """By the share of rows that are right in all, saying the commonest each time is the best that a few rare ones leave to choose."""

    def rare(seed):
        rng = np.random.default_rng(seed)
        has = rng.random((240, 8)) < 0.05
        shown = has & (rng.random(has.shape) < 0.8)
        words = [[f"topic{place}" for place in np.flatnonzero(row)] for row in shown]
        said = [(" ".join([*own, *(f"w{number}" for number in rng.integers(300, size=8))]),) for own in words]
        if kind == "OneOf":
            return said, has[:, 0].astype(int) + 2 * has[:, 1] * ~has[:, 0]
        return said, np.where(has, np.arange(8), -1)

    outputs = 3 if kind == "OneOf" else 8
    model = fit(kind, "Texts", *rare(0), outputs=outputs, pairs=False, seed=0, metric=metric)
    held_out, targets = rare(1)
    found = Said.of(kind, [str(place) for place in range(outputs)], targets, model.predict(held_out))
    assert goodness(found, metric) > least


@pytest.mark.parametrize("targets", [1, 2])
def test_numbers(targets):
    ids = np.arange(60) % 3
    values = np.stack([ids * 10.0, 5.0 - ids], axis=1)[:, :targets]
    model = fit("Amounts", "Texts", texts(ids), values, outputs=targets, pairs=False, seed=0, metric="rmse")
    assert model.name == "ridge regression on TF-IDF"
    assert np.abs(model.predict(texts(ids)) - values).max() < 0.5


def picture(kind, number, mode="RGB"):
    """Return stripes that lie or stand, in any colours."""
    rng = np.random.default_rng(number)
    stripes = np.sin(np.arange(40) * 0.7 + number) > 0
    plane = np.repeat(stripes[:, None], 50, axis=1) if kind else np.repeat(stripes[None], 50, axis=0)
    return Image.fromarray(np.where(plane, rng.integers(130, 256), rng.integers(0, 120)).astype(np.uint8)).convert(mode)


def test_directions_tell_pictures_apart():
    ids = np.arange(24) % 2
    pictures = [picture(index, number, ("L", "RGB")[number % 3 == 0]) for number, index in enumerate(ids)]
    model = fit("OneOf", "Pictures", iter(pictures), ids, outputs=2, pairs=False, seed=0, metric="accuracy")
    others = [picture(index, number + 100) for number, index in enumerate(ids)]
    assert (model.predict(iter(others)).argmax(axis=1) == ids).all()


def test_features_of_a_picture():
    assert picture_features(picture(0, 0)).shape == (8 * 8 * 3 + 64 * 3 + 1764,)
    ramp = np.tile(np.linspace(0, 1, 64), (64, 1))  # brighter to the right: all gradients have direction 0
    blocks = oriented_gradients(ramp).reshape(-1, 9)
    assert blocks[:, 0] == pytest.approx(0.5, abs=0.05)  # four cells with norm 1
    assert np.abs(blocks[:, 1:]).max() < 1e-6
    assert not oriented_gradients(np.ones((64, 64))).any()


def test_few_rows_are_fitted_in_the_axes_that_they_span_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(0)
    ids = rng.integers(3, size=80)
    said = [(" ".join([WORDS[index], *(f"w{number}" for number in rng.integers(200, size=6))]),) for index in ids]
    said[1:3] = said[:1] * 2  # rows that are alike span less
    found = []
    for most in (80, 0):
        monkeypatch.setattr(classical, "_TURNED", most)
        found.append(fit("OneOf", "Texts", said, ids, outputs=3, pairs=False, seed=0, metric="accuracy"))
    assert found[0].regularisation == found[1].regularisation
    outputs = [model.predict([*said, ("who knows",), ("",)]) for model in found]
    assert outputs[0] == pytest.approx(outputs[1], abs=0.05)
    assert (outputs[0].argmax(axis=1) == outputs[1].argmax(axis=1)).all()
