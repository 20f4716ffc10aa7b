"""Which base suits the data: what scores say of signal, noise and constants, beside what their plain formulas say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from unfreeze_trainer.judgement.neighbours import NEIGHBOURS
from unfreeze_trainer.judgement.stages import stage_helps
from unfreeze_trainer.models.blocks import Block
from unfreeze_trainer.ranking import rank as rank_module
from unfreeze_trainer.ranking.layers import features, pooled_rows
from unfreeze_trainer.ranking.order import READ, Measured, Ranking, ranked
from unfreeze_trainer.ranking.scores import Scores, _decomposed, nearest, scores, shrinkage
from unfreeze_trainer.runs.choice import MEAN, short_name
from unfreeze_trainer.training.stages import probed_of

ROWS, LABELS = 120, 4


def labels(rows: int = ROWS, count: int = LABELS) -> np.ndarray:
    return np.eye(count)[np.arange(rows) % count]


def noise(rows: int = ROWS, width: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width))


def signal(strength: float, width: int = 50, seed: int = 0) -> np.ndarray:
    found = noise(width=width, seed=seed)
    found[:, :LABELS] += strength * labels()
    return found


def plain_h_score(features: np.ndarray, targets: np.ndarray) -> float:
    """Bao et al. 2019: the trace of cov(f)^-1 cov(E[f | y])."""
    centred = features - features.mean(0)
    means = targets @ np.linalg.pinv(targets) @ centred
    return float(np.trace(np.linalg.pinv(centred.T @ centred, rcond=1e-9) @ (means.T @ means)))


def plain_log_me(features: np.ndarray, targets: np.ndarray) -> float:
    """You et al. 2021, algorithm 1: the fixed point of alpha and beta, nothing centred."""
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    rows, width, found = len(features), features.shape[1], []
    for column in targets.T:
        projected, alpha, beta = left.T @ column, 1.0, 1.0
        rest = max(float(column @ column - projected @ projected), 1e-12)
        for _ in range(200):
            gamma = (beta * singular**2 / (alpha + beta * singular**2)).sum()
            weights = beta * singular * projected / (alpha + beta * singular**2)
            missed = rest + ((alpha * projected / (alpha + beta * singular**2)) ** 2).sum()
            alpha, beta = gamma / max(float(weights @ weights), 1e-12), (rows - gamma) / missed
        found.append(
            rows / 2 * np.log(beta)
            + width / 2 * np.log(alpha)
            - rows / 2 * np.log(2 * np.pi)
            - beta / 2 * missed
            - alpha / 2 * float(weights @ weights)
            - 0.5 * (np.log(alpha + beta * singular**2).sum() + max(0, width - len(singular)) * np.log(alpha))
        )
    return float(np.mean(found) / rows)


def test_what_a_model_pads_further_counts_as_little_as_other_padding():
    value, mask = torch.randn(2, 8, 3), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    found = pooled_rows(value, {"attention_mask": mask}, 2, further=True)
    torch.testing.assert_close(found, torch.stack([value[0, :5].mean(0), value[1, :2].mean(0)]))


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, tokens):
        return self.head(self.second(self.first(tokens.transpose(0, 1)).transpose(0, 1)).mean(1))


@pytest.mark.parametrize("tokens", [4, 5])
def test_a_layer_whose_tokens_come_first_is_no_place_whatever_the_batches(tokens):
    module = TimeFirst()
    blocks = [
        Block(name, tuple(f"{part}.{end}" for end in ("weight", "bias")))
        for name, part in (("layer.0", "first"), ("layer.1", "second"), ("head", "head"))
    ]
    batches = [(rows, {"tokens": torch.randn(len(rows), tokens, 3)}) for rows in ([0, 1, 2, 3], [4, 5])]
    loaded = SimpleNamespace(module=module, blocks=blocks)
    found = features(loaded, lambda module, batch: module(batch["tokens"]), batches, 6)
    assert list(found) == ["layer.1", READ]
    assert all(np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize("width", [10, 60, 400])
def test_noise_scores_as_nothing_whatever_its_width(width):
    found = scores(noise(width=width), labels(), "Label")
    assert found.knn < 0.25 + 2 * (0.25 * 0.75 / ROWS) ** 0.5
    assert found.logme < 0.02
    assert found.h_score < 0.35


def test_the_plain_h_score_of_wide_noise_is_as_high_as_it_gets():
    wide = noise(width=200)
    assert plain_h_score(wide, labels()) == pytest.approx(LABELS - 1)
    assert scores(signal(3.0), labels(), "Label").h_score > 5 * scores(wide, labels(), "Label").h_score


def test_constant_features_are_nothing_and_plain_log_me_prefers_them_to_signal():
    many = np.eye(10)[np.arange(ROWS) % 10]
    weak = noise(width=10)
    weak[:, :10] += 0.3 * many
    constant = np.ones((ROWS, 10))
    assert plain_log_me(constant, many) > plain_log_me(weak - weak.mean(0), many)
    of_constant, of_weak = scores(constant, many, "Label"), scores(weak, many, "Label")
    assert (of_constant.logme, of_constant.h_score, of_constant.knn) == (0.0, 0.0, 0.0)
    assert min(of_weak.logme, of_weak.h_score, of_weak.knn) > 0


def test_scores_rise_with_the_signal_and_are_blind_to_scale_and_offset():
    found = [scores(signal(strength), labels(), "Label") for strength in (0.0, 1.0, 2.0, 4.0)]
    for name in ("knn", "logme", "h_score"):
        values = [getattr(one, name) for one in found]
        assert values == sorted(values)
    assert found[-1].h_score <= LABELS - 1
    moved = scores(1000 * signal(2.0) + 77, labels(), "Label")
    assert (moved.knn, moved.logme, moved.h_score) == pytest.approx((found[2].knn, found[2].logme, found[2].h_score))


def test_neighbours_are_scikit_learns():
    features, targets = signal(2.0, width=8), labels()
    centred = features - features.mean(0)
    wanted = np.arange(ROWS) % LABELS
    right = []
    for row in range(0, ROWS, 6):
        others = np.arange(ROWS) != row
        classifier = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(centred[others], wanted[others])
        chances = classifier.predict_proba(centred[row : row + 1])[0]
        best = np.flatnonzero(chances == chances.max())
        right.append(float(wanted[row] in best) / len(best))
    assert nearest(centred, targets, "Label")[::6] == pytest.approx(np.array(right))


@pytest.mark.parametrize(("labels", "each"), [(2, 5), (3, 5), (5, 5), (5, 3)])
def test_a_few_rows_of_each_label_are_not_outvoted_by_those_of_others(labels, each):
    """Ten neighbours of ten rows in two classes are four of their own and five of the other: features that tell all told nothing."""
    targets = np.eye(labels)[np.arange(labels * each) % labels]
    features = 10 * targets + np.random.default_rng(0).normal(size=targets.shape) / 10
    assert scores(features, targets, "Label").knn == 1.0


@pytest.mark.parametrize("width", [5, 80, 300])
def test_shrinkage_is_scikit_learns(width):
    features = signal(1.0, width=width)
    centred = features - features.mean(0)
    assert shrinkage(centred, _decomposed(centred)[1]) == pytest.approx(ledoit_wolf_shrinkage(features))


@pytest.mark.parametrize(("width", "more"), [(12, 1e-3), (200, 1e-2)])
def test_evidence_is_the_plain_one_where_both_mean_the_same_and_its_search_ends_no_lower(width, more):
    features, targets = signal(2.0, width=width), labels()
    centred, wanted = features - features.mean(0), targets - targets.mean(0)
    nothing = [-0.5 * np.log(2 * np.pi * (column @ column) / ROWS) - 0.5 for column in wanted.T]
    gained = plain_log_me(centred, wanted) - float(np.mean(nothing))
    assert gained - 1e-3 < scores(features, targets, "Label").logme < gained + more


def test_several_labels_and_numbers():
    rng = np.random.default_rng(1)
    sets = (rng.random((ROWS, 5)) < 0.3).astype(float)
    features = np.hstack([sets + 0.1 * noise(width=5), noise(width=5, seed=2)])
    told, nothing = scores(features, sets, "Labels"), scores(noise(width=300, seed=3), sets, "Labels")
    assert told.knn > 0.3
    assert nothing.knn < 0
    assert told.h_score > 2.5
    assert nothing.h_score < 0.5
    assert told.logme > 0.3
    assert nothing.logme < 0.02
    number = features[:, :1] + 0.1 * noise(width=1, seed=4)
    told, nothing = scores(features[:, :7], number, "Numbers"), scores(noise(width=300, seed=3), number, "Numbers")
    assert told.knn > 0.5
    assert nothing.knn < 0
    assert told.h_score > 0.7
    assert nothing.h_score < 0.3
    assert scores(features, np.ones((ROWS, 1)), "Numbers").logme == 0


def measured(source: str, right: float, *, parameters: int = 10, read: float = 0.5) -> Measured:
    def of(share: float) -> Scores:
        return Scores(share, 0.1, 0.2, (np.arange(100) < 100 * share).astype(float))

    return Measured(source, {"layer.0": of(right / 2), READ: of(read), MEAN: of(right)}, parameters, 1.5)


def test_the_order_is_by_the_place_that_tells_most_then_by_size():
    bases = [
        measured("large", 0.5, parameters=90),
        measured("right", 0.8, parameters=20),
        measured("tied", 0.3, parameters=30),
        measured("read", 0.4, parameters=99, read=0.6),
    ]
    found = ranked(bases)
    assert [base.source for base in found] == ["right", "read", "tied", "large"]
    assert [base.size_rank for base in found] == [4, 1, 3, 2]
    assert found == ranked(bases[::-1])
    assert (found[1].behind_first, found[0].behind_first) == (0.2, 0)
    assert found[1].behind_interval[0] < 0.2 < found[1].behind_interval[1]
    assert [base.place for base in found] == [MEAN, READ, READ, MEAN]
    assert found[0].best_layer == READ


def test_bases_are_compared_on_the_rows_that_both_could_read():
    one, other = (
        Measured(name, {READ: Scores(rows.mean(), 0.1, 0.2, rows)}, 1, 1.0, read)
        for name, rows, read in (
            ("one", np.array([1.0, 1.0, 0.0, 1.0]), np.array([0, 1, 2, 3])),
            ("other", np.array([1.0, 0.0, 0.0]), np.array([0, 1, 3])),
        )
    )
    first, second = ranked([other, one])
    assert (first.source, first.behind_first) == ("one", 0)
    assert second.behind_first == pytest.approx(2 / 3, abs=1e-6)


def test_a_sentence_says_when_the_second_is_as_good():
    def sentence(*bases: Measured) -> str:
        return Ranking(bases=ranked(bases), rows=100, training_rows=900, seed=0, guess=0.25).sentence

    assert "within chance" in sentence(measured("one", 0.5), measured("other", 0.5))
    assert "within chance" not in sentence(measured("one", 0.9), measured("other", 0.1))
    long = [f"hf://{letter * 1000}/{name}" for letter, name in (("a", "one"), ("b", "other"))]
    cut = sentence(measured(long[0], 0.5), measured(long[1], 0.5))
    assert len(cut) < 1024
    assert "aaa/one: its features" in cut
    assert "bbb/other 0.500" in cut
    assert sentence(measured("one", 0.5)) == "one: its features tell 0.500 of 100 training rows by their neighbours"


def test_rows_of_the_same_input_do_not_tell_each_other():
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(40, 64)), np.eye(4)[rng.integers(0, 4, 40)]
    copies = np.repeat(np.arange(40), 12)
    told, alone = (scores(noise[copies], labels[copies], "Label", given).knn for given in (None, copies))
    assert told == 1.0
    assert alone < 0.5
    same = scores(noise, labels, "Label", np.zeros(40, int))
    assert same.rows == pytest.approx(np.full(40, 1 / 4)), "nothing but copies: nobody tells anything"
    assert scores(noise, labels, "Label", np.arange(40)).knn == scores(noise, labels, "Label").knn


def ranking(kind: str, *bases: Measured, guess: float = 0.0) -> Ranking:
    return Ranking(bases=ranked(bases), rows=100, training_rows=900, seed=0, guess=guess, share_of=kind)


def test_of_numbers_a_share_of_their_variance_is_told_and_not_of_the_rows():
    found = ranking("Variance", measured("one", 0.5))
    assert found.sentence == "one: its features tell 0.500 of the variance of 100 training rows by their neighbours"
    assert found.decision.otherwise == "another candidate"
    probed = probed_of(ranking("Variance", measured("one", 0.5), measured("other", 0.2)), "one")
    message = stage_helps(probed, name="first", step=1, seconds=1.0).message
    assert "the features tell 0.500 of the variance of 100 training rows" in message


def test_a_base_that_is_no_better_than_a_guess_is_said_to_be():
    for kind, guess, blind in (
        ("Rows", 0.6, "guessing the commonest label, 0.600"),
        ("Variance", 0.5, "saying the mean"),
    ):
        found = ranking(kind, measured("one", 0.5), guess=guess)
        assert found.sentence.endswith(f", which is no better than always {blind}")
    assert [one.value for one in ranking("Rows", measured("one", 0.5), guess=0.25).decision.evidence] == [0.5, 0.25]


def test_copies_of_a_row_are_one_witness_between_bases():
    """Else data that holds each row ten times looks ten times as sure."""

    def behind(times: int, *, told: bool) -> float:
        rows = np.repeat(np.arange(40), times)
        one, other = (
            Measured(
                name,
                {READ: Scores(right[rows].mean(), 0.1, 0.2, right[rows].astype(float))},
                1,
                1.0,
                np.arange(len(rows)),
                rows if told else None,
            )
            for name, right in (("one", np.arange(40) % 4 > 0), ("other", np.arange(40) % 3 > 0))
        )
        low, high = ranked([one, other])[1].behind_interval
        return high - low

    assert behind(10, told=True) == pytest.approx(behind(1, told=False), rel=1e-4)
    assert behind(10, told=False) < 0.4 * behind(1, told=False)


def test_rows_that_could_not_be_read_are_not_counted(monkeypatch):
    """Of 100 rows 40 pictures are broken, and the job skips them: the features tell their share of 60."""

    class Rows:
        def __init__(self, *_):
            self.split, self.total = SimpleNamespace(source=SimpleNamespace(inputs=None)), 900

    told = replace(measured("one", 0.5), read=np.arange(60))
    job = SimpleNamespace(training=SimpleNamespace(seed=0), model=SimpleNamespace(source="one", candidates=["one"]))
    for name, stub in (
        ("require_rankable", lambda _: None),
        ("_Rows", Rows),
        ("_opened", lambda *_: [None]),
        ("_targets", lambda *_: ("Label", labels())),
        ("numbers_of", lambda _: np.arange(ROWS)),
        ("candidates_of", lambda _: [job]),
        ("_measured", lambda *_: told),
    ):
        monkeypatch.setattr(rank_module, name, stub)
    assert rank_module.rank(job).rows == 60


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (96, 32)])
def test_places_of_a_picture_are_averaged_wherever_its_channels_stand(height, width):
    """Swin's stand last."""
    batch = {"images": torch.zeros(2, 3, height, width)}
    places = torch.randn(2, 24, height // 32, width // 32)
    expected = places.mean((2, 3))
    assert torch.allclose(pooled_rows(places, batch, 2), expected)
    assert torch.allclose(pooled_rows(places.permute(0, 2, 3, 1), batch, 2), expected)


def test_an_answer_tells_candidates_apart_whose_folders_have_one_name():
    sources = ["pvc://bases/small/model", "pvc://bases/large/model/", "hf://acme/minilm"]
    answers = [short_name(one, [other for other in sources if other != one]) for one in sources]
    assert answers == ["small/model", "large/model", "minilm"]
    assert short_name("pvc://a/" + "b" * 100) == "b" * 64
    assert short_name("hf://a/b", ["hf://c/a/b"]) == "/a/b"
