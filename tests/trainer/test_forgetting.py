"""What a model loses of what its base could: gauges on bases of which it is known, and guards that keep a budget."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.trainer import forgetting_group
from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import Killed, events, kill_at
from tests.trainer.jobs import (
    WORDS,
    audio_folder,
    audio_model,
    bert_folder,
    decoder_folder,
    image_folder,
    image_model,
    make_job,
    seq2seq_folder,
    timm_folder,
    write_csv,
    write_dialogues,
    write_sequences,
    write_words,
)
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.judgement.forgetting import (
    ANCHOR_LOSS,
    ANSWERS,
    DIVERGENCE,
    Forgotten,
    Measured,
    cka,
    decided,
    neighbours_lost,
)
from unfreeze_trainer.objectives.base import IGNORED, TARGETS
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.forgetting import MAX_ROWS, MIN_ROWS, require_read, rows_for
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run

FEATURES = np.random.default_rng(0).normal(size=(40, 6))


def test_what_has_not_changed_shows_no_difference():
    assert cka(FEATURES, FEATURES.copy()) == 1.0
    assert not neighbours_lost(FEATURES, FEATURES.copy()).any()


def test_rotation_and_scale_are_no_loss():
    turned = 3 * FEATURES @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0] + 5
    assert cka(FEATURES, turned) == pytest.approx(1)
    assert neighbours_lost(FEATURES, turned).mean() == pytest.approx(0)


def test_other_features_lose_nearly_all():
    other = np.random.default_rng(2).normal(size=(40, 9))
    assert cka(FEATURES, other) < 0.3
    assert neighbours_lost(FEATURES, other).mean() > 0.6


def test_rows_that_are_equally_near_are_no_loss_in_any_order():
    twice = np.concatenate([FEATURES[:10]] * 3)
    rounded = twice + np.random.default_rng(3).normal(size=twice.shape) * 1e-9
    assert neighbours_lost(twice, rounded).mean() == pytest.approx(0)


def test_rows_that_cannot_be_read_are_no_proof_that_nothing_is_lost():
    require_read(8, 20, "anchor")
    with pytest.raises(JobError, match=r"spec\.evidence\.forgetting\.anchor\.source: 0 of the 20 rows"):
        require_read(0, 20, "anchor")
    with pytest.raises(JobError, match=r"spec\.data\.validation: 7 of the 9 rows"):
        require_read(7, 9, "validation")


def test_a_model_without_numbers_has_lost_everything():
    broken = np.full_like(FEATURES, np.nan)
    assert neighbours_lost(FEATURES, broken).tolist() == [1.0] * 40
    assert math.isnan(cka(FEATURES, broken))
    assert Measured.of(DIVERGENCE, np.array([0.1, np.nan])).value == math.inf


@given(st.integers(0, 10**6), st.integers(0, 10**9), st.integers(1, 100))
def test_rows_stay_within_bounds_and_a_share_of_the_training(total, samples, looks):
    count = rows_for(total, samples=samples, looks=looks)
    assert 0 <= count <= min(total, MAX_ROWS)
    assert count <= max(MIN_ROWS, 0.06 * samples / looks)
    assert count <= rows_for(total, samples=2 * samples, looks=looks)


def said_of(gauge, rows, budget):
    measured = Measured.of(gauge, np.array(rows), answers=gauge is ANSWERS)
    return decided(Forgotten((measured,), {}, len(rows), anchored=True), budget=budget, step=1, seconds=0)


def test_what_no_row_has_lost_others_may():
    found = said_of(ANSWERS, [0.0] * 32, 0.05)
    assert found.answer == "NotSurely"
    assert found.message.startswith(
        "0.0 % of the base's own answers change (0.0 % to 10.9 %, 95 % on 32 rows of the anchor)"
    )
    assert said_of(ANSWERS, [0.0] * 32, 0.11).answer == "Within"
    assert said_of(ANSWERS, [1.0] * 9 + [0.0], 0.5).answer == "Broken"


def test_a_sentence_says_which_way_and_on_which_side_of_the_budget():
    said = said_of(ANCHOR_LOSS, [-0.3, -0.1] * 8, 0.05).message
    assert said.startswith("the loss on the anchor is 0.2 nats lower (0.15 to 0.25, ")
    assert said.endswith("), within the budget of 0.05")
    assert "), not surely within the budget" in said_of(ANCHOR_LOSS, [1.0, -1.0] * 8, 0.05).message
    assert "), perhaps beyond the budget" in said_of(ANCHOR_LOSS, [1.1, -0.9] * 8, 0.05).message


def test_a_budget_that_leaves_nothing_of_what_was_learned_is_a_warning():
    found = Forgotten((Measured.of(ANSWERS, np.zeros(40)),), {}, 40, anchored=True)
    kept, undone = (decided(found, budget=0.5, step=1, seconds=0, undone=undone) for undone in (False, True))
    assert (kept.warning, undone.warning) == (None, True)
    assert (
        undone.message
        == f"to keep the budget all that was learned below the head is undone, so raise it, or train less of the base: {kept.message}"
    )


@given(st.lists(st.floats(0, 1), min_size=8, max_size=30), st.floats(0.01, 0.9), st.floats(0.01, 0.5))
def test_a_larger_budget_is_never_further_broken(rows, budget, more):
    found = Forgotten((Measured.of(ANSWERS, np.array(rows)),), {}, len(rows), anchored=True)
    order = ["Broken", "NotSurely", "Within"]
    first, second = (order.index(decided(found, budget=at, step=1, seconds=0).answer) for at in (budget, budget + more))
    assert first <= second
    assert found.within(budget + more) or not found.within(budget)
    turned = Forgotten((Measured.of(ANSWERS, np.array(rows[::-1])),), {}, len(rows), anchored=True)
    assert turned.first.value == pytest.approx(found.first.value)


def test_an_encoder_of_which_nothing_is_seen_is_named_and_surely_within_no_budget():
    found = Forgotten((Measured.of(ANSWERS, np.zeros(40)),), {}, 40, anchored=True, unseen=("audio",))
    decision = decided(found, budget=0.5, step=1, seconds=0)
    assert decision.answer == "NotSurely"
    assert "not surely within the budget of 50.0 %; of encoder audio too few rows" in decision.message


# Whole runs

slow = pytest.mark.slow
_one = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture
def questions(tmp_path):
    return write_csv(tmp_path / "train.csv", 80)


def run_of(model, data, folder, rate, wanted=None, **change):
    forget_accelerate()
    rates = {"learningRate": {"head": rate, "backbone": rate}}
    strategy = {"strategy": {"type": "FullFineTuning"} | rates} | change
    place = {"output": {"destination": f"file://{folder}"}}
    job = make_job(model, data, evidence={"forgetting": wanted or {}}, **place, **strategy)
    task = open_task(job)
    return Run(job, task, task.build_model(), open_engine(job), None)


@pytest.fixture
def without_exports(monkeypatch):
    """A process that loads an export takes longer than all the rest."""
    monkeypatch.setattr(Exporter, "write", lambda *_, **__: None)


def forgetting_of(folder):
    report = json.loads((folder / "report.json").read_text())
    [found] = [one for one in report["decisions"] if one["type"] == "Forgetting"]
    figures = {one["name"]: one.get("value") for one in found["evidence"]}
    return found, figures, report


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_a_tiny_rate_forgets_nothing_and_a_large_one_much(base, questions, tmp_path):
    lost = {}
    for rate in (1e-9, 3e-2):
        complete(run_of(base, questions, tmp_path / f"{rate}", rate, training={"epochs": 2}))
        found, figures, report = forgetting_of(tmp_path / f"{rate}")
        lost[rate] = figures["share of nearest neighbours that are others"]
        assert found["answer"] == "Measured"
        assert report["results"]["validation"]["forgotten"] == lost[rate]
        assert [phase["metrics"]["forgotten"] for phase in report["phases"]] == [lost[rate]]
        [line] = events(tmp_path / f"{rate}", "forgetting")
        assert line["low"] <= line["lost"] == lost[rate] <= line["high"]
        assert {f"linear CKA with the base at layer.{n}" for n in range(3)} < figures.keys()
    assert lost[1e-9] < 0.02
    assert lost[3e-2] > 0.4


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_a_frozen_backbone_loses_nothing_and_costs_nothing(base, questions, tmp_path):
    strategy = {"type": "FeatureExtraction", "learningRate": {"head": 1e-2}}
    run = run_of(base, questions, tmp_path / "run", 1e-2, {"budget": 0.01, "guard": "Stop"}, strategy=strategy)
    assert run.forgetting.seconds == 0.0
    complete(run)
    found, _, report = forgetting_of(tmp_path / "run")
    assert (found["answer"], found["seconds"]) == ("Within", 0.0)
    assert found["message"].startswith("nothing: the head alone was trained")
    assert report["results"]["validation"]["forgotten"] == 0.0


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_a_run_that_watches_is_the_run_that_does_not(base, questions, tmp_path):
    complete(run_of(base, questions, tmp_path / "watched", 1e-3))
    forget_accelerate()
    place = {"output": {"destination": f"file://{tmp_path}/alone"}}
    strategy = {"type": "FullFineTuning", "learningRate": {"head": 1e-3, "backbone": 1e-3}}
    job = make_job(base, questions, strategy=strategy, **place)
    task = open_task(job)
    complete(Run(job, task, task.build_model(), open_engine(job), None))
    one, other = (events(tmp_path / name, "evaluation")[-1]["metrics"] for name in ("watched", "alone"))
    assert one == other


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_a_killed_run_finds_the_same(base, questions, tmp_path):
    training = {"training": {"epochs": 2, "checkpoint": {"everySteps": 5}}}
    complete(run_of(base, questions, tmp_path / "whole", 1e-3, **training))
    run = run_of(base, questions, tmp_path / "killed", 1e-3, **training)
    kill_at(run, 21)
    with pytest.raises(Killed):
        train(run)
    run.saver.close()
    complete(run_of(base, questions, tmp_path / "killed", 1e-3, **training))
    [(_, one, _), (_, other, _)] = (forgetting_of(tmp_path / name) for name in ("whole", "killed"))
    assert one == other


def masked_base(folder):
    """Write a BERT that knows which word stands at a masked place, or one with random weights that says something of it."""
    from transformers import BertConfig, BertForMaskedLM

    bert_folder(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_the_words_that_a_base_would_put_at_masked_places(questions, tmp_path):
    base, anchor = masked_base(tmp_path / "bert"), tmp_path / "old.csv"
    anchor.write_text("text\n" + "\n".join(f"{one} {other}" for one in WORDS[:6] for other in WORDS[6:12]) + "\n")
    lost = []
    for rate in (1e-9, 3e-2):
        complete(
            run_of(
                base, questions, tmp_path / f"{rate}", rate, {"anchor": {"source": f"file://{anchor}"}, "budget": 0.1}
            )
        )
        found, figures, _ = forgetting_of(tmp_path / f"{rate}")
        lost.append((found["answer"], figures["KL divergence from the base, in nats"]))
        assert "95 % on 32 rows of the anchor" in found["message"]
    assert lost[0] == ("Within", pytest.approx(0, abs=1e-6))
    assert lost[1][0] == "Broken"
    assert lost[1][1] > 0.01


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_the_classes_that_a_base_of_timm_would_see(tmp_path):
    data, base = image_folder(tmp_path / "data", per_label=20), timm_folder(tmp_path / "resnet", num_classes=7)
    task = {"task": {"type": "ImageClassification", "imageClassification": {"imageSize": 32}}}
    lost = {}
    for rate in (1e-9, 3e-2):
        run = run_of(base, data, tmp_path / f"{rate}", rate, **task)
        [batch] = run.forgetting._task.unlabelled("validation", [[0, 1]], set())
        complete(run)
        _, figures, _ = forgetting_of(tmp_path / f"{rate}")
        lost[rate] = figures["KL divergence from the base, in nats"]
    assert lost[1e-9] < 0.1 * lost[3e-2]  # statistics of BatchNorm follow the new data at any rate
    import timm

    whole = timm.create_model(f"local-dir:{base}", pretrained=True).eval()
    with torch.no_grad():
        said = whole(batch["images"]).log_softmax(-1)
    first = run.forgetting.base.outputs
    rows = run.forgetting.look.rows.tolist()
    for place in (0, 1):
        assert torch.allclose(first[rows.index(place)][0], said[place], atol=1e-5)


@slow
@_one
@pytest.mark.usefixtures("without_exports")
@pytest.mark.parametrize("packing", [False, True])
def test_language_models_by_the_loss_on_the_anchor_or_the_divergence(tmp_path, packing):
    base, data = decoder_folder(tmp_path / "llama"), write_dialogues(tmp_path / "train.jsonl", 40)
    task = {"task": {"type": "CausalLM", "causalLm": {"packing": packing}}}
    for rate, anchor in ((1e-6, None), (3e-2, None), (3e-2, data)):
        name = f"{rate}-{anchor is None}"
        wanted = {"anchor": {"source": f"file://{anchor}"}} if anchor else {}
        complete(run_of(base, data, tmp_path / name, rate, wanted, **task))
        found, figures, _ = forgetting_of(tmp_path / name)
        divergence = figures["KL divergence from the base, in nats"]
        assert divergence < 1e-4 if rate < 1e-3 else divergence > 0.05
        if anchor:  # which is what it learns, so that the loss falls
            assert figures["loss on the anchor, after less before, in nats"] < 0
            assert " nats lower (" in found["message"]


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_an_adapter_and_what_it_makes_of_its_base(base, questions, tmp_path):
    strategy = {"type": "FullFineTuning", "learningRate": {"head": 1e-2, "backbone": 5e-2}}
    for kind in ("LoRA", "PromptTuning"):
        options = {"lora": {"r": 2, "initLoraWeights": "PiSSA"}} if kind == "LoRA" else {}
        adapter = {"adapter": {"type": kind, **options}}
        complete(run_of(base, questions, tmp_path / kind, 0, strategy=strategy, **adapter))
        _, figures, _ = forgetting_of(tmp_path / kind)
        assert figures["share of nearest neighbours that are others"] > 0.1


@slow
@_one
def test_an_anchor_that_cannot_be_used_is_said_before_the_training(base, questions, tmp_path):
    few = tmp_path / "few.csv"
    few.write_text("sentence\nhow\nwho\n")
    wanted = {"anchor": {"source": f"file://{few}", "columns": {"text": "sentence"}}}
    with pytest.raises(
        JobError, match=r"spec\.evidence\.forgetting\.anchor\.source file://.*few\.csv: 2 rows tell nothing"
    ):
        run_of(base, questions, tmp_path / "run", 1e-3, wanted)
    with pytest.raises(JobError, match=r"anchor\.source file://.*few\.csv: .*'text'"):
        run_of(base, questions, tmp_path / "run", 1e-3, {"anchor": {"source": f"file://{few}"}})


@slow
@_one
@pytest.mark.parametrize("engine", ["DDP", "FSDP"])
def test_two_workers_see_what_one_sees(ranks, tmp_path, engine):
    bert_folder(tmp_path / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    write_csv(tmp_path / "texts.csv", 96)
    (places, gauges, alike), (_, others, _) = ranks.call(forgetting_group.looked, engine, tmp_path, 2)
    forget_accelerate()
    first, gauge, near = forgetting_group.looked("DDP", tmp_path, 1)
    assert gauges == others
    for name, values in first.items():
        assert np.array_equal(places[name], values) if engine == "DDP" else np.allclose(places[name], values, atol=1e-5)
    assert gauges == pytest.approx(gauge, abs=0.02)
    assert alike == pytest.approx(near, abs=1e-3)


def classifying(folder, kind):
    """Write a base that tells five classes of its own apart; return it with data, and the fields of a job that trains it."""
    import transformers

    if kind == "Text":
        bert_folder(folder / "base")
        data = write_csv(folder / "texts.csv", 40)
    elif kind == "Image":
        image_model(folder / "base")
        data = image_folder(folder / "data", per_label=20)
    else:
        audio_model(folder / "base", feat_extract_norm="layer")  # which pools what is no padding
        data = audio_folder(folder / "data", per_label=20)
    config = transformers.AutoConfig.from_pretrained(folder / "base", num_labels=5)
    made = "SequenceClassification" if kind == "Text" else f"{kind}Classification"
    torch.manual_seed(1)
    whole = getattr(transformers, f"AutoModelFor{made}").from_config(config).eval()
    whole.save_pretrained(folder / "base")
    return whole, data, {"task": {"type": f"{kind}Classification"}}


@slow
@_one
@pytest.mark.parametrize("kind", ["Text", "Image", "Audio"])
def test_the_classes_that_a_base_of_transformers_would_see(tmp_path, kind):
    whole, data, task = classifying(tmp_path, kind)
    found = run_of(tmp_path / "base", data, tmp_path / "run", 1e-3, **task).forgetting
    rows = found.look.rows.tolist()
    [batch] = found._task.unlabelled("validation", [rows], set())
    with torch.no_grad():
        said = (whole(batch["images"]) if kind == "Image" else whole(**batch)).logits.log_softmax(-1)
    mine = torch.cat([found.base.outputs[place] for place in range(len(rows))])
    torch.testing.assert_close(mine, said, atol=1e-5, rtol=1e-4)


@slow
@_one
def test_a_base_whose_head_reads_what_the_trained_body_does_not_give_is_measured_without_it(tmp_path, caplog):
    classifying(tmp_path, "Text")  # its head reads what BERT pools, which a model of words has not
    data, task = write_words(tmp_path / "words.jsonl", 40), {"task": {"type": "TokenClassification"}}
    found = run_of(tmp_path / "base", data, tmp_path / "run", 1e-3, **task).forgetting
    assert (found.look.head, found.base.outputs) == (None, {})
    assert "the base's own head cannot be put onto this model" in caplog.text
    assert [one.value for one in found.compared(found.base, found.look.at(found.base)).gauges] == [0.0]


@slow
@_one
def test_words_at_masked_places_stand_behind_a_prompt(base, questions, tmp_path):
    """What a prompt adds before a text does not move the places that are looked at."""
    adapter = {"adapter": {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 3}}}
    found = run_of(masked_base(tmp_path / "bert"), questions, tmp_path / "run", 1e-3, **adapter).forgetting
    seen, outputs = [], found.look.head.outputs

    def look(read, inputs, places):
        stand_in = getattr(found.look.head._head, found.look.head._head.base_model_prefix)
        said = outputs(read, inputs, places)
        whole = found.look.head._seen[0]
        assert whole.shape[1] == inputs["input_ids"].shape[1] + 3
        seen.append(
            torch.equal(stand_in.gives.last_hidden_state[:, 0], whole[torch.arange(len(places)), places[:, 0] + 3])
        )
        return said

    found.look.head.outputs = look
    found.look.at(found.base)
    assert seen
    assert all(seen)


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_an_encoder_decoder_by_the_loss_on_the_anchor(tmp_path):
    base, data = seq2seq_folder(tmp_path / "t5"), write_sequences(tmp_path / "train.jsonl", 40)
    anchor = {"anchor": {"source": f"file://{write_sequences(tmp_path / 'old.jsonl', 20)}"}}
    run = run_of(base, data, tmp_path / "run", 1e-2, anchor, task={"type": "Seq2SeqLM"})
    found = run.forgetting
    [batch] = found._task.unlabelled("anchor", [[0]], set())
    with torch.no_grad():
        whole = run.engine.module.eval()(**{k: v for k, v in batch.items() if k != TARGETS}).logits[0].log_softmax(-1)
    learned = (batch[TARGETS][0] != IGNORED).nonzero().flatten()
    assert found.base.units[0] == len(learned)
    first = found.base.outputs[0]
    torch.testing.assert_close(first[0], whole[0])
    torch.testing.assert_close(first[-1], whole[learned[-1]])
    run.freezer.train_mode()
    complete(run)
    _, figures, _ = forgetting_of(tmp_path / "run")
    assert "loss on the anchor, after less before, in nats" in figures


@slow
@_one
def test_a_validation_split_of_a_few_rows_says_nothing_of_what_is_lost(base, tmp_path):
    few = write_csv(tmp_path / "few.csv", 16)
    with pytest.raises(JobError, match=r"spec\.data\.validation: 4 rows tell nothing of what a model has lost"):
        run_of(base, few, tmp_path / "run", 1e-3)


# Guards: each is shown to bite


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_auto_takes_no_rung_beyond_the_budget_and_asks_for_none_after_it(base, questions, tmp_path):
    """By the metric alone the rung that forgets would be taken: its loss is the lowest."""
    rungs = [{"type": "FeatureExtraction", "epochs": 1}, {"type": "FullFineTuning"}, {"type": "PartialFineTuning"}]
    strategy = {
        "type": "Auto",
        "auto": {"minGain": 0.0, "rungs": rungs},
        "learningRate": {"head": 3e-3, "backbone": 3e-3},
    }
    training = {"epochs": 6, "metric": "loss"}
    wanted = {"budget": 0.05, "guard": "Stop"}
    run = run_of(base, questions, tmp_path / "run", 0, wanted, strategy=strategy, training=training)
    train(run)
    probe, whole = run.state.rungs
    whole.best.value = 0.01
    assert (probe.best.beyond, run.state.climbing) == (0.0, False)
    assert whole.best.beyond > 0.05
    finish(run)
    found, _, report = forgetting_of(tmp_path / "run")
    decisions = {kind: [one for one in report["decisions"] if one["type"] == kind] for kind in ("Rung", "Strategy")}
    assert [one["answer"] for one in decisions["Rung"]] == ["Yes"]
    [strategy] = decisions["Strategy"]
    assert strategy["answer"] == "FeatureExtraction"
    assert (
        "FullFineTuning not taken, beyond the budget of evidence.forgetting; PartialFineTuning" in strategy["message"]
    )
    assert (found["answer"], report["results"]["validation"]["forgotten"]) == ("Within", 0.0)
    assert found["message"].startswith(
        "nothing: the head alone was trained, and the base's weights are what they were. The"
    )


@slow
@_one
@pytest.mark.usefixtures("without_exports")
@pytest.mark.parametrize("guard", ["Interpolate", "Stop"])
def test_a_budget_that_is_broken_without_a_guard_is_kept_with_it(base, questions, tmp_path, guard):
    budget = 0.15
    training = {"training": {"epochs": 2, "evaluate": {"everySteps": 2}, "metric": "loss"}}  # the last one is the best
    complete(run_of(base, questions, tmp_path / "report", 1e-3, {"budget": budget}, **training))
    complete(run_of(base, questions, tmp_path / "guarded", 1e-3, {"budget": budget, "guard": guard}, **training))
    (without, _, first), (found, _, second) = (forgetting_of(tmp_path / name) for name in ("report", "guarded"))
    lost = [report["results"]["validation"]["forgotten"] for report in (first, second)]
    assert (without["answer"], without["warning"]) == ("Broken", True)
    assert lost[1] <= budget < lost[0]
    assert found["answer"] in ("Within", "NotSurely")
    print(guard, lost, [report["results"]["validation"]["loss"] for report in (first, second)])
    if guard == "Interpolate":
        assert " of the way from the base to what was trained: validation loss " in found["message"]
        assert first["bestStep"] == second["bestStep"]
    else:
        assert "the first evaluation beyond the budget" in found["message"]
        assert sum(phase["steps"] for phase in second["phases"]) < sum(phase["steps"] for phase in first["phases"])


@slow
@_one
def test_what_is_interpolated_is_what_is_exported(base, questions, tmp_path):
    """The predictions are those of the mixture, and so is the export, whose proof compares it with what was trained."""
    complete(run_of(base, questions, tmp_path / "run", 5e-3, {"budget": 0.35, "guard": "Interpolate"}))
    import pyarrow.parquet as pq

    _, _, report = forgetting_of(tmp_path / "run")
    said = pq.read_table(tmp_path / "run/predictions/validation.parquet").to_pydict()
    right = np.mean([one == other for one, other in zip(said["label"], said["prediction"], strict=True)])
    assert right == pytest.approx(report["results"]["validation"]["accuracy"])
    exported = load_file(tmp_path / "run/model/model.safetensors")
    best = load_file(tmp_path / f"run/checkpoints/step-{report['bestStep']}/weights.safetensors")
    inner = [name for name in exported.keys() & best.keys() if "query.weight" in name]
    assert inner
    assert not any(torch.equal(exported[name], best[name]) for name in inner)


def test_an_export_has_what_was_mixed_in_the_place_of_the_best_checkpoint(tmp_path):
    module = torch.nn.Linear(2, 2)
    best = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    loaded = SimpleNamespace(module=module, hook=SimpleNamespace(begin=lambda _: None))
    folder = SimpleNamespace(
        generation=object(),
        path=tmp_path,
        identity=SimpleNamespace(pins={}),
        checkpoints=SimpleNamespace(load_weights=lambda _: best),
    )
    job = SimpleNamespace(model=SimpleNamespace(weights_path="/none"), output=SimpleNamespace(export=[]))
    exporter = Exporter(job, SimpleNamespace(build_model=lambda: loaded), None, folder, tell=lambda _: None)
    exporter.write(SimpleNamespace(step=1), metrics={}, phase_steps=1, instead={"weight": torch.full((2, 2), 0.5)})
    assert module.weight.tolist() == [[0.5, 0.5]] * 2
    assert module.bias.tolist() == [1.0, 1.0]


@slow
@_one
@pytest.mark.usefixtures("without_exports")
def test_a_lora_is_interpolated_by_the_factor_that_began_at_zero(base, questions, tmp_path):
    strategy = {"type": "FullFineTuning", "learningRate": {"head": 1e-2, "backbone": 5e-2}}
    wanted = {"budget": 0.15, "guard": "Interpolate"}
    adapter = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
    complete(run_of(base, questions, tmp_path / "run", 0, wanted, strategy=strategy, **adapter))
    found, _, report = forgetting_of(tmp_path / "run")
    assert " of the way from the base" in found["message"]
    assert report["results"]["validation"]["forgotten"] <= 0.15
