"""What stands below the rungs of Auto: a classical model, and a head that is solved where that is possible."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.trainer.auto_group import run_of
from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate, open_run
from tests.trainer.interrupted import events
from tests.trainer.jobs import bert_folder, make_job, write_csv
from tests.trainer.test_auto import ACCURACY, SHARE, decided, rungs
from tests.trainer.test_solver import model_of, task_of
from unfreeze_api.tasks.base import Metric
from unfreeze_trainer.commands.preview import preview
from unfreeze_trainer.judgement.rungs import SURE, Next, Wanted, Yardstick, best_of, choose, gate
from unfreeze_trainer.judgement.said import Said
from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.runs.checkpoints import Identity
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.classical import FILE, Classical
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.solver import with_solver

TF_IDF = "logistic regression on TF-IDF"


def beside(*gains, value=0.8, better=None):
    return Yardstick(TF_IDF, "accuracy", value, gains, better or [False] * len(gains), 1.0)


# What is pure.


@given(st.tuples(SHARE, SHARE), SHARE, st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0, 0.5))
def test_a_classical_model_shuts_no_gate_and_a_better_one_never_does(values, idle, first, second, worse):
    def answer(classical):
        found = gate(rungs(*values), Next("all", 1.0), Wanted(ACCURACY), idle=idle, step=3, classical=classical)
        return found.answer

    with_it = answer(beside(first, second))
    assert with_it == "Yes" or answer(None) == "No"
    assert answer(beside(first - worse, second - worse)) == "Yes" or with_it == "No"


@given(st.lists(st.tuples(SHARE, SHARE, st.booleans()), min_size=1, max_size=8))
def test_a_rung_that_surely_beats_it_is_not_given_for_one_that_does_not(found):
    values, probable, better = zip(*found, strict=True)
    classical = beside(*(0.1 if one else 0.0 for one in better), better=better)
    place, decision = choose(rungs(*values), probable, Wanted(ACCURACY), step=7, classical=classical)
    top = best_of(values, ACCURACY)
    assert place == top or (place < top and probable[place] >= SURE)
    assert better[place] or not better[top]
    assert decision.message.startswith("no rung is ") == (not any(better))


def test_gate_and_choice_say_what_the_rungs_have_to_beat():
    found = gate(
        rungs(0.6, 0.6), Next("all", 1.0), Wanted(ACCURACY), idle=0.99, step=3, classical=beside(-0.2, -0.2, value=0.8)
    )
    assert (
        found.message == f"accuracy is 0.6 by rung 0, no better than {TF_IDF}, 0.8, 0.4 is left to gain: all is tried"
    )
    assert found.evidence[0].name == f"validation accuracy of {TF_IDF}"
    found = gate(
        rungs(1.1), Next("all", 1.0), Wanted(Metric("loss", "Lower")), idle=None, step=3, classical=beside(-0.2)
    )
    assert found.message.startswith(f"loss is 1.1 by rung 0, no better by accuracy than {TF_IDF}, 0.8, ")
    _, chosen = choose(rungs(0.6), [1.0], Wanted(ACCURACY), step=3, classical=beside(-0.2))
    assert chosen.message == f"no rung is better than {TF_IDF}, accuracy 0.8; rung 0 is taken: its accuracy is 0.6"
    _, chosen = choose(rungs(0.81), [1.0], Wanted(ACCURACY), step=3, classical=beside(0.01))
    assert chosen.message.startswith(f"no rung is surely better than {TF_IDF}, accuracy 0.8; ")
    place, chosen = choose(
        rungs(0.81, 0.815), [0.95, 1.0], Wanted(ACCURACY), step=3, classical=beside(0.01, 0.015, better=[False, True])
    )
    assert (place, chosen.otherwise) == (1, f"rung 0 were surely better than {TF_IDF} too")


def test_a_rung_that_came_to_no_number_is_not_ahead_of_a_classical_model():
    assert beside(float("nan")).ahead
    assert beside(float("nan"), -0.1).ahead
    assert not beside(float("nan"), 0.1).ahead


def test_a_rung_that_was_given_up_is_not_one_that_nobody_tried():
    _, found = choose(rungs(0.8), [1.0], Wanted(ACCURACY), step=3, given_up=["upper"], untried=["all"])
    assert found.message.endswith("; upper given up, since its learning rates destroy the model; all not tried")
    assert found.alternative == "the last rung, all. One seed"


# Which head is solved.


def solver_of(head=None, *, strategy=None, task=None, **spec):
    job = make_job("/none", "/none.csv", strategy={"type": "Auto", **(strategy or {})}, **spec)
    found = with_solver(job, task_of(**(task or {})), model_of(head or nn.Linear(4, 3)), runs=False)
    assert found.strategy.solver or found is job
    return found.strategy.solver


def test_the_first_head_of_auto_is_solved_where_that_is_possible():
    assert solver_of() == "Closed"
    assert solver_of(strategy={"solver": "Gradient"}) == "Gradient"
    assert solver_of(strategy={"auto": {"rungs": [{"type": "FeatureExtraction", "epochs": 2}]}}) == "Gradient"
    assert solver_of(strategy={"auto": {"rungs": [{"type": "FullFineTuning"}]}}) == "Gradient"
    assert solver_of(adapter={"type": "LoRA"}) == "Gradient"
    assert solver_of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))) == "Gradient"
    assert solver_of(task={"not_convex": "the focal loss is not convex"}) == "Gradient"
    assert solver_of(task={"repeats": lambda _: False}) == "Gradient"
    assert solver_of(task={"splits": {"train": 10**8}}) == "Gradient"
    assert solver_of(task={"splits": {"train": 1}}) == "Gradient"
    images = {"type": "ImageClassification"}
    job = make_job("/none", "/none", strategy={"type": "Auto"}, task=images)
    varied = task_of(repeats=lambda _: False)
    assert with_solver(job, varied, model_of(nn.Linear(4, 3)), runs=False).strategy.solver == "Closed"


def test_other_strategies_and_other_workers_are_heard():
    job = make_job("/none", "/none.csv", strategy={"type": "FeatureExtraction"})
    assert with_solver(job, task_of(), model_of(nn.Linear(4, 3))) is job
    job = make_job("/none", "/none.csv", strategy={"type": "Auto"})
    found = with_solver(job, task_of(), model_of(nn.Linear(4, 3)), runs=False, any_rank=lambda _: True)
    assert found.strategy.solver == "Gradient"
    said = make_job("/none", "/none.csv", strategy={"type": "Auto", "solver": "Gradient"})
    assert said.fingerprint() != job.fingerprint()
    one, other = (
        make_job("/none", "/none.csv", strategy={"type": "FeatureExtraction", **more})
        for more in ({}, {"solver": "Gradient"})
    )
    assert one.fingerprint() == other.fingerprint()


@pytest.mark.parametrize(
    ("forward", "solver"),
    [
        (lambda module, batch: module.head(batch["x"]), "Closed"),
        (lambda module, batch: module.head(batch["x"]).tanh(), "Gradient"),
        (lambda module, batch: module.head(torch.stack([batch["x"]] * 2, 1)).flatten(1), "Gradient"),
        (lambda module, batch: module.missing(batch["x"]), "Gradient"),
        (lambda module, batch: module.head(1 + 1e-3 * batch["x"]), "Gradient"),
        (lambda module, batch: module.head(1 + 0.1 * batch["x"]), "Closed"),
    ],
    ids=[
        "linear",
        "outputs that are not linear",
        "more than a vector",
        "fails",
        "vectors that are nearly the same",
        "that differ",
    ],
)
def test_a_model_shows_on_a_few_samples_whether_its_head_can_be_solved(forward, solver):
    batch = {"x": torch.randn(2, 4), TARGETS: torch.tensor([0, 1])}
    task = task_of(forward=forward, batches=lambda *_: [batch])
    job = make_job("/none", "/none.csv", strategy={"type": "Auto"})
    assert with_solver(job, task, model_of(nn.Linear(4, 3))).strategy.solver == solver


# A file that outlives a start.


def test_what_a_classical_model_says_is_kept(tmp_path):
    said = Said("OneOf", ["a", "b"], np.array([0, 1, 1]), np.array([0, 1, 0]))

    class Generation:
        def aside(self, name):
            return tmp_path / name

        def commit(self, aside, final):
            final.parent.mkdir(exist_ok=True)
            aside.replace(final)

    def of(fingerprint, sha256):
        identity = Identity(fingerprint, {"data": {"train": {"sha256": sha256}}})
        return SimpleNamespace(path=tmp_path, generation=Generation(), identity=identity)

    folder = of("recipe", "data")
    assert Classical.read(folder) is None
    Classical("one", 7, 0.5, said).write(folder)
    found = Classical.read(folder)
    assert Classical.read(of("another", "data")) is Classical.read(of("recipe", "others")) is None
    assert (found.name, found.fitted_on, found.seconds, found.said.names) == ("one", 7, 0.5, ["a", "b"])
    assert found.compared(said, "accuracy").gain == 0
    other = Said("OneOf", ["a", "b"], np.array([0, 0, 1]), said.predicted)
    with pytest.raises(ValueError, match="other validation rows"):
        found.compared(other, "accuracy")
    whole = (tmp_path / FILE).read_bytes()
    torn = whole[: len(whole) // 2] + bytes(100) + whole[len(whole) // 2 + 100 :]
    for content in (b"no such thing", b"", whole[:100], whole[:-30], torn):
        (tmp_path / FILE).write_bytes(content)
        assert Classical.read(folder) is None


# Whole runs.

slow = pytest.mark.slow


@slow
@pytest.mark.usefixtures("one_thread")
def test_where_no_rung_beats_the_classical_model_that_stands_first(tmp_path, monkeypatch):
    forget_accelerate()
    run = run_of(tmp_path, blind=True, told=True, epochs=1)
    asked = run.ladder.compare
    heard = []

    def stopped(phase, *, tell):
        def stop(activity):
            heard.append(activity)
            raise StopRequested

        asked(phase, tell=stop)

    run.ladder.compare = stopped
    monkeypatch.setattr("unfreeze_trainer.training.beside._LOOK_SECONDS", 0.0)
    with pytest.raises(StopRequested):
        train(run)
    assert heard == ["fitting a classical model to compare the rungs with"]
    run.milestones.save()  # as the worker has it
    run.saver.close()
    forget_accelerate()
    run = run_of(tmp_path, blind=True, told=True, epochs=1)
    train(run)
    run.saver.close()
    assert (tmp_path / FILE).is_file()
    monkeypatch.setattr(Classical, "of", None)  # whoever fits it again fails
    forget_accelerate()
    complete(run_of(tmp_path, blind=True, told=True, epochs=1))
    [strategy], [baseline] = decided(tmp_path, "Strategy"), decided(tmp_path, "Baseline")
    assert strategy["message"].startswith(f"no rung is better than {TF_IDF}, accuracy ")
    assert strategy["evidence"][0]["name"] == "validation accuracy of always guessing one class"
    assert (baseline["answer"], baseline["warning"]) == ("No", True)
    assert all(f"no better than {TF_IDF}" in one["message"] for one in decided(tmp_path, "Rung"))
    assert "A classical model is better: " in (tmp_path / "report.html").read_text()
    assert not events(tmp_path, "warning")


@slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("spread", [True, False], ids=["vectors that differ", "vectors that are nearly the same"])
def test_a_solved_rung_is_what_auto_does_by_itself(tmp_path, spread):
    bert_folder(tmp_path / "bert", num_hidden_layers=1, initializer_range=0.5 if spread else 0.02)
    write_csv(tmp_path / "texts.csv", rows=40)
    rungs = [{"type": "FeatureExtraction"}, {"type": "FullFineTuning"}]
    job = make_job(
        tmp_path / "bert",
        tmp_path / "texts.csv",
        strategy={"type": "Auto", "auto": {"rungs": rungs}},
        training={"epochs": 1, "batchSize": 8, "weightDecay": 0.0},
        output={"destination": f"file://{tmp_path}/run"},
    )
    run = open_run(job, open_task(job))
    assert [(phase.steps, phase.solved) for phase in run.plan.phases] == [(1 if spread else 20, spread), (4, False)]
    assert [phase.steps for phase in preview(job).phases] == [phase.steps for phase in run.plan.phases]
    loaded, load = [], run.engine.load_weights
    run.engine.load_weights = lambda weights: (loaded.append(dict(weights)), load(weights))
    train(run)
    run.saver.close()
    new = open_task(job).build_model().module.classifier.weight
    assert torch.equal(loaded[-1]["classifier.weight"], new) == spread, (
        "what follows a solved head begins with the base"
    )
    decided = {one.type for one in run.state.decisions}
    assert ("Solver" in decided, "Rung" in decided, "Rollback" in decided) == (spread, True, False)
    assert float(run.engine.module.classifier.weight.detach().norm()) < 100, "one that trains further"
    again = open_run(job, open_task(job))  # of the same job: its folder is its own
    assert again.state.step == run.state.step
    again.saver.close()
