"""Tagging: metrics equal seqeval's to the last digit, in one sum or in many; each word that is seen weighs the same."""

import warnings
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
from sklearn.metrics import accuracy_score
from torch.nn import functional

from unfreeze_trainer.objectives.base import IGNORED
from unfreeze_trainer.objectives.tagging import PLACES, Tagging, TagMetrics
from unfreeze_trainer.objectives.targets import Targets
from unfreeze_trainer.objectives.targets.tags import parts_and_kinds

SCHEMES = {
    "IOB2": ["B-X", "B-Y", "I-X", "I-Y", "O"],
    "IOBES": [f"{part}-{kind}" for part in "BEIS" for kind in "XY"] + ["O"],
    "BILOU": [f"{part}-{kind}" for part in "BILU" for kind in "XY"] + ["O"],
    "no O": ["B-X", "I-X", "I-Y"],
    "plain": ["Name", "O", "Street"],
    "plain without O": ["City", "Name", "Street"],
}


def batch_of(labels: list[np.ndarray], seen: list[np.ndarray]) -> dict[str, torch.Tensor]:
    width = max(map(len, labels), default=1)
    targets, places = (np.full((max(1, len(labels)), width), fill) for fill in (IGNORED, -1))
    for row, (own, known) in enumerate(zip(labels, seen, strict=True)):
        targets[row, : len(own)] = own
        places[row, : len(own)] = np.where(known, np.arange(len(own)), -1)
    return {"labels": torch.from_numpy(targets), PLACES: torch.from_numpy(places)}


def as_seqeval_reads(tags: list[str], names: list[str]) -> list[str]:
    """Runs of tags without prefixes begin with B; the two names of ends and of single words are one."""
    parts, kinds = parts_and_kinds(names)
    known = {"O": ("I", ""), **dict(zip(names, zip(parts, kinds, strict=True), strict=True))}
    found, before = [], ""
    for tag in tags:
        part, kind = known[tag]
        if tag == kind:
            part = "I" if kind == before else "B"
        found.append(f"{part}-{kind}" if kind else "O")
        before = kind
    return found


@pytest.mark.slow
@pytest.mark.parametrize("names", SCHEMES.values(), ids=SCHEMES)
@given(seed=st.integers(0, 10**6), samples=st.integers(1, 12), workers=st.integers(1, 3), cut=st.booleans())
def test_sums_of_workers_equal_seqeval(names: list[str], seed: int, samples: int, workers: int, cut: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = [rng.integers(len(names), size=rng.integers(1, 9)) for _ in range(samples)]
    logits = [rng.normal(size=(len(own), len(names))).astype(np.float32) for own in labels]
    for own, row in zip(labels, logits, strict=True):  # half of them right, so that there are whole spans
        row[np.arange(len(own)), own] += 3 * (rng.random(len(own)) < 0.5)
    seen = [rng.random(len(own)) < (0.7 if cut else 1) for own in labels]
    metrics, states = TagMetrics(names), []
    for rank in range(workers):
        mine = range(rank, samples, workers)
        batch = batch_of([labels[n] for n in mine], [seen[n] for n in mine])
        outputs = torch.randn(*batch["labels"].shape, len(names))
        for row, n in enumerate(mine):
            outputs[row, : len(logits[n])] = torch.from_numpy(logits[n])
        metrics.update(states_of := metrics.new_state(), outputs, batch)
        states.append(states_of)
    found = metrics.compute(total := torch.stack(states).sum(0))

    actual = [[names[tag] for tag in own] for own in labels]
    predicted = [
        [names[tag] if known else "O" for tag, known in zip(row.argmax(1), flags, strict=True)]
        for row, flags in zip(logits, seen, strict=True)
    ]
    with warnings.catch_warnings(action="ignore"):
        precision, recall, f1, _ = precision_recall_fscore_support(
            *([as_seqeval_reads(row, names) for row in rows] for rows in (actual, predicted)), average="micro"
        )
    accuracy = accuracy_score([*chain(*actual)], [*chain(*predicted)])
    expected = {"spanF1": f1, "spanPrecision": precision, "spanRecall": recall, "tokenAccuracy": accuracy}
    assert {name: found[name] for name in expected} == expected
    kept = np.concatenate(seen)
    if kept.any():
        inputs, targets = torch.from_numpy(np.concatenate(logits)[kept]), torch.from_numpy(np.concatenate(labels)[kept])
        assert found["loss"] == pytest.approx(functional.cross_entropy(inputs, targets).item(), rel=1e-5)
    check_usefulness(
        metrics,
        total,
        names,
        [(row, *pair) for row in range(samples) for pair in zip(actual[row], predicted[row], strict=True)],
    )


def check_usefulness(
    metrics: TagMetrics, state: torch.Tensor, names: list[str], words: list[tuple[int, str, str]]
) -> None:
    """The interval is no narrower than that of the ratio estimator over samples, here sample by sample."""
    told = metrics.usefulness(state, names, "spanF1")
    counts = [sum(actual == name for _, actual, _ in words) for name in names]
    guess = names[int(np.argmax(counts))]
    assert told.majority == max(counts) / len(words)
    rows = sorted({row for row, *_ in words})
    gains = np.array([sum((a == p) - float(a == guess) for n, a, p in words if n == row) for row in rows])
    sizes = np.array([sum(n == row for n, *_ in words) for row in rows])
    gain = gains.sum() / sizes.sum()
    if len(rows) > 1:
        spread = ((gains - gain * sizes) ** 2).sum() * len(rows) / (len(rows) - 1)
        reach = 1.959964 * np.sqrt(spread) / sizes.sum()
        assert told.gain_low <= gain - reach + 1e-9
        assert told.gain_high >= gain + reach - 1e-9
    else:
        assert not told.better


def test_nothing_has_no_metrics() -> None:
    metrics = TagMetrics(SCHEMES["IOB2"])
    state = metrics.new_state()
    metrics.update(state, torch.randn(1, 1, 5), batch_of([], []))
    assert not state.any()
    assert metrics.compute(state) == {}
    assert metrics.usefulness(state, SCHEMES["IOB2"], "spanF1") is None


def tagging() -> Tagging:
    return Tagging(type("Learned", (), {"labels": SCHEMES["IOB2"]})())


def targets_of(*lengths: int) -> Targets:
    values = np.empty(len(lengths), dtype=object)
    for row, length in enumerate(lengths):
        values[row] = np.arange(length, dtype=np.int32) % 5
    return Targets(values, np.array(lengths), np.zeros(len(lengths), dtype=np.int64))


def test_tags_are_filled_up_and_padding_has_none() -> None:
    objective, targets = tagging(), targets_of(3, 1, 2)
    filled = objective.collate(targets, [1, 0])
    assert filled["labels"].tolist() == [[0, IGNORED, IGNORED], [0, 1, 2]]
    assert objective.counted(filled).tolist() == [True, True]
    assert objective.collate(targets, [])["labels"].tolist() == [[IGNORED]]
    assert objective.counted(objective.collate(targets, [0, 1], {0})).tolist() == [False, True]


def test_the_loss_is_a_sum_over_the_words_that_are_seen() -> None:
    objective = tagging()
    batch = batch_of([np.array([0, 1, 2]), np.array([4])], [np.array([True, False, True]), np.array([True])])
    outputs = torch.randn(2, 3, 5, requires_grad=True)
    losses = objective.loss(outputs, batch)
    each = [[(0, 0), (2, 2)], [(0, 4)]]
    for row, words in enumerate(each):
        expected = sum(functional.cross_entropy(outputs[row, word], torch.tensor(tag)) for word, tag in words)
        assert losses[row].item() == pytest.approx(expected.item(), rel=1e-6)
    losses.sum().backward()
    assert [[bool(word.any()) for word in row] for row in outputs.grad] == [[True, False, True], [True, False, False]]
    padding = {"labels": torch.full((1, 1), IGNORED), PLACES: torch.full((1, 1), -1)}
    assert objective.loss(torch.randn(1, 1, 5), padding).tolist() == [0.0]
