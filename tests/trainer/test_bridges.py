"""Stages of what joins modalities, what each of its encoders forgets, and that equal inputs compute once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.trainer.complete import complete
from tests.trainer.engine_group import open_run
from tests.trainer.interrupted import Killed
from tests.trainer.jobs import WORDS, bert_folder, decoder_folder, dual_encoder_folder, image_model, make_job, merge
from tests.trainer.stage_group import chained
from unfreeze_api.contracts.resolved.model import tower_keys
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.features.keys import row_keys
from unfreeze_trainer.judgement.forgetting import (
    NEIGHBOURHOODS,
    PAIRS,
    Forgotten,
    Measured,
    decided,
    of_towers,
    pairs_lost,
)
from unfreeze_trainer.judgement.stages import Probed, stage_helps
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.blocks import HEAD, Block
from unfreeze_trainer.models.bridge import Encoders
from unfreeze_trainer.models.captioner import Reader
from unfreeze_trainer.runs.recipe import open_recipe
from unfreeze_trainer.runs.stages import StageResult, after_stages, read_results, stage_jobs, staged_model
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training import stages
from unfreeze_trainer.training.compared import _said, compared
from unfreeze_trainer.training.guards import _line
from unfreeze_trainer.training.stages import Chain, check_stages

FROZEN = {"type": "FeatureExtraction", "learningRate": {"head": 1e-2}}
WHOLE = {"type": "FullFineTuning", "learningRate": {"head": 1e-2, "backbone": 1e-3}}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Models, and tables of pictures whose brightness and colour their text tells: of a stage and of the job; of noise.csv a coin tells."""
    folder = tmp_path_factory.mktemp("places")
    image_model(folder / "vit")
    bert_folder(folder / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    decoder_folder(folder / "decoder", tie_word_embeddings=True)
    dual_encoder_folder(folder / "clip", "clip")
    rng = np.random.default_rng(0)
    for name, rows in (("many", 48), ("own", 24), ("noise", 24)):
        lines = ["image,text"]
        for n in range(rows):
            pixels = rng.integers(0, 20, (40, 40, 3), dtype=np.uint8)
            pixels[: 5 * (n // 3 % 8), :, n % 3] += 200
            Image.fromarray(pixels).save(folder / f"{name}{n}.png")
            told = int(rng.integers(24)) if name == "noise" else n
            lines.append(f"{name}{n}.png,{WORDS[told % 3]} {WORDS[5 + told // 3 % 8]}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def stage_of(places, name, **more):
    return {
        "name": name,
        "data": {"train": {"source": f"file://{places}/{name}.csv"}},
        "training": {"epochs": 2, "batchSize": 12},
    } | more


def job_of(places, run, kind, stages, **change):
    text = "decoder" if kind == "Captioning" else "bert"
    sources = {"Image": places / "vit", "Text": places / text}
    towers = [{"modality": name, "source": f"file://{source}"} for name, source in sources.items()]
    options = {
        "Alignment": {"alignment": {"width": 8}},
        "Captioning": {"captioning": {"features": "Pooled", "prefixLength": 2, "maxLength": 12}},
        "ImageText": {},
    }[kind]
    spec = {
        "model": {} if kind == "ImageText" else {"source": None, "towers": towers},
        "task": {"type": kind} | options,
        "strategy": FROZEN,
        "stages": stages,
        "training": {"epochs": 1, "batchSize": 9, "checkpoint": {"everySteps": 100, "afterSuccess": "Keep"}},
        "output": {"destination": f"file://{run}"},
    }
    return make_job(places / "clip", places / "own.csv", **merge(spec, change))


# What hands on to what


def test_towers_are_named_by_their_modality():
    assert tower_keys(["Image", "Text", "Image", "Audio", "Image"]) == ["image", "text", "image2", "audio", "image3"]


def test_each_tower_starts_where_the_last_stage_that_was_kept_has_left_it(tmp_path):
    places = Path("/models")
    align = {"task": {"type": "Alignment"}, "textEncoder": f"file://{places}/bert"}
    stages = [stage_of(places, "many", **align), stage_of(places, "noise", keep="IfHelps")]
    job = job_of(places, tmp_path / "run", "Captioning", stages)
    first, second = stage_jobs(job)
    assert first.model.tower_paths == [f"{places}/vit", f"{places}/bert"]
    assert first.fingerprint() != job_of(places, tmp_path / "run", "Captioning", stages[1:]).fingerprint()
    assert second.model.tower_paths == [f"{places}/vit", f"{places}/decoder"]
    results = [StageResult(name="many", kept=True, steps=1), StageResult(name="noise", kept=False, steps=1)]
    exports = f"{tmp_path}/run/stages"
    assert after_stages(job, results).model.stage_tower_paths == [f"{exports}/many/model/image", None]
    results[1] = results[1].model_copy(update={"kept": True})
    staged = after_stages(job, results)
    assert staged.model.stage_tower_paths == [f"{exports}/noise/model/{name}" for name in ("image", "text")]
    assert staged.of_tower(1).model.weights_path == f"{exports}/noise/model/text"
    assert staged.fingerprint() == job.fingerprint()


def test_a_stage_of_another_task_is_asked_for_no_texts_and_no_gradient_checkpointing(tmp_path):
    places = Path("/models")
    align = {"task": {"type": "Alignment"}, "textEncoder": f"file://{places}/bert"}
    stages = [stage_of(places, "many", **align), stage_of(places, "noise")]
    training = {"evaluate": {"generate": {"rows": 2}}, "gradientCheckpointing": True}
    job = job_of(places, tmp_path / "run", "Captioning", stages, training=training)
    first, second = (one.training for one in stage_jobs(job))
    assert (first.evaluate.generate, first.gradient_checkpointing) == (None, False)
    assert (second.evaluate.generate.rows, second.gradient_checkpointing) == (2, True)


def test_an_encoder_of_texts_ends_with_its_stages_be_it_of_the_language_models_source(tmp_path):
    places = Path("/models")
    align = {"task": {"type": "Alignment"}, "textEncoder": f"file://{places}/decoder"}
    stages = [stage_of(places, "many", **align), stage_of(places, "noise", **align)]
    job = job_of(places, tmp_path / "run", "Captioning", stages)
    results = [StageResult(name="many", kept=True, steps=1)]
    export = f"{tmp_path}/run/stages/many/model"
    assert after_stages(job, results).model.stage_tower_paths == [f"{export}/image", None]
    second = staged_model(job, stage_jobs(job)[1].model, results, encodes=True)
    assert second.stage_tower_paths == [f"{export}/image", f"{export}/text"]


@pytest.mark.slow
def test_an_error_about_the_encoder_of_a_stage_names_its_field(places, tmp_path):
    stage = stage_of(places, "many", task={"type": "Alignment"}, textEncoder=f"file://{places}/vit")
    job = job_of(places, tmp_path / "run", "Captioning", [stage])
    with pytest.raises(JobError, match=rf"^spec.stages\[0\].textEncoder file://{places}/vit"):
        check_stages(job, open_task)


def test_a_stage_does_not_make_a_model_hear_less_than_what_follows():
    places = Path("/models")
    job = job_of(places, "/tmp/run", "Captioning", [stage_of(places, "many"), stage_of(places, "noise")])
    stages._require_heard(job, [3, 2, 2])
    stages._require_heard(job, [None, None, 4])
    for heard in ([2, 3, 2], [2, 2, None]):
        with pytest.raises(JobError, match=r"^spec.stages\[0\].data.train: .*set spec.task.captioning.maxSeconds"):
            stages._require_heard(job, heard)


def test_an_encoder_is_not_changed_after_a_projector_has_learned_from_it(tmp_path):
    places = Path("/models")
    align = {"task": {"type": "Alignment"}, "textEncoder": f"file://{places}/bert"}
    stages = [stage_of(places, "many"), stage_of(places, "noise", **align)]
    job = job_of(places, tmp_path / "run", "Captioning", stages)
    with pytest.raises(JobError, match=r"^spec.stages\[1\].task: .* that stage many has trained"):
        check_stages(job, open_task)


# Whether it helps


def probed(better, groups, figure="recallAt1"):
    ones = np.ones(len(better))
    parts = np.asarray(better, dtype=float), np.zeros(len(better))
    return Probed.of_rows(*parts, units=ones, groups=np.asarray(groups), figure=figure, seconds=1.0)


def test_rows_with_something_in_common_are_one_witness():
    apart, alike = probed([1, 0] * 8, range(16)), probed([1, 0] * 8, np.arange(16) // 8)
    assert apart.gain == alike.gain == 0.5
    assert apart.low == pytest.approx(0.5 - 1.96 * (0.25 / 15) ** 0.5, abs=1e-3)
    uneven = probed([1] * 8 + [0] * 8, np.arange(16) // 8)
    assert uneven.low < 0 < apart.low, "two witnesses that say the contrary prove nothing"
    alone = probed([1] * 15 + [0], np.zeros(16, dtype=int))
    assert alone.low < 0, "nor does one alone, of however many rows"
    assert stage_helps(alone, name="many", step=1, seconds=1.0).answer == "No"


def test_hits_are_those_of_the_rows_in_whatever_order_they_are_read():
    """Every third text lies where the next picture does, and row 5 cannot be read."""
    count = 40
    lengths = np.random.default_rng(0).permutation(count)
    targets = torch.arange(count).repeat(2, 1).T.clone()
    seen = torch.eye(count)
    read = seen[[(n + 1) % count if n % 3 == 0 else n for n in range(count)]]
    vectors = torch.stack([seen, read], dim=1)
    job = SimpleNamespace(training=SimpleNamespace(seed=0), model=SimpleNamespace(described="x"))
    task = SimpleNamespace(
        splits={"train": count},
        couples=True,
        wide_outputs=False,
        build_model=lambda: SimpleNamespace(module=torch.nn.Identity()),
        lengths=lambda _: lengths,
        groups=lambda _: np.arange(count),
        batches=lambda _, lists: ({"rows": torch.tensor(rows)} for rows in lists),
        forward=lambda _, batch: vectors[batch["rows"]],
        coupled=lambda batch: (batch["rows"] != 5, targets[batch["rows"]]),
    )
    found = _said(job, task)
    assert found.read.tolist() == [n != 5 for n in range(count)]
    assert found.units[found.read].tolist() == [2] * (count - 1)
    assert all(found.scores[n] == 2 for n in range(2, count, 3) if n != 5), "nothing else lies there"
    assert all(found.scores[n] <= 1 for n in range(0, count, 3)), "its text lies where another picture does"
    assert all(found.scores[n] >= 1 for n in range(1, count, 3)), "two texts lie where its picture does"
    vectors[7] = float("nan")
    with pytest.raises(JobError, match=r"^x: on the job's training rows the model gives numbers that are not finite"):
        _said(job, task)


def test_a_loss_that_falls_is_a_gain():
    found = Probed.of_rows(
        np.array([2.0, 4.0]),
        np.array([4.0, 9.0]),
        units=np.array([1, 2]),
        groups=np.arange(2),
        figure="loss",
        seconds=1,
    )
    assert (found.with_stage, found.without, found.gain) == (2.0, pytest.approx(13 / 3), pytest.approx(7 / 3))
    decision = stage_helps(found, name="many", step=1, seconds=1.0)
    assert "the loss is 2.000 nats a token on 2 training rows with it and 4.333 without it, +2.333" in decision.message


# Whole jobs


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_heads_of_pairs_go_on_and_a_stage_of_noise_is_dropped(places, tmp_path, monkeypatch):
    first = stage_of(places, "many", keep="IfHelps", strategy=FROZEN, training={"epochs": 60, "batchSize": 40})
    noise = stage_of(places, "noise", keep="IfHelps", strategy=FROZEN)
    job = job_of(places, tmp_path / "run", "Alignment", [first, noise])
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "_decide", die_at_the_second(Chain._decide))
        with pytest.raises(Killed):
            chained(job)
    assert len(read_results(tmp_path / "run", open_recipe(job).fingerprint)) == 1, "it goes on at the boundary"
    run = chained(job)
    decisions = [one for one in run.state.decisions if one.type == "Stage"]
    assert [one.answer for one in decisions] == ["Yes", "No"], [one.message for one in decisions]
    assert "the model finds what belongs to it of" in decisions[0].message
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "heads.safetensors" in report["base"]["pins"]["files"]
    export = tmp_path / "run" / "stages" / "many" / "model"
    heads, staged = load_file(export / "heads.safetensors"), open_task(run.job).build_model().module
    assert heads.keys() == staged.heads.state_dict().keys()
    assert all(torch.equal(heads[name], value) for name, value in staged.heads.state_dict().items())
    assert staged.factor == pytest.approx(json.loads((export / "bridge.json").read_text())["factor"], rel=1e-5)
    other = open_task(run.job.model_copy(update={"task": job_of(places, "/tmp/run", "Alignment", None, task={
        "alignment": {"projection": "MLP"}}).task})).build_model().module  # fmt: skip
    assert other.heads.state_dict().keys() != heads.keys(), "heads of another kind are new"


def die_at_the_second(whole):
    def decide(chain, result, link):
        if result.name == "noise":
            raise Killed
        return whole(chain, result, link)

    return decide


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_an_encoder_is_aligned_before_it_is_described(places, tmp_path):
    align = {"task": {"type": "Alignment"}, "textEncoder": f"file://{places}/bert", "strategy": WHOLE}
    lora = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
    project = stage_of(places, "many", keep="IfHelps", strategy=FROZEN) | {"name": "project"}
    brief = {"epochs": 1, "batchSize": 18}
    job = job_of(
        places,
        tmp_path / "run",
        "Captioning",
        [stage_of(places, "many", training=brief, **align), project],
        **lora,
        strategy=WHOLE,
    )
    run = chained(job)
    [decision] = [one for one in run.state.decisions if one.type == "Stage"]
    assert decision.answer == "Yes"
    assert "nats a token" in decision.message
    from transformers import AutoModel

    folders = places / "vit", tmp_path / "run/stages/many/model/image"
    first, aligned = (AutoModel.from_pretrained(folder).state_dict() for folder in folders)
    encoder = open_task(run.job).build_model().module.encoder.model.state_dict()
    assert all(torch.equal(encoder[name], value) for name, value in aligned.items())
    assert not all(torch.equal(first[name], value) for name, value in aligned.items())
    assert (tmp_path / "run" / "model" / "captioner.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_model_that_sees_and_reads_goes_on(places, tmp_path):
    stage = stage_of(places, "many", keep="IfHelps", strategy=WHOLE, training={"epochs": 1, "batchSize": 18})
    job = job_of(places, tmp_path / "run", "ImageText", [stage])
    run = chained(job)
    [decision] = [one for one in run.state.decisions if one.type == "Stage"]
    assert (decision.evidence[1].name, decision.evidence[2].name) == ("recallAt1 with many", "recallAt1 without many")
    assert run.job.model.weights_path == (
        f"{tmp_path}/run/stages/many/model" if decision.answer == "Yes" else job.model.path
    )


@pytest.mark.slow
def test_rows_that_cannot_be_read_count_with_neither_model(places, tmp_path):
    (places / "broken.png").write_bytes(b"\x89PNG but no picture")
    lines = (places / "own.csv").read_text().splitlines()
    rows = [line if n != 3 else "broken.png,how" for n, line in enumerate(lines)]
    (places / "broken.csv").write_text("\n".join(rows) + "\n")
    data = {"train": {"source": f"file://{places}/broken.csv"}, "onError": "Skip"}
    job = job_of(places, tmp_path / "run", "ImageText", None, data=data)
    found = compared(job, job, open_task)
    assert (found.gain, found.low, found.high) == (0, 0, 0)
    assert found.rows == open_task(job).splits["train"] - (3 in range(found.rows + 2))


# What is forgotten


def test_the_encoder_that_has_lost_most_comes_first_and_absent_rows_do_not_count():
    rng = np.random.default_rng(0)
    before = {name: rng.normal(size=(40, 6)).astype(np.float32) for name in ("image", "text", "audio")}
    before["audio"][30:] = 0
    now = before | {"text": rng.normal(size=(40, 6)).astype(np.float32), "audio": before["audio"].copy()}
    now["audio"][30:] = 7
    alike, gauges = of_towers(before, now, np.ones(40, dtype=bool))
    assert gauges[0].gauge.name.endswith(", by text")
    assert gauges[0].value > 0.5
    assert [one.value for one in gauges[1:]] == [0, 0]
    assert (alike["image"], alike["audio"]) == (1, 1)
    before["audio"][2:] = 0
    assert len(of_towers(before, now, np.ones(40, dtype=bool))[1]) == 2, "of two rows nothing can be said"


def test_pairs_that_find_each_other_no_more_are_counted_both_ways():
    """Rows 0 and 1 share a picture, so that each finds either text; row 5 cannot be read."""
    pictures = np.eye(6, dtype=np.float32)
    pictures[1] = pictures[0]
    texts = np.eye(6, dtype=np.float32)
    before, kept = {"image": pictures, "text": texts}, np.arange(6) < 5
    assert pairs_lost(before, before, kept).tolist() == [0] * 5
    turned = {"image": pictures, "text": texts[[0, 1, 3, 2, 4, 5]]}
    assert pairs_lost(before, turned, kept).tolist() == [0, 0, 1, 1, 0]
    assert pairs_lost(turned, before, kept).tolist() == [0, 0, -1, -1, 0], "what is found now that was not"
    assert pairs_lost(before, {"image": pictures, "text": texts * np.nan}, kept).tolist() == [1] * 5
    gauges = Measured.of(PAIRS, pairs_lost(before, turned, kept)), Measured(NEIGHBOURHOODS, 0.1, 0, 0.2)
    said = decided(Forgotten((gauges[1], gauges[1], gauges[0]), {}, 5, anchored=True), budget=None, step=1, seconds=0)
    assert said.message.endswith("; 40.0 % fewer of the anchor's pictures and texts find each other")


def forgotten(places, run, kind, wanted, monkeypatch, **change):
    """Train; return the decision and its figures by name."""
    monkeypatch.setattr(Exporter, "write", lambda *_, **__: None)
    anchor = {"anchor": {"source": f"file://{places}/many.csv"}}
    done = open_run(
        job := job_of(places, run, kind, None, evidence={"forgetting": anchor | wanted}, **change), open_task(job)
    )
    complete(done)
    done.saver.close()
    [found] = [one for one in done.state.decisions if one.type == "Forgetting"]
    return found, {one.name.rpartition(" ")[2]: one.value for one in found.evidence if one.name.startswith("share")}


FAST = {"type": "FullFineTuning", "learningRate": {"head": 3e-2, "backbone": 3e-2}}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_budget_holds_for_each_encoder(places, tmp_path, monkeypatch):
    wanted = {"budget": 0.05, "guard": "Interpolate"}
    found, shares = forgotten(places, tmp_path / "run", "Alignment", wanted, monkeypatch, strategy=FAST)
    assert shares.keys() == {"image", "text"}
    assert max(shares.values()) <= 0.05
    assert "of the way from the base to what was trained" in found.message
    assert "95 % on 32 rows of the anchor" in found.message


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_heads_that_the_base_has_brought_can_lose_something(places, tmp_path, monkeypatch):
    """Of a model that sees and reads, whose projections are its own; a tower that is frozen loses nothing."""
    frozen = {"imageText": {"imageTower": "Frozen"}}
    rates = {"type": "FeatureExtraction", "learningRate": {"head": 0.3}}
    found, shares = forgotten(places, tmp_path / "run", "ImageText", {}, monkeypatch, strategy=rates, task=frozen)
    assert shares["image"] == 0 < shares["text"]
    assert "of the anchor's pictures and texts find each other" in found.message
    assert found.evidence[0].name.endswith("by text")


@pytest.mark.parametrize("of_base", [True, False])
def test_a_head_that_the_base_has_brought_is_mixed_beside_an_adapter(of_base):
    """Of LoRA's factors the one that was zero at first alone lies on the line; the head trains whole beside them."""
    module = torch.nn.Module()
    for name, values in {"down": torch.ones(2), "up": torch.zeros(2), "head": torch.ones(2)}.items():
        module.register_parameter(name, torch.nn.Parameter(values))
    blocks = [Block("layer.0", ("down", "up")), Block(HEAD, ("head",))]
    loaded = LoadedModel(module, blocks, frozenset(["down", "up", "head"]))
    run = SimpleNamespace(task=SimpleNamespace(heads_of_base=of_base, build_model=lambda: loaded))
    line = dict(_line(run, dict.fromkeys(["down", "up", "head"], torch.full((2,), 3.0))))
    assert list(line) == (["up", "head"] if of_base else ["up"])


# What computes once


def test_encoders_compute_equal_inputs_once_where_they_are_asked_to():
    seen: list[int] = []

    def features(module, inputs):
        seen.append(len(inputs["x"]))
        return module(inputs["x"])

    encoders = Encoders({"image": torch.nn.Linear(4, 3)}, {"image": features}, {"image": "image"}).eval()
    values = torch.randn(4, 4)
    batches = [values[[0, 1, 0, 1]], values[[1, 2]], values[[2, 1]]]
    wanted = [encoders({"image.x": batch})[0] for batch in batches]
    seen.clear()
    with encoders.remembering(row_keys), torch.no_grad():
        found = [encoders({"image.x": batch})[0] for batch in batches]
        present = {"image.x": values[[3, 0]], "image.present": torch.tensor([False, True])}
        assert encoders(present)[0][0].eq(0).all()
    assert seen == [2, 1, 1, 1], "one at least, so that all workers compute alike"
    torch.testing.assert_close(found, wanted)
    encoders({"image.x": batches[0]})
    assert seen[-1] == 4
    reader = Reader(torch.nn.Linear(4, 3), lambda module, inputs: features(module, inputs)[:, None])
    seen.clear()
    with reader.remembering(row_keys), torch.no_grad():
        found = [reader({"x": batch}) for batch in batches]
    assert seen == [2, 1, 1], "that of a captioner likewise: several texts of a picture"
    torch.testing.assert_close(found, [reader({"x": batch}) for batch in batches])
