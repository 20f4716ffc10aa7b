"""Stages: intermediate tasks before the job's own, kept where they help, resumed wherever they are cut off."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.trainer import stage_group
from tests.trainer.interrupted import Killed, events, kill_at
from tests.trainer.stage_group import chain_job, chained, left, stage, write_inputs
from unfreeze_api.contracts.progress import PhaseResult, Progress
from unfreeze_api.contracts.resolved import ResolvedGuard
from unfreeze_trainer.agent.finished import finished_before
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.judgement.stages import Probed, stage_helps
from unfreeze_trainer.link import Link
from unfreeze_trainer.runs.recipe import open_recipe
from unfreeze_trainer.runs.stages import StageResult, after_stages, naming, read_results, stage_jobs
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training import stages
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.stages import Chain, StageLink, check_stages

PROBED = Probed(with_stage=0.8, without=0.7, low=0.02, high=0.18, rows=100, seconds=1.0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def job_of(inputs, folder, **change):
    short = {"rate": 1e-3, "epochs": 0.5, "batch": 12}
    return chain_job(
        inputs, folder, [stage(inputs, "help", keep="Always", **short), stage(inputs, "harm", **short)], **change
    )


def stage_data(train, validation):
    return {"train": {"source": f"file://{train}"}, "validation": {"source": f"file://{validation}"}}


def decided(probed):
    return stage_helps(probed, name="domain", step=5, seconds=2.0)


def test_a_stage_is_kept_where_a_gain_is_nine_times_as_likely_as_none():
    assert (decided(PROBED).answer, decided(PROBED).step) == ("Yes", 5)
    assert decided(PROBED).message.startswith("stage domain helps, with probability 0.99: ")
    found = decided(replace(PROBED, low=-0.2, high=0.4))
    assert found.answer == "No"
    assert "is dropped, it helps with probability 0.74 where 0.9 is asked for" in found.message
    assert "+0.100 (-0.200 to +0.400)" in found.message
    assert found.alternative.startswith("keep")
    assert len(found.message) <= 1024


def test_more_evidence_for_a_stage_never_drops_it():
    answers = [decided(replace(PROBED, with_stage=0.7 + gain / 100)).answer for gain in range(-20, 20)]
    assert answers == sorted(answers)
    assert set(answers) == {"No", "Yes"}
    same = replace(PROBED, with_stage=0.7, low=0.0, high=0.0)
    assert (decided(same).answer, decided(replace(same, with_stage=0.71)).answer) == ("No", "Yes")


def test_stages_are_jobs_with_those_before_them(inputs, tmp_path):
    job = job_of(inputs, tmp_path / "run")
    first, second = stage_jobs(job)
    assert (first.stages, [one.name for one in second.stages]) == (None, ["help"])
    assert first.output.path == f"{tmp_path}/run/stages/help"
    assert (first.training.batch_size, first.training.epochs, first.training.optimizer) == (12, 0.5, "AdamW")
    assert len({one.fingerprint() for one in (first, second, job)}) == 3
    guarded = job.model_copy(update={"guard": ResolvedGuard(type="Hold", budget=0.1)})
    assert [one.guard for one in stage_jobs(guarded)] == [None, None]  # which is about the job's own base
    kept = [StageResult(name="help", kept=True, steps=8), StageResult(name="harm", kept=False, steps=2)]
    staged = after_stages(job, kept)
    assert staged.model.weights_path == f"{tmp_path}/run/stages/help/model"
    assert staged.fingerprint() == job.fingerprint()
    assert after_stages(job, kept[1:]).model.weights_path == job.model.path


def test_errors_name_the_field_of_the_stage(inputs, tmp_path):
    job = job_of(inputs, tmp_path / "run")
    with (
        pytest.raises(JobError, match=r"^spec.stages\[1\].data.train.source a: no, see spec.model.source"),
        naming(job, 1),
    ):
        raise JobError("InvalidData", "spec.data.train.source a: no, see spec.model.source")
    with pytest.raises(JobError, match=r"^spec.stages\[0\] \(help\): no$"), naming(job, 0):
        raise JobError("InvalidData", "no")


def test_whether_a_stage_helps_is_asked_of_the_jobs_own_data(inputs, tmp_path, monkeypatch):
    def unread(*_):
        raise JobError("InvalidData", "spec.data.train: 3 of the 20 rows can be read")

    monkeypatch.setattr(Chain, "_stage", lambda *_: StageResult(name="harm", kept=True, steps=2))
    monkeypatch.setattr(Chain, "_decide", unread)
    chain = Chain.__new__(Chain)
    chain._job, chain._link = job_of(inputs, tmp_path / "run"), None
    chain._results = [StageResult(name="help", kept=True, steps=8)]
    with pytest.raises(JobError, match=r"^spec.stages\[1\] \(harm\): spec.data.train: 3 of"):
        chain.train()


def test_what_a_stage_says_is_said_of_the_job(tmp_path):
    before = [
        StageResult(
            name="one", kept=True, steps=3, phases=[PhaseResult(name="all", steps=3, seconds=1, trainable_parameters=5)]
        )
    ]
    before[0].decision = decided(PROBED)
    link = Link(tmp_path)
    ended = before[0].phases
    StageLink(link, 2, 3, "two", before).write_progress(
        Progress(activity="Done", step=1, results={"validation.loss": 1}, phases=ended)
    )
    said = link.read_progress()
    assert (said.stage, said.activity, said.results) == ("2 of 3: two", "Exporting", {})
    assert [one.name for one in said.phases] == ["one.all", "two.all"], (
        "a status would list one that is renamed later twice"
    )
    assert [one.answer for one in said.decisions] == ["Yes"]
    StageLink(link, 3, 3, "the job itself", before).write_progress(Progress(activity="Done", step=1, phases=ended))
    last = link.read_progress()
    assert (last.activity, last.stage) == ("Done", "3 of 3: the job itself")
    assert [one.name for one in last.phases] == ["one.all", "all"]


def test_data_of_every_stage_is_read_before_anything_is_trained(inputs, tmp_path):
    (tmp_path / "bad.csv").write_text("text,other\na,b\n")
    late = stage(tmp_path, "bad")
    job = chain_job(inputs, tmp_path / "run", [stage(inputs, "help"), late])
    with pytest.raises(JobError, match=r"^spec.stages\[1\].data.train.source .*/bad.csv"):
        check_stages(job, open_task)
    (tmp_path / "few.csv").write_text("text,label\n" + "how,a\nwho,b\n" * 4)
    job = chain_job(tmp_path, tmp_path / "run", [stage(inputs, "help")])
    train = {"train": job.data.train.model_copy(update={"path": f"{tmp_path}/few.csv"})}
    model = {"path": f"{inputs}/bert"}
    job = job.model_copy(
        update={"data": job.data.model_copy(update=train), "model": job.model.model_copy(update=model)}
    )
    with pytest.raises(JobError, match=r"^spec.stages\[0\].keep: 6 rows in spec.data.train are too few"):
        check_stages(job, open_task)


def test_rows_that_a_stage_learns_before_they_are_measured_on_are_counted(inputs, tmp_path):
    assert check_stages(job_of(inputs, tmp_path / "run"), open_task) == {}
    lines = (inputs / "own.csv").read_text().splitlines()
    (tmp_path / "same.csv").write_text("\n".join(lines) + "\n")
    job = chain_job(
        inputs,
        tmp_path / "run",
        [stage(tmp_path, "same", keep="Always", data=stage_data(tmp_path / "same.csv", tmp_path / "held.csv"))],
        data={"test": {"source": f"file://{tmp_path}/held.csv"}},
    )
    (tmp_path / "held.csv").write_text("\n".join(lines[:6]) + "\n")
    assert check_stages(job, open_task) == {"validation in stage same": 20, "test in stage same": 5}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_stage_that_helps_is_kept_and_one_that_harms_is_dropped(inputs, tmp_path):
    both = [stage(inputs, "help"), stage(inputs, "harm", rate=0.1, epochs=3)]
    decisions, _ = stage_group.trained(inputs, tmp_path / "run", both)
    assert decisions == [("Yes", 60), ("No", 72)]
    report = json.loads((tmp_path / "run/report.json").read_text())
    found = [one for one in report["decisions"] if one["type"] == "Stage"]
    assert [one["question"] for one in found] == [
        f"Does the intermediate stage {name} help?" for name in ("help", "harm")
    ]
    gains = [one["evidence"][0] for one in found]
    assert gains[0]["low"] > 0 > gains[1]["high"]
    lines = events(tmp_path / "run", "decision")
    assert [line["answer"] for line in lines if line["type"] == "Stage"] == ["Yes", "No"]  # each once
    # The job starts from what the first has left, of which it knows the hashes.
    weights = json.loads((tmp_path / "run/report.json").read_text())["base"]["pins"]["files"]["model.safetensors"]
    assert (
        weights
        == json.loads((tmp_path / "run/stages/help/model/unfreeze.json").read_text())["files"]["model.safetensors"]
    )


def _die(*_, **__):
    raise Killed


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_an_adapter_auto_and_evidence_after_a_stage_with_an_adapter(inputs, tmp_path):
    first = stage(inputs, "help", keep="Always", epochs=0.25, adapter={"type": "LoRA", "lora": {"r": 2}})
    change = {"adapter": {"type": "LoRA", "lora": {"r": 2}}, "evidence": {"baseline": {}, "scratch": {}}}
    job = chain_job(inputs, tmp_path / "run", [first], strategy={"type": "Auto"}, **change)
    chained(job)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert {"Strategy", "Baseline", "Scratch"} <= {one["type"] for one in report["decisions"]}
    assert json.loads((tmp_path / "run/stages/help/report.json").read_text())["exports"][0]["kind"] == "Merged"
    base = json.loads((tmp_path / "run/model/adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == f"{tmp_path}/run/stages/help/model"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_stage_that_is_asked_to_stop_goes_on(inputs, tmp_path, undisturbed):
    job, link = job_of(inputs, tmp_path / "run"), Link(tmp_path)
    link.request_stop()
    with pytest.raises(StopRequested):
        chained(job, link)
    said = link.read_progress()
    assert (said.stage, said.checkpoint.step) == ("1 of 3: help", said.step)
    assert read_results(tmp_path / "run", open_recipe(job).fingerprint) == []
    chained(job)
    tensors = left(tmp_path / "run")
    assert [name for name in undisturbed[0] if not torch.equal(tensors[name], undisturbed[0][name])] == []


def cut_off(monkeypatch, job, where):
    """Train a job with stages until a SIGKILL would have hit it."""
    with monkeypatch.context() as patch:
        if where == "within":
            patch.setattr(stages, "train", lambda run: (kill_at(run, 5), train_of_run(run)))
        elif where == "before the record":
            patch.setattr(Chain, "_add", _die)
        elif where == "before the second decision":
            patch.setattr(stages, "stage_helps", _die)
        with pytest.raises(Killed):
            chained(job, train=lambda chain: (chain.train(), _die()))


train_of_run = stages.train


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    torch.set_num_threads(1)
    chained(job_of(inputs, folder))
    return left(folder), json.loads((folder / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "where", ["within", "before the record", "before the second decision", "before the job itself"]
)
def test_a_job_resumes_bit_for_bit_at_each_boundary(inputs, tmp_path, monkeypatch, undisturbed, where):
    job = job_of(inputs, tmp_path / "run")
    cut_off(monkeypatch, job, where)
    done = len(read_results(tmp_path / "run", open_recipe(job).fingerprint))
    assert done == {"within": 0, "before the record": 0, "before the second decision": 1}.get(where, 2)
    chained(job)
    tensors, report = left(tmp_path / "run"), json.loads((tmp_path / "run/report.json").read_text())
    assert [name for name in undisturbed[0] if not torch.equal(tensors[name], undisturbed[0][name])] == []
    assert report["results"] == undisturbed[1]["results"]
    starts = [len(events(tmp_path / "run/stages" / name, "start")) for name in ("help", "harm")]
    assert starts == [2 if where == "within" else 1, 1]  # what is finished is not run again
    assert finished_before(job).stage == "3 of 3: the job itself"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_workers_decide_as_one(ranks, inputs, tmp_path):
    both = [stage(inputs, "help"), stage(inputs, "harm", rate=0.1, epochs=3)]
    one, other = ranks.call(stage_group.trained, inputs, tmp_path / "two", both, 2)
    assert one == other == ([("Yes", 60), ("No", 72)], [4])


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("boundary", [("_add", 0), ("_decide", 1), ("job", 2)], ids=str)
def test_a_suspend_at_each_boundary_lets_another_number_of_workers_go_on(
    ranks, inputs, tmp_path, monkeypatch, boundary
):
    before, over = boundary
    job, link = job_of(inputs, tmp_path / "run"), Link(tmp_path)

    def asked(chain, *given):
        if len(chain._results) == over:
            link.request_stop()
        return getattr(Chain, f"own{before}")(chain, *given)

    if before != "job":
        monkeypatch.setattr(Chain, f"own{before}", getattr(Chain, before), raising=False)
        monkeypatch.setattr(Chain, before, asked)
    with pytest.raises(StopRequested):
        chained(job, link, train=lambda chain: (chain.train(), link.request_stop()))
    monkeypatch.undo()
    done = len(read_results(tmp_path / "run", open_recipe(job).fingerprint))
    assert done in {"_add": (1,), "_decide": (1, 2), "job": (2,)}[before], "what is over when the stop is heard is kept"
    two = ranks.call(stage_group.resumed, job_of(inputs, tmp_path / "run", world=2))
    assert two == [(2, ["start"]), (2, ["start"])]
    starts = [len(events(tmp_path / "run/stages" / name, "start")) for name in ("help", "harm")]
    assert starts[1] == (2 if before == "_add" else 1), "no more than what was cut off is begun again"
