"""Guards that change the training: each keeps a budget that is broken without it, the same on any workers and after a kill."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import forgetting_group
from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import Killed, finished, kill_at
from tests.trainer.jobs import (
    WORDS,
    bert_folder,
    decoder_folder,
    image_folder,
    make_job,
    timm_folder,
    write_csv,
    write_dialogues,
)
from tests.trainer.test_forgetting import forgetting_of, masked_base, run_of
from tests.trainer.test_report import REPORT
from unfreeze_api.fingerprint import recipe
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.exports.page import learned_and_lost
from unfreeze_trainer.runs.pull import AIM, LOOKS, MOST, Pull, share_kept, steps_between
from unfreeze_trainer.runs.recipe import FILE, StoredRecipe, open_recipe
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.training.hold import Hold
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.saver import Saver

lost = st.floats(1e-6, 100)
pulls = st.builds(Pull, trend=st.floats(0, MOST), step=st.integers(0, 50))


@given(pulls, lost, st.floats(0, 10), st.integers(51, 90))
def test_the_more_is_lost_the_stronger_is_the_pull(pull, value, more, step):
    one, other = (pull.after(each, 0.1, step) for each in (value, value + more))
    assert 0 <= one.trend <= one.strength <= other.strength <= MOST
    assert one.trend <= other.trend
    assert pull.after(math.nan, 0.1, step) == pull.after(math.inf, 0.1, step) == pull.after(100, 0.1, step)


def test_what_loses_less_than_is_aimed_at_is_not_pulled():
    assert Pull().after(0.0, 0.1, 5) == Pull().after(-1.0, 0.1, 5) == Pull(step=5)
    assert Pull().after(AIM * 0.1, 0.1, 5).strength == pytest.approx(0)


@given(st.floats(1e-4, 0.05), st.sampled_from([1, 2]), st.integers(60, 2000))
def test_the_pull_finds_the_budget(push, power, steps):
    """A distance that grows by `push` a step, and a loss that grows with its power."""
    distance, pull, every = 0.0, Pull(), steps_between(steps, steps)
    reach = (push * steps / 2) ** power
    budget = reach / 3
    for step in range(1, steps + 1):
        factor = 1 - step / steps
        distance = (distance + push * factor) * (1 - pull.strength * factor)
        if step % every == 0:
            pull = pull.after(distance**power, budget, step)
    assert 0.5 * budget < distance**power <= budget


def test_an_evaluation_that_a_stop_cut_short_steers_once():
    """A stop saves what was steered, and the evaluation begins anew: at the same step nothing more is known."""
    found = SimpleNamespace(first=SimpleNamespace(value=0.09))
    hold = object.__new__(Hold)
    hold._forgetting = SimpleNamespace(measure=lambda _: found, budget=0.1)
    state = RunState(step=16, pull=Pull(strength=0.01, trend=0.01, step=10))
    assert hold._steer(state) == 0.09
    steered = state.pull
    assert steered.trend > 0.01
    assert hold._steer(state) == 0.09
    assert state.pull == steered


def test_an_evaluation_writes_over_what_a_stop_saved_before_it():
    """The guard may have brought the weights back meanwhile: what was evaluated is exported, and not what was saved before."""
    engine = Mock(weights=Mock(return_value={}), optimizer_state=Mock(return_value={}))
    saver = Saver(engine, Mock(generation=None), keep=1, newest=Mock(step=4), hook=Mock(), evaluated=2)
    saver.save(RunState(step=4, evaluated_step=2), [])
    saver.save(RunState(), [])  # before the first step
    assert not engine.weights.called
    for _ in range(2):
        saver.save(RunState(step=4, evaluated_step=4), [])
    assert engine.weights.call_count == 1
    saver.close()


HELD = {"budget": 0.1, "guard": "Hold"}
REPLAYED = {"guard": "Replay", "anchor": {"source": "file:///old.csv"}}


@pytest.mark.parametrize("wanted", [HELD, REPLAYED], ids=["Hold", "Replay"])
def test_a_run_folder_is_of_one_guard_that_trains(tmp_path, wanted):
    """The API server lets all of `evidence` be removed and set again while a job is suspended: its run is another one then."""

    def job(forgetting, **more):
        evidence = {"evidence": more | ({"forgetting": forgetting} if forgetting else {})} if forgetting or more else {}
        return make_job("/none", "/none.csv", output={"destination": f"file://{tmp_path}"}, **evidence)

    def begun(one):
        (tmp_path / FILE).write_text(StoredRecipe(fingerprint=one.fingerprint(), job=recipe(one)).model_dump_json())
        manifest = tmp_path / "checkpoints/step-4/manifest.json"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"fingerprint": one.fingerprint()}))

    begun(job(wanted))
    assert open_recipe(job(wanted, baseline={})).begun
    told = rf'belongs to another job: there guard is {{"type": "{wanted["guard"]}", [^{{]*}}, and not set here'
    for other in (job(None), job(None, baseline={}), job({"budget": 0.1, "guard": "Stop"})):
        with pytest.raises(JobError, match=told):
            open_recipe(other)
    begun(job(None))
    with pytest.raises(JobError, match="there guard is not set, and here "):
        open_recipe(job(wanted))


@given(lost, st.floats(0.01, 10))
def test_what_is_kept_of_the_way_is_within_the_budget_if_the_loss_grows_with_it(value, budget):
    kept = share_kept(value, budget)
    assert 0 < kept <= 0.9
    assert kept * value <= max(AIM * budget, 0.9 * value)
    assert share_kept(math.nan, budget) == share_kept(-1.0, budget) == 0.0


@given(st.integers(1, 10**6), st.integers(1, 10**5))
def test_looks_are_some_but_not_many(steps, every):
    between = steps_between(steps, every)
    assert 1 <= between <= every
    assert steps // between >= min(steps, LOOKS)


def test_what_was_learned_is_drawn_against_what_was_lost(tmp_path):
    file = tmp_path / "events.jsonl"
    looks = ((5, 0.5, 0.0), (10, 0.7, 0.1), (15, 0.1, 0.9))
    lines = [{"event": "evaluation", "step": step, "metrics": {"accuracy": value}} for step, value, _ in looks]
    lines += [{"event": "forgetting", "step": step, "lost": lost} for step, _, lost in looks]
    lines += [{"event": "rollback", "to": 10}, {"event": "forgetting", "step": 99, "lost": None}]
    file.write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "forg')
    [chart] = learned_and_lost(file, REPORT)
    assert chart.name == "validation accuracy by what is lost of what the base could"
    assert len(chart.points) == 2
    file.write_text("\n".join(json.dumps(line | ({"lost": 0.0} if "lost" in line else {})) for line in lines[:-1]))
    assert len(learned_and_lost(file, REPORT)[0].points) == 2, "where nothing is lost all lie at 0"
    file.write_text("\n".join(map(json.dumps, lines[:1] + lines[3:4])))
    assert learned_and_lost(file, REPORT) == learned_and_lost(tmp_path / "none", REPORT) == []


# Whole runs

slow = pytest.mark.slow
_one = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture
def questions(tmp_path):
    return write_csv(tmp_path / "train.csv", 80)


@pytest.fixture
def anchor(tmp_path):
    file = tmp_path / "old.csv"
    file.write_text("text\n" + "\n".join(f"{one} {other}" for one in WORDS[:8] for other in WORDS[4:12]) + "\n")
    return {"anchor": {"source": f"file://{file}"}}


@pytest.fixture
def without_exports(monkeypatch):
    """A process that loads an export takes longer than all the rest."""
    monkeypatch.setattr(Exporter, "write", lambda *_, **__: None)


TRAINING = {"epochs": 3, "evaluate": {"everySteps": 10}, "metric": "loss"}


def shown(name, without, guarded):
    """Print what a guard has brought and what it cost."""
    for one, report in (("without", without), (name, guarded)):
        figures = report["results"]["validation"]
        print(one, *(f"{key} {figures[key]:.3f}" for key in ("forgotten", "loss")))
    return [report["results"]["validation"]["forgotten"] for report in (without, guarded)]


@slow
@_one
@pytest.mark.usefixtures("without_exports")
@pytest.mark.parametrize("change", [{}, {"adapter": {"type": "LoRA", "lora": {"r": 2}}}], ids=["all", "LoRA"])
def test_weights_are_held_within_a_budget_that_they_break_without(base, questions, tmp_path, change):
    budget = 0.15
    rate = 2e-2 if change else 1e-3
    for guard in ("Report", "Hold"):
        wanted = {"budget": budget, "guard": guard}
        complete(run_of(base, questions, tmp_path / guard, rate, wanted, training=TRAINING, **change))
    (without, _, first), (found, _, second) = (forgetting_of(tmp_path / name) for name in ("Report", "Hold"))
    before, after = shown("Hold", first, second)
    assert without["answer"] == "Broken"
    assert after <= budget < before
    assert "Each step pulled the weights towards the base's" in found["message"]
    assert second["phases"][0]["steps"] == first["phases"][0]["steps"]  # it trains to its end
    assert found["seconds"] > 0


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_statistics_of_batch_norm_are_held_too(tmp_path):
    data, base = image_folder(tmp_path / "data", per_label=20), timm_folder(tmp_path / "resnet", num_classes=7)
    task = {"task": {"type": "ImageClassification", "imageClassification": {"imageSize": 32}}}
    for guard in ("Report", "Hold"):
        wanted = {"budget": 0.1, "guard": guard}
        complete(run_of(base, data, tmp_path / guard, 3e-2, wanted, **task))
    (_, _, first), (found, _, second) = (forgetting_of(tmp_path / name) for name in ("Report", "Hold"))
    before, after = shown("Hold", first, second)
    assert after <= 0.1 < before
    assert found["message"].endswith(" s")


@slow
@_one
@pytest.mark.usefixtures("without_exports")
@pytest.mark.parametrize("kind", ["features", "LoRA", "words", "classes", "tokens"])
def test_what_is_replayed_is_forgotten_less(base, questions, anchor, tmp_path, kind):
    """By each of the gauges: features that the head reads, words and classes of the base's own head, a language model's tokens."""
    change, data, rate, budget = {}, questions, 1e-3, 0.15
    if kind in ("features", "LoRA"):  # of a base that tells rows apart
        base = bert_folder(tmp_path / "bert", initializer_range=0.3)
    if kind == "LoRA":
        change, rate = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}, 1e-2
    elif kind == "words":
        base, rate = masked_base(tmp_path / "bert"), 1e-2
    elif kind == "classes":
        data, base = image_folder(tmp_path / "data", per_label=20), timm_folder(tmp_path / "resnet", num_classes=7)
        anchor, rate = {"anchor": {"source": f"file://{image_folder(tmp_path / 'old', per_label=20)}"}}, 1e-2
        change = {"task": {"type": "ImageClassification", "imageClassification": {"imageSize": 32}}}
    elif kind == "tokens":
        base, data = decoder_folder(tmp_path / "llama"), write_dialogues(tmp_path / "train.jsonl", 40)
        old = tmp_path / "old.jsonl"
        turns = [(f"{one} {other}", f"{other} {other} {one}") for one in WORDS[:8] for other in WORDS[4:8]]
        said = [[{"role": "user", "content": one}, {"role": "assistant", "content": other}] for one, other in turns]
        old.write_text("".join(json.dumps({"messages": each}) + "\n" for each in said))
        anchor = {"anchor": {"source": f"file://{old}"}}
        change = {"task": {"type": "CausalLM"}}
    training = {"epochs": 6 if kind in ("features", "LoRA") else 3, "batchSize": 4 if kind == "classes" else 8}
    for guard, more in (("Report", {}), ("Replay", {"replay": {"share": 0.5}})):
        wanted = anchor | more | {"budget": budget, "guard": guard}
        complete(run_of(base, data, tmp_path / guard, rate, wanted, training=training, **change))
    (_, one, first), (found, other, second) = (forgetting_of(tmp_path / name) for name in ("Report", "Replay"))
    before, after = shown("Replay", first, second)
    if kind == "classes":  # a base that has learned nothing is of no two minds
        before, after = (figures["KL divergence from the base, in nats"] for figures in (one, other))
    assert after < before - 0.2 * abs(before)
    if kind == "features":
        assert after <= budget < before
    assert "rows of the anchor were replayed, which took" in found["message"]


@slow
@_one
def test_rows_that_are_measured_are_not_replayed(base, questions, anchor, tmp_path):
    wanted = anchor | {"guard": "Replay", "replay": {"share": 0.1}}
    run = run_of(base, questions, tmp_path / "run", 1e-3, wanted, training={"epochs": 3, "batchSize": 10})
    measured, replayed = run.forgetting.look.rows, run.replay._look.rows
    assert not {*measured.tolist()} & {*replayed.tolist()}
    taken = [run.replay.of_step(step) for step in range(run.plan.total_steps)]
    assert [len(rows) for rows in taken] == [1] * run.plan.total_steps
    each = np.bincount(np.concatenate(taken), minlength=len(replayed))
    assert each.max() - each.min() <= 1  # all of them, before one comes again


@slow
@_one
def test_an_anchor_is_large_enough_for_both_or_refused(base, questions, tmp_path):
    few = tmp_path / "few.csv"
    few.write_text("text\n" + "how who\n" * 15)
    wanted = {"anchor": {"source": f"file://{few}"}, "guard": "Replay"}
    with pytest.raises(JobError, match=r"anchor\.source: of 15 rows one half is to be replayed .* give 16 or more"):
        run_of(base, questions, tmp_path / "run", 1e-3, wanted)


GUARDS = {"Hold": {"budget": 0.05, "guard": "Hold"}, "Replay": {"guard": "Replay", "replay": {"share": 0.3}}}


@slow
@_one
@pytest.mark.usefixtures("without_exports")
@pytest.mark.parametrize("guard", GUARDS)
def test_a_killed_run_ends_as_one_that_was_not(base, questions, anchor, tmp_path, guard):
    wanted = GUARDS[guard] | anchor
    training = {"training": {"epochs": 2, "checkpoint": {"everySteps": 5}, "evaluate": {"everySteps": 8}}}
    complete(run_of(base, questions, tmp_path / "whole", 3e-3, wanted, **training))
    run = run_of(base, questions, tmp_path / "killed", 3e-3, wanted, **training)
    kill_at(run, 17)
    with pytest.raises(Killed):
        train(run)
    run.saver.close()
    complete(run_of(base, questions, tmp_path / "killed", 3e-3, wanted, **training))
    (one, first), (other, second) = (finished(tmp_path / name) for name in ("whole", "killed"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert first["results"] == second["results"]


@slow
@_one
@pytest.mark.parametrize("engine", ["DDP", "FSDP"])
@pytest.mark.parametrize("guard", GUARDS)
def test_two_workers_train_what_one_trains(ranks, anchor, tmp_path, engine, guard):
    bert_folder(tmp_path / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3)
    write_csv(tmp_path / "texts.csv", 40)
    wanted = GUARDS[guard] | anchor
    (two, state), _ = ranks.call(forgetting_group.guarded, engine, tmp_path, 2, wanted)
    forget_accelerate()
    one, alone = forgetting_group.guarded("DDP", tmp_path, 1, wanted)
    free, _ = forgetting_group.guarded("DDP", tmp_path, 1, None)
    for name in one.keys() - {name for name in one if name.endswith("key.bias")}:  # softmax takes no notice of them
        values = one[name]
        torch.testing.assert_close(two[name], values, atol=2e-5, rtol=1e-3)
    assert max(float((one[name] - free[name]).abs().max()) for name in one) > 1e-3
    assert state == pytest.approx(alone, rel=0.05)
