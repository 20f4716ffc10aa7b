"""What a finished model is compared with, through whole runs: on data whose words, or colours, tell the answer."""

from __future__ import annotations

import csv
import json
import threading
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import Killed, events, kill_at
from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder, write_csv
from tests.trainer.mlp import MLPTask
from unfreeze_api.contracts import budget
from unfreeze_api.contracts.decision import Decision
from unfreeze_trainer import tasks
from unfreeze_trainer.agent.finished import outcome_of
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.runs.course import Course
from unfreeze_trainer.runs.generation import Superseded
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training import beside, evidence, scratch
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.predictions import Predictions
from unfreeze_trainer.training.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def without_exports(monkeypatch):
    """A process that loads an export takes longer than all the rest."""
    monkeypatch.setattr(Exporter, "write", lambda *_, **__: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("base") / "bert")


def run_of(model, data, folder, **change):
    forget_accelerate()
    place = {"output": {"destination": f"file://{folder}"}}
    held = {"data": {"validation": {"fraction": 0.5}}}
    job = make_job(model, data, evidence={"baseline": {}}, **place, **held, **change)
    task = open_task(job)
    return Run(job, task, task.build_model(), open_engine(job), None)


def decision_of(folder):
    report = json.loads((folder / "report.json").read_text())
    [found] = [one for one in report["decisions"] if one["type"] == "Baseline"]
    return found


def test_a_classical_model_that_is_better_stands_first(base, tmp_path):
    run = run_of(base, write_csv(tmp_path / "train.csv", 80), tmp_path / "run")
    complete(run)
    found = decision_of(tmp_path / "run")
    assert (found["answer"], found["warning"], found["step"]) == ("No", True, run.plan.total_steps)
    assert found["message"].startswith("a classical model is better: the model's accuracy is 0.")
    assert ", that of logistic regression on TF-IDF 1.000 (difference -0." in found["message"]
    assert "fitted on all 40 training samples" in found["alternative"]
    assert outcome_of(run.job).startswith(
        f"A{found['message'][1:]}. On the validation data the model's accuracy is not surely"
    )
    assert f"A{found['message'][1:]}. On the validation data the model" in (
        tmp_path / "run/report.html"
    ).read_text().replace("&#39;", "'")
    [line] = [line for line in events(tmp_path / "run", "decision") if line["type"] == "Baseline"]
    assert line["message"] == found["message"]
    assert [one.type for one in budget.decisions(run.state.decisions)] == ["Baseline"]


def test_any_labels_on_some_samples(base, tmp_path):
    with (tmp_path / "train.csv").open("w") as file:
        rows = (
            (f"{'how' if n % 2 else 'who'} {'lake' if n % 3 else 'river'}", ["x"] * (n % 2) + ["y"] * (n % 3 > 0))
            for n in range(60)
        )
        csv.writer(file).writerows([("text", "label"), *((text, ",".join(labels) or "z") for text, labels in rows)])
    task = {"task": {"textClassification": {"labels": "Multi"}}}
    evidence = {"baseline": {"maxSamples": 20}}
    run = run_of(base, tmp_path / "train.csv", tmp_path / "run", **task, training={"metric": "macroF1"})
    run.job = run.job.model_copy(update={"evidence": type(run.job.evidence).model_validate(evidence)})
    complete(run)
    found = decision_of(tmp_path / "run")
    assert found["message"].startswith("a classical model is better: the model's macroF1 is ")
    assert "fitted on 20 of 30 training samples" in found["alternative"]


def test_numbers_of_pairs(base, tmp_path):
    with (tmp_path / "train.csv").open("w") as file:
        rows = (("same", ("how", "who")[n % 2], 100.0 * (n % 2)) for n in range(60))
        csv.writer(file).writerows([("text", "other", "value"), *rows])
    data = {
        "data": {
            "train": {"source": f"file://{tmp_path}/train.csv", "columns": {"textPair": "other"}},
            "validation": {"fraction": 0.5},
        }
    }
    forget_accelerate()
    job = make_job(
        base,
        "",
        task={"type": "TextRegression"},
        evidence={"baseline": {}},
        output={"destination": f"file://{tmp_path}/run"},
        **data,
    )
    task = open_task(job)
    complete(Run(job, task, task.build_model(), open_engine(job), None))
    message = decision_of(tmp_path / "run")["message"]
    assert message.startswith("a classical model is better: the model's rmse is ")
    assert "that of ridge regression on TF-IDF " in message


def test_pictures(tmp_path):
    data = image_folder(tmp_path / "data", per_label=20)
    task = {"task": {"type": "ImageClassification", "imageClassification": {"imageSize": 32}}}
    run = run_of(timm_folder(tmp_path / "resnet"), data, tmp_path / "run", **task, training={"epochs": 0.5})
    complete(run)
    found = decision_of(tmp_path / "run")
    assert "that of logistic regression on oriented gradients and colours 1.000" in found["message"]
    assert found["evidence"][1]["value"] == 1.0


@pytest.fixture
def of_points(tmp_path, monkeypatch):
    """Return what makes a run of a model that trains in milliseconds."""

    def made(wanted, *, epochs=2, folder=tmp_path, after="Keep"):
        forget_accelerate()
        job = make_job(
            "/none",
            "/none.csv",
            evidence=wanted,
            output={"destination": f"file://{folder}/run"},
            training={"epochs": epochs, "checkpoint": {"everySteps": 3, "afterSuccess": after}},
        )
        task = MLPTask()
        return Run(job, task, task.build_model(), open_engine(job), None)

    monkeypatch.setattr(tasks, "open_task", MLPTask)
    return made


@pytest.fixture
def two_arms(of_points, monkeypatch):
    """Return what makes a run that trains random weights beside it, in seconds that a busy machine has too."""
    monkeypatch.setattr(scratch, "_agreed", lambda _, seconds: seconds + 1.0)
    return lambda max_share=100.0, **options: of_points({"scratch": {"maxShare": max_share}}, **options)


def test_random_weights_are_trained_for_as_many_steps(two_arms, tmp_path):
    """The base's weights are random too, so transfer is worth nothing: that stands first."""
    run = two_arms()
    complete(run)
    report = json.loads((tmp_path / "run/report.json").read_text())
    [found] = [one for one in report["decisions"] if one["type"] == "Scratch"]
    assert found["answer"] in ("No", "NotSurely")
    assert "transfer is worth " in found["message"]
    assert " from random weights after as many steps (" in found["message"]
    assert outcome_of(run.job).startswith("Random weights ")
    assert found["seconds"] > 0
    recipe = json.loads((tmp_path / "run/evidence/scratch-equal-steps/recipe.json").read_text())["job"]
    assert (recipe["model"]["initialization"], recipe["strategy"]["type"]) == ("Random", "FullFineTuning")
    [start] = events(tmp_path / "run/evidence/scratch-equal-steps", "start")
    assert start["totalSteps"] == run.plan.total_steps
    assert not list((tmp_path / "run/evidence").glob("*/model"))


def test_random_weights_get_the_epochs_that_a_solver_does_not_take():
    def epochs(*, solved, steps):
        plan = SimpleNamespace(steps_per_epoch=10, phases=[SimpleNamespace(solved=solved)])
        state = SimpleNamespace(phases=[SimpleNamespace(steps=steps)])
        training = SimpleNamespace(training=SimpleNamespace(epochs=3.0))
        run = SimpleNamespace(plan=plan, state=state, job=training)
        return scratch._epochs(run), scratch._solved(run)

    assert (epochs(solved=True, steps=1), epochs(solved=False, steps=20)) == ((3.0, True), (2.0, False))
    assert epochs(solved=True, steps=37) == (3.7, False), "rungs above it have taken more steps: these are what is told"


def test_without_predictions_there_is_nothing_to_compare_with(two_arms, tmp_path, monkeypatch):
    monkeypatch.setattr(Predictions, "write", lambda *_: None)
    complete(two_arms(epochs=1))
    assert (tmp_path / "run/report.json").is_file()
    [warning] = events(tmp_path / "run", "warning")
    assert warning["message"].startswith(
        "spec.evidence.scratch was left out: there are no predictions of the validation data"
    )


def test_where_the_time_is_over_it_is_judged_as_it_is_whatever_rates_have_done(two_arms, tmp_path, monkeypatch):
    def destroyed(other):
        monkeypatch.setattr(Course, "destroyed", lambda *_, **__: True)
        train(other)

    monkeypatch.setattr(scratch, "train", destroyed)
    run = two_arms(max_share=1e-6, epochs=6)
    complete(run)
    [found] = [one for one in run.state.decisions if one.type == "Scratch"]
    assert f" of {run.plan.total_steps} steps, where its time was over (" in found.message
    assert not (tmp_path / "run/evidence/scratch-equal-seconds").exists()


def test_a_link_that_comes_to_lie_there_is_not_followed(two_arms, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(
        Exporter, "write", lambda *_, **__: (tmp_path / "run/evidence").symlink_to(tmp_path / "elsewhere")
    )
    with pytest.raises(JobError, match="evidence is a link"):
        complete(two_arms(epochs=1))
    assert not list((tmp_path / "elsewhere").iterdir())


def diverges(other):
    """Fail as a training of random weights does whose gradients are never finite, in the middle of its phase."""

    after = other.work.after_step

    def fail(step):
        if step == 4:
            raise JobError("NonFiniteGradients", f"at {quoted('a secret')}")
        after(step)

    other.work.after_step = fail
    train(other)


def test_random_weights_that_diverge_lose_nothing_of_the_run(two_arms, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "train", diverges)
    complete(two_arms(after="Delete"))
    assert {path.name for path in (tmp_path / "run").glob("**/step-*")} == {"step-0"}  # what says that they are gone
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert "Scratch" not in [one["type"] for one in report["decisions"]]
    [warning] = events(tmp_path / "run", "warning")
    assert warning["message"] == (
        "spec.evidence.scratch: the training evidence/scratch-equal-steps of random weights failed, and is left out:"
        " at [in the pod's log]"
    )


def test_random_weights_whose_metric_is_never_a_number_are_said_to_have_none(two_arms, tmp_path, monkeypatch):
    def never(other):
        other.predictions.write = lambda *_: None
        train(other)

    monkeypatch.setattr(scratch, "train", never)
    complete(two_arms(epochs=1))
    assert (tmp_path / "run/report.json").is_file()
    [warning] = events(tmp_path / "run", "warning")
    assert warning["message"] == (
        "spec.evidence.scratch could not be computed: RuntimeError: scratch-equal-steps has no predictions of the"
        " validation data: its metric was never a number"
    )


def test_what_has_been_measured_stands_where_a_second_training_fails(two_arms, tmp_path, monkeypatch):
    def later(other):
        (diverges if other.job.output.path.endswith("equal-seconds") else train)(other)

    monkeypatch.setattr(scratch, "train", later)
    monkeypatch.setattr(scratch, "_ALIKE", -1.0)
    run = two_arms()
    complete(run)
    [found] = [one for one in run.state.decisions if one.type == "Scratch"]
    assert " from random weights after as many steps (" in found.message
    assert " as many seconds" not in found.message
    [warning] = events(tmp_path / "run", "warning")
    assert "evidence/scratch-equal-seconds of random weights failed" in warning["message"]


@pytest.mark.parametrize(
    ("workers", "error", "goes_on"),
    [
        (2, JobError("NonFiniteGradients", ""), True),
        (2, JobError("SilentFreeze", ""), True),
        (2, JobError("InvalidData", ""), False),  # the others may not have met it
        (2, MemoryError(), False),
        (1, JobError("InvalidData", ""), True),
        (1, MemoryError(), True),
        (1, Superseded("Superseded", ""), False),
        (1, OSError(), False),
        (1, StopRequested(), False),
    ],
)
def test_only_what_all_ranks_find_alike_is_left_out(monkeypatch, workers, error, goes_on):
    run = Mock(engine=Mock(world_size=workers))
    monkeypatch.setattr(scratch, "_train", Mock(side_effect=error))
    monkeypatch.setattr(scratch, "_died", lambda *_: False)
    with nullcontext() if goes_on else pytest.raises(RuntimeError if isinstance(error, MemoryError) else type(error)):
        assert scratch._tried(run, [], "scratch-equal-steps", 1.0, 1.0) is None
    told = goes_on or isinstance(error, StopRequested)  # a stop is no death
    assert run.folder.events.add.call_count == told


def test_a_training_that_has_ended_its_workers_often_is_left_out(tmp_path, monkeypatch):
    """It may need more memory than the job, and the kernel ends who takes too much: the job's own model would never be reported."""
    begun = [{"name": "scratch-equal-steps"}]
    run = Mock(engine=Mock(rank=0, any_rank=bool), folder=Mock(path=tmp_path))
    run.folder.events.read = lambda _: begun
    assert not scratch._died(run, "scratch-equal-steps")
    begun *= 3
    assert not scratch._died(run, "scratch-equal-seconds")
    monkeypatch.setattr(scratch, "_train", None)
    assert scratch._tried(run, [], "scratch-equal-steps", 1.0, 1.0) is None
    (tmp_path / "evidence/scratch-equal-steps/checkpoints/step-0").mkdir(parents=True)
    assert scratch._died(run, "scratch-equal-steps")
    begun.append(begun[0] | {"stopped": True})
    assert not scratch._died(run, "scratch-equal-steps")
    begun.pop()
    (tmp_path / "evidence/scratch-equal-steps/checkpoints/step-4").mkdir()
    assert not scratch._died(run, "scratch-equal-steps")


def test_a_training_of_random_weights_resumes_where_it_stopped(two_arms, tmp_path, monkeypatch):
    def kill(other):
        kill_at(other, 7)
        train(other)

    monkeypatch.setattr(scratch, "train", kill)
    monkeypatch.setattr(scratch, "_ALIKE", float("inf"))  # one training is enough
    run = two_arms()
    with pytest.raises(Killed):
        complete(run)
    run.saver.close()
    monkeypatch.setattr(scratch, "train", train)
    complete(two_arms())
    first, second = events(tmp_path / "run/evidence/scratch-equal-steps", "start")
    assert (first["step"], second["step"]) == (0, 6)
    assert len([line for line in events(tmp_path / "run", "decision") if line["type"] == "Scratch"]) == 1
    beside = tmp_path / "beside"
    beside.mkdir()
    complete(two_arms(folder=beside))
    metrics = [
        [line["metrics"] for line in events(folder / "run/evidence/scratch-equal-steps", "evaluation")][-1]
        for folder in (tmp_path, beside)
    ]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no vocabulary"), "ValueError: no vocabulary"),
        (
            JobError("InvalidData", "row 3, a picture that training never drew"),
            "row 3, a picture that training never drew",
        ),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
    ],
)
def test_what_fails_there_is_said_and_nothing_is_lost(of_points, tmp_path, monkeypatch, error, said):
    exported = []
    monkeypatch.setattr(Exporter, "write", lambda *_, **__: exported.append(1))

    def fail(*_, **__):
        assert exported  # whatever becomes of this, the model is there
        raise error

    monkeypatch.setattr(evidence, "_baseline", fail)
    complete(of_points({"baseline": {}}, epochs=1))
    assert (tmp_path / "run/report.json").is_file()
    [warning] = events(tmp_path / "run", "warning")
    assert warning["message"] == f"spec.evidence.baseline could not be computed: {said}"


def test_a_stop_meanwhile_is_heard_and_the_next_start_decides_once(of_points, tmp_path, monkeypatch):
    heard = threading.Event()

    def stop(*_, **__):
        run.meter.check_stop = stopped
        heard.wait()
        return found()

    def stopped():
        heard.set()
        raise StopRequested

    def found(*_, **__):
        return Decision(type="Baseline", answer="No", question="Is it?", message="it is not", step=run.plan.total_steps)

    monkeypatch.setattr(beside, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(evidence, "_baseline", stop)
    run = of_points({"baseline": {}}, epochs=1)
    with pytest.raises(StopRequested):
        complete(run)
    run.saver.close()
    monkeypatch.setattr(evidence, "_baseline", found)
    run = of_points({"baseline": {}}, epochs=1)
    assert run.state.step == run.plan.total_steps
    complete(run)
    assert len([line for line in events(tmp_path / "run", "decision") if line["type"] == "Baseline"]) == 1
    assert decision_of(tmp_path / "run")["message"] == "it is not"


def test_who_asks_for_nothing_gets_nothing(of_points, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "_on_first", None)
    complete(of_points(None, epochs=1))
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert "Baseline" not in [one["type"] for one in report["decisions"]]
