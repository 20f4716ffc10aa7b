"""`solver: Closed`: the head with the lowest loss, its regularisation, and runs that are the same on any number of workers."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainer import solver_group
from tests.trainer.complete import complete
from tests.trainer.engine_group import open_run
from tests.trainer.jobs import bert_folder, make_job, write_csv
from tests.trainer.test_phases import phases
from tests.trainer.test_regression import objective_of
from tests.trainer.test_weighting import multi, single
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.features.convex import FOLDS, STRENGTHS, Problem, folds_of
from unfreeze_trainer.features.linear import LinearHead
from unfreeze_trainer.judgement.strengths import Tried, best_of, chosen, is_over
from unfreeze_trainer.models.blocks import Block
from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.solver import require_solvable

ROWS, INPUTS = 60, 5
LOT = np.random.default_rng(0)
VECTORS = LOT.normal(size=(ROWS, INPUTS)) @ np.diag([5, 1, 1, 0.3, 0.1]) + 7
LABELS = torch.from_numpy(LOT.integers(0, 3, ROWS))
HOT = torch.nn.functional.one_hot(LABELS, 3).float()
NUMBERS = LOT.normal(size=(ROWS, 2)) + VECTORS[:, :2]
CASES = {
    "one label": (single(), LABELS, 3),
    "weights and smoothing": (single(class_weights="Balanced", label_smoothing=0.1), LABELS, 3),
    "several labels": (multi(class_weights="Balanced"), HOT, 3),
    "numbers": (objective_of(NUMBERS), torch.from_numpy(NUMBERS), 2),
    "numbers, by Huber": (objective_of(NUMBERS, loss="Huber"), torch.from_numpy(NUMBERS), 2),
}


def problem_of(objective, targets, outputs, *, vectors=VECTORS, weights=None, bias=True):
    def loss(found, rows):
        return objective.loss(found, {TARGETS: targets[rows]})

    weights = torch.ones(len(vectors), dtype=torch.float64) if weights is None else weights
    return Problem(torch.from_numpy(vectors).float(), loss, weights, outputs=outputs, bias=bias)


def slope_of(objective, targets, layer, strength, *, vectors=VECTORS, weights=None, bias=True):
    """Return the largest number in the gradient of the objective, as its words have it, by the weights of a layer."""
    inputs = torch.from_numpy(vectors).float().double()
    share = torch.ones(len(inputs), dtype=torch.float64) if weights is None else weights
    share = share / share.sum()
    weight, offset = (tensor.double().requires_grad_() for tensor in layer)
    mean = share @ inputs if bias else 0.0
    spread = (share @ (inputs - mean).square()).sqrt()
    losses = objective.loss(inputs @ weight.T + offset, {TARGETS: targets})
    value = share @ losses + strength / 2 * (weight * spread).square().sum()
    found = torch.autograd.grad(value, [weight, offset] if bias else [weight])
    return max(float(gradient.abs().max()) for gradient in (found[0] / spread, *found[1:]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
def test_a_head_is_at_the_minimum_of_the_loss_and_its_squared_weights(case, strength):
    objective, targets, outputs = CASES[case]
    problem = problem_of(objective, targets, outputs)
    head = problem.solve(strength, problem.blank(), [slice(0, ROWS)], fine=True)
    assert head.gradient <= 1e-6
    assert slope_of(objective, targets, problem.layer(head), strength) < 1e-4


@pytest.mark.parametrize("bias", [True, False])
def test_rows_that_count_more_and_heads_without_biases(bias):
    objective, targets, outputs = CASES["one label"]
    weights = torch.from_numpy(LOT.uniform(0.1, 3, ROWS))
    problem = problem_of(objective, targets, outputs, weights=weights, bias=bias)
    head = problem.solve(1e-2, problem.blank(), [slice(0, ROWS)], fine=True)
    layer = problem.layer(head)
    assert slope_of(objective, targets, layer, 1e-2, weights=weights, bias=bias) < 1e-4
    assert bias or not layer[1].any()


def test_inputs_that_say_nothing_get_no_weight():
    vectors = np.concatenate([VECTORS, np.full((ROWS, 1), 0.1), np.zeros((ROWS, 1)), VECTORS[:, :1]], axis=1)
    problem = problem_of(*CASES["one label"], vectors=vectors)
    weight, bias = problem.layer(problem.solve(1e-3, problem.blank(), [slice(0, ROWS)], fine=True))
    assert not weight[:, INPUTS : INPUTS + 2].any()
    tiny = np.concatenate([VECTORS, 1e-31 * LOT.normal(size=(ROWS, 1))], axis=1)
    found, _ = (problem := problem_of(*CASES["one label"], vectors=tiny)).layer(
        problem.solve(1e-3, problem.blank(), [slice(0, ROWS)], fine=True)
    )
    assert not found[:, INPUTS].any()
    torch.testing.assert_close(weight[:, 0], weight[:, -1], rtol=0, atol=1e-4)  # an input that stands there twice
    assert bool(torch.isfinite(weight).all() & torch.isfinite(bias).all())


def test_a_head_of_a_fold_has_not_seen_its_rows():
    objective, targets, outputs = CASES["one label"]
    held, others = slice(20, 30), [slice(0, 20), slice(30, ROWS)]
    problem = problem_of(objective, targets, outputs)
    other = targets.clone()
    other[held] = (other[held] + 1) % 3
    changed = problem_of(objective, other, outputs)
    one, two = (each.solve(1e-2, each.blank(), others) for each in (problem, changed))
    torch.testing.assert_close(one.weight, two.weight, rtol=0, atol=1e-4)
    assert abs(changed.losses(two, held) - problem.losses(one, held)) > 1


def test_folds_are_dealt_out_by_lot_each_label_evenly():
    groups = np.repeat([0, 1, 2], [50, 23, 7])
    folds = folds_of(80, groups, seed=3)
    assert sorted(np.concatenate(folds).tolist()) == list(range(80))
    assert len(folds) == FOLDS
    for group, count in ((0, 10), (1, 4), (2, 1)):
        assert {int((groups[fold] == group).sum()) for fold in folds} <= {count, count + 1}
    again, other = folds_of(80, groups, seed=3), folds_of(80, groups, seed=4)
    assert all(np.array_equal(one, two) for one, two in zip(folds, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(folds, other, strict=True))
    assert [len(fold) for fold in folds_of(3, None, seed=0)] == [1, 1, 1]


def tried(*losses):
    return [Tried(strength, [loss] * 5, loss) for strength, loss in zip(STRENGTHS, losses, strict=False)]


def test_the_strength_with_the_lowest_loss_on_held_out_folds_is_taken():
    found = tried(1.0, 0.6, 0.5, 0.55, float("nan"))
    assert best_of(found) == 2
    assert not is_over(found[:3])
    assert is_over(found)
    assert is_over(tried(1.0, 0.5, 0.4, 0.3999, 0.3995)), "what is left to gain does not count"
    decision = chosen(found, samples=100, iterations=9, gradient=1e-7, seconds=1.0, step=1)
    assert (decision.type, decision.answer) == ("Solver", "1")
    assert [one.value for one in decision.evidence[:3]] == [1.0, 0.6, 0.5]
    assert len(decision.evidence) == 5 + 5 + 1
    assert "the next is 0.316 with 0.55" in decision.otherwise
    assert "strongest" in chosen(found[:1], samples=9, iterations=1, gradient=1.0, seconds=0, step=1).message
    assert "not converged" in chosen(found, samples=9, iterations=1, gradient=1.0, seconds=0, step=1).message


def test_a_phase_that_is_solved_stands_for_one_step():
    def plan(strategy, **more):
        found = phases({"solver": "Closed", **strategy}, **more)
        return [(phase.name, phase.first_step, phase.steps, phase.solved) for phase in found]

    assert plan({"type": "FeatureExtraction"}) == [("head", 0, 1, True)]
    assert plan({"type": "LinearProbeThenFineTune"}) == [("head", 0, 1, True), ("all", 1, 29, False)]
    assert plan({"type": "LinearProbeThenFineTune"}, epochs=0.01) == [("head", 0, 1, True), ("all", 1, 1, False)]
    rungs = [{"type": "FeatureExtraction"}, {"type": "FullFineTuning"}]
    assert plan({"type": "Auto", "auto": {"rungs": rungs}}) == [("head", 0, 1, True), ("all", 1, 30, False)]
    assert plan({"type": "Auto", "auto": {"rungs": rungs[:1]}}) == [("head", 0, 1, True)]


def task_of(**change):
    told = {"not_convex": "", "splits": {"train": 9}, "repeats": lambda _: True} | change
    return SimpleNamespace(**told)


def model_of(head, *parameters):
    module = nn.Module()
    module.head = head
    names = parameters or tuple(f"head.{name}" for name, _ in head.named_parameters())
    return SimpleNamespace(module=module, blocks=[Block("layer.0", ()), Block("head", names)])


@pytest.mark.parametrize(
    ("task", "head", "message"),
    [
        ({}, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "not one layer: head.0, head.1"),
        ({}, nn.Bilinear(2, 2, 2), "not linear: Bilinear"),
        ({"not_convex": "the focal loss is not convex"}, nn.Linear(2, 2), "the focal loss is not convex"),
        ({"repeats": lambda _: False}, nn.Linear(2, 2), "vary from epoch to epoch"),
        ({"splits": {"train": 1}}, nn.Linear(2, 2), "2 training samples at least"),
    ],
)
def test_what_cannot_be_solved_is_refused_before_anything_is_trained(task, head, message):
    found = phases({"type": "FeatureExtraction", "solver": "Closed"})
    with pytest.raises(JobError, match=message) as raised:
        require_solvable(task_of(**task), model_of(head), found)
    assert raised.value.message.startswith("spec.strategy.solver Closed ")
    assert raised.value.message.endswith("Set solver to Gradient")
    assert require_solvable(task_of(**task), model_of(head), phases({"type": "FeatureExtraction"})) is None


def test_a_head_is_found_by_its_place():
    assert require_solvable(
        task_of(), model_of(nn.Linear(4, 3, bias=False)), phases({"type": "FeatureExtraction", "solver": "Closed"})
    ) == LinearHead("head", 4, 3, bias=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("solver")
    bert_folder(folder / "bert", num_hidden_layers=1)
    write_csv(folder / "texts.csv", rows=40)
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    """The job of `solver_group` on one worker."""
    return solver_group.solved(folder, "alone", "DDP", 1)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["DDP", "FSDP", "ZeRO-3"])
def test_workers_find_the_head_that_one_finds(ranks, folder, alone, engine):
    probe, _, steps, decision = alone
    assert steps == [("head", 1), ("all", 3)]
    found, *_ = ranks.call(solver_group.solved, folder, engine, engine, 2)
    assert (found[2], found[3].answer, found[3].step) == (steps, decision.answer, decision.step)
    for name, weight in probe.items():
        torch.testing.assert_close(found[0][name], weight, rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("before", ["stopped", "killed"])
def test_a_start_after_another_one_finds_the_same_bits(folder, alone, before):
    again = solver_group.solved(folder, before, "DDP", 1, before)
    for one, two in zip(alone[:2], again[:2], strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert again[3].model_dump(exclude={"seconds"}) == alone[3].model_dump(exclude={"seconds"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (lambda outputs, _: outputs.tanh(), "InvalidStrategy", "its outputs are not those of its head, classifier"),
        (
            lambda outputs, _: outputs * torch.nan,
            "InvalidModel",
            "texts.csv.*: the frozen base gives its head numbers that",
        ),
    ],
    ids=["outputs that are not linear", "vectors that are no numbers"],
)
def test_what_the_model_shows_only_when_it_runs(folder, tmp_path, change, reason, message):
    strategy = {"type": "FeatureExtraction", "solver": "Closed"}
    job = make_job(
        folder / "bert", folder / "texts.csv", strategy=strategy, output={"destination": f"file://{tmp_path}"}
    )
    run = open_run(job, open_task(job))
    forward = run.features.forward
    run.features.forward = lambda module, batch: change(forward(module, batch), batch)
    with pytest.raises(JobError, match=message) as raised:
        train(run)
    run.saver.close()
    assert raised.value.reason == reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "target"),
    [
        ({"type": "TextClassification", "textClassification": {"labels": "Multi"}}, lambda number: "ab"[number % 2 :]),
        ({"type": "TextRegression", "textRegression": {"loss": "Huber"}}, lambda number: number % 7),
    ],
    ids=["several labels", "a number"],
)
def test_a_solved_head_is_exported_and_reported(folder, tmp_path, task, target):
    lines = list(csv.reader((folder / "texts.csv").open()))[1:]
    column = "value" if task["type"] == "TextRegression" else "label"
    rows = [f"{text},{target(number)}" for number, (text, _) in enumerate(lines)]
    (tmp_path / "data.csv").write_text(f"text,{column}\n" + "\n".join(rows) + "\n")
    strategy = {"type": "FeatureExtraction", "solver": "Closed"}
    out = {"destination": f"file://{tmp_path}/run"}
    job = make_job(folder / "bert", tmp_path / "data.csv", task=task, strategy=strategy, output=out)
    run = open_run(job, open_task(job))
    complete(run)
    run.saver.close()
    report = json.loads((tmp_path / "run/report.json").read_text())
    [decision] = [one for one in report["decisions"] if one["type"] == "Solver"]
    assert len(decision["evidence"]) > FOLDS
    assert [(phase["name"], phase["steps"]) for phase in report["phases"]] == [("head", 1)]
    [row] = csv.DictReader((tmp_path / "run/history.csv").open())
    assert (row["step"], float(row["learningRate.head"])) == ("1", 0.0)
    assert float(row["loss"]) > 0
    assert [*(tmp_path / "run").rglob("model.safetensors")]
