"""ImageText: what is lost and measured, what is frozen, that a step is the same however it is divided, and that exports load."""

from __future__ import annotations

import json
import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.jobs import DUAL_ENCODERS, WORDS, bert_folder, dual_encoder_folder, make_job
from tests.trainer.reference import train_by_hand
from unfreeze_api.cli import main
from unfreeze_api.tasks.image_text import ImageTextSpec
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.commands.survey import survey
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.estimates import check
from unfreeze_trainer.estimates.aside import Aside
from unfreeze_trainer.estimates.trace import Traced, trace
from unfreeze_trainer.models import export
from unfreeze_trainer.models.dual_encoder import as_in_library
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.objectives.base import IGNORED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.captions import CaptionContrast, CaptionMetrics, brought, chance_of
from unfreeze_trainer.objectives.targets import encoder
from unfreeze_trainer.objectives.targets.captions import Read
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train

COLOURS = ("how", "what", "who")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Models, and a table of 24 pictures whose colour and brightness their text tells; the first text has two pictures."""
    folder = tmp_path_factory.mktemp("places")
    for kind in DUAL_ENCODERS:
        dual_encoder_folder(folder / kind, kind)
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    rows = []
    for n in range(24):
        pixels = rng.integers(0, 40, (40, 46, 3), dtype=np.uint8)
        pixels[: 5 * (n // 3) + 2, :, n % 3] += 200
        Image.fromarray(pixels).save(folder / "pictures" / f"{n}.png")
        text = f"{COLOURS[n % 3]} {WORDS[5 + n // 3]}" if n else f"{COLOURS[1]} {WORDS[5]}"
        rows.append({"image": f"pictures/{n}.png", "text": text} | ({"kind": COLOURS[n % 3]} if n else {}))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job_of(places, run, kind="clip", options=None, *, data="rows.jsonl", classes=True, **change):
    columns = {"train": {"columns": {"className": "kind"}}} if classes else {}
    task = {"type": "ImageText", "imageText": options or {}}
    spec = {"task": task, "data": columns, "output": {"destination": f"file://{run}"}} | change
    return make_job(places / kind, places / data, **spec)


def learned_of(cells, classes=(), names=()):
    found = encoder("Captions")(Read(np.empty((0, 2), np.int64), np.empty(0, np.int64), []), "train")
    found.encode(
        Read(np.array([*map(list, cells)], dtype=np.int64), np.array(classes or [-1] * len(cells)), list(names)),
        "train",
    )
    return found


# What is lost


def test_the_sigmoid_loss_is_that_of_the_library_where_no_cell_stands_twice(places):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(places / "siglip").eval()
    pixels, ids = torch.randn(5, 3, 32, 32), torch.randint(2, 20, (5, 12), generator=torch.Generator().manual_seed(0))
    job = job_of(places, "/tmp/run", "siglip")
    task = open_task(job)
    module = task.build_model().module.eval()
    with torch.no_grad():
        wanted = model(pixel_values=pixels, input_ids=ids, return_loss=True)
        outputs = module(pixel_values=pixels, input_ids=ids)
        losses = task.objective.losses(outputs, torch.arange(5)[:, None].expand(5, 3))
    torch.testing.assert_close(losses.mean(), wanted.loss)
    torch.testing.assert_close(outputs[:, 0] @ outputs[:, 1].T, wanted.logits_per_image)


def test_the_softmax_loss_is_that_of_the_library_where_no_cell_stands_twice(places):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(places / "clip").eval()
    task = open_task(job_of(places, "/tmp/run"))
    module = task.build_model().module.eval()
    [batch] = task.batches("train", [range(3, 9)])
    given = {"input_ids": batch["text.input_ids"], "attention_mask": batch["text.attention_mask"]}
    with torch.no_grad():
        wanted = model(pixel_values=batch["image.images"], **given, return_loss=True).loss
        outputs = task.forward(module, batch)
    torch.testing.assert_close(task.coupled_losses(outputs, torch.arange(6)[:, None].expand(6, 3)).mean(), wanted)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_rows_with_a_cell_in_common_are_no_negatives_for_each_other(sigmoid):
    vectors = torch.randn(4, 2, 6, generator=torch.Generator().manual_seed(0))
    cells = torch.tensor([[0, 0, -1], [1, 0, -1], [2, 1, -1], [3, 2, -1]])
    loss = CaptionContrast(learned_of(cells[:, :2]), sigmoid=sigmoid, width=6, prompts=1).losses
    before = loss(vectors, cells)[0]
    vectors[1] = -vectors[1]
    torch.testing.assert_close(loss(vectors, cells)[0], before)
    vectors[2] = -vectors[2]
    assert loss(vectors, cells)[0] != before


@pytest.mark.parametrize("kind", DUAL_ENCODERS)
def test_the_factor_of_cosines_stays_at_100_and_may_come_back(places, kind):
    task = open_task(job_of(places, "/tmp/run", kind))
    module = task.build_model().module.eval()
    [batch] = task.batches("train", [range(3)])
    for start, factor in ((math.log(50), 50.0), (math.log(400), 100.0)):
        with torch.no_grad():
            module.logit_scale.fill_(start)
        outputs = task.forward(module, batch)[..., : task.library.width]
        torch.testing.assert_close(outputs.square().sum(dim=-1), torch.full((3, 2), factor))
        with as_in_library(module):
            assert module.logit_scale.exp().item() == pytest.approx(factor)
    outputs.square().sum().backward()
    assert module.logit_scale.grad.item() > 0


@pytest.mark.parametrize("kind", DUAL_ENCODERS)
def test_many_texts_of_a_sample_are_read_a_few_at_a_time(places, kind):
    module = open_task(job_of(places, "/tmp/run", kind)).build_model().module.eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 20, (18, 12), generator=generator)
    given = {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator), "input_ids": ids}
    given |= {"attention_mask": torch.ones_like(ids)} if kind == "clip" else {}
    sizes = []
    hook = module.text_model.register_forward_hook(lambda _, __, found: sizes.append(len(found.pooler_output)))
    with hook, torch.no_grad():
        some = module(**given)
        with patch("unfreeze_trainer.models.dual_encoder._TEXTS", 9):
            torch.testing.assert_close(some, module(**given))
    assert sizes == [8, 8, 2, 18]
    assert some.shape[:2] == (2, 10)


# What is measured


def test_classes_are_told_by_the_mean_of_their_prompts_whoever_brings_them():
    """7 samples bring 3 x 4 prompts, two each, in any order."""
    generator = torch.Generator().manual_seed(0)
    prompts, images = torch.randn(12, 5, generator=generator), torch.randn(7, 5, generator=generator)
    classes = torch.tensor([0, 1, 2, -1, 1, 0, 2])
    learned = learned_of([[n, n] for n in range(7)], classes.tolist(), ("a", "b", "c"))
    samples = torch.randperm(7, generator=generator)
    which = torch.tensor(brought(samples.tolist(), 2, 12)).view(2, 7)
    vectors = torch.stack([images[samples], images[samples], *(prompts[row] for row in which)], dim=1)
    targets = torch.stack([samples, samples, classes[samples]], dim=1)
    metrics = CaptionMetrics(learned, sigmoid=False, width=5, prompts=4)
    rows = metrics.rows(vectors, {TARGETS: targets, SAMPLES: samples})
    padding = {TARGETS: torch.full((1, 3), IGNORED), SAMPLES: torch.tensor([-1])}
    rows = torch.cat([rows, metrics.rows(vectors[:1], padding)])
    unit = functional.normalize(prompts, dim=1).view(3, 4, 5).mean(dim=1)
    told = (images @ functional.normalize(unit, dim=1).T).argmax(dim=1)
    expected = float((told == classes)[classes >= 0].double().mean())
    assert metrics.compute(metrics.new_state(), rows)["zeroShotAccuracy"] == pytest.approx(expected)
    found = metrics.compute(metrics.new_state(), rows[:3])
    assert "zeroShotAccuracy" not in found, "a prompt is missing"
    assert found["imageToTextRecallAt10"] == 1
    for unread in (samples == 2, samples >= 0):  # pictures that cannot be read bring their prompts
        gaps = {TARGETS: targets.masked_fill(unread[:, None], IGNORED), SAMPLES: samples}
        found = metrics.compute(metrics.new_state(), metrics.rows(vectors, gaps))
        if unread.all():
            assert not found
        else:
            there = (classes >= 0) & (torch.arange(7) != 2)
            assert found["zeroShotAccuracy"] == pytest.approx(float((told == classes)[there].double().mean()))
            assert found == metrics.compute(metrics.new_state(), metrics.rows(vectors, gaps)[samples.argsort()])


def test_chance_is_what_guessing_finds():
    assert chance_of(np.array([[n, n] for n in range(10)]), 1) == pytest.approx(0.1)
    assert chance_of(np.array([[n, n] for n in range(4)]), 5) == 1
    one_has_two = np.array([[0, 0], [0, 1], [1, 2], [2, 3], [2, 3]])
    assert chance_of(one_has_two, 1) == pytest.approx(np.mean([1 / 2, 1 / 4, 1 / 4]))


# What is read


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "pictures/0.png", "text": " "}], "no text in column 'text' of row 1; fill in or remove it"),
        ([{"image": "", "text": "a"}], "no picture in column 'image' of row 1; remove it"),
        ([{"image": "pictures/none.png", "text": "a"}], "row 1, column 'image': no such image"),
        ([{"image": "pictures/0.png", "text": ["a", "b"]}], "of several texts each a row of its own"),
        ([{"images": [], "annotations": []}], "the file is in the form of COCO, with images and annotations apart"),
        ([{"image": "pictures/0.png", "text": word} for word in WORDS[:8]], "all have a cell in common"),
    ],
)
def test_what_cannot_be_read_is_named(places, tmp_path, rows, said):
    table = places / f"broken-{abs(hash(said))}.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = job_of(places, tmp_path, data=table.name, classes=False)
    with pytest.raises(JobError) as error:
        look(job)
    assert said in str(error.value)


def test_what_is_cut_or_stands_twice_and_what_guessing_finds_is_said(places, tmp_path):
    text = (places / "rows.jsonl").read_text().splitlines()
    long = json.loads(text[5]) | {"text": " ".join(WORDS)}
    (places / "long.jsonl").write_text("\n".join([*text[:5], json.dumps(long), *text[6:]]) + "\n")
    task = open_task(job_of(places, tmp_path, data="long.jsonl"))
    cut, shared, chance = task.warnings
    assert cut.endswith(
        f"1 of 24 texts in column 'text' have more than the 12 tokens that are read of each, the longest {len(WORDS) + 2}: they are"
        " cut there"
    )
    assert shared.startswith(f"2 of {task.splits['train']} training rows share a text with another row")
    assert chance == (
        "validation, by guessing: recall at 1, 5, 10 image to text 0.167, 0.833, 1; text to image 0.167, 0.833, 1; zero-shot"
        " accuracy of 3 classes 0.333"
    )


def test_another_kind_of_model_and_a_metric_without_classes_are_refused(places, tmp_path):
    bert_folder(places / "bert")
    with pytest.raises(JobError, match="preprocessor_config"):
        look(job_of(places, tmp_path, "bert"))
    with pytest.raises(JobError, match="model_type bert does not see and read as CLIP does"):
        open_task(job_of(places, tmp_path, "bert"))
    job = job_of(places, tmp_path, classes=False, training={"metric": "zeroShotAccuracy"})
    with pytest.raises(JobError, match=r"no row says what its picture shows: name the column in columns\.className"):
        open_task(job)
    with pytest.raises(JobError, match=r"^spec\.training\.batchSize: a step of one sample has nothing"):
        open_task(job_of(places, tmp_path, training={"batchSize": 1}))


def test_an_export_puts_padding_where_training_did(places, tmp_path, monkeypatch):
    """Gemma's tokenizer, which SigLIP 2 of a fixed size has, puts it before a text by itself."""
    from transformers import AutoTokenizer

    monkeypatch.setattr(type(AutoTokenizer.from_pretrained(places / "siglip")), "padding_side", "left", raising=False)
    task = open_task(job_of(places, tmp_path, "siglip"))
    task.modality.save(tmp_path)
    [batch] = task.batches("train", [[0]])
    plain = AutoTokenizer.from_pretrained(tmp_path)
    text = task._splits["train"].source.inputs[0].as_py()["text"]
    read = plain(text, padding="max_length", truncation=True, return_tensors="pt")
    assert torch.equal(read["input_ids"], batch["text.input_ids"])


def test_a_look_and_a_survey_tell_what_there_is(places, tmp_path):
    job = job_of(places, tmp_path)
    assert look(job) == "samples: 18 in train, 6 in validation"
    found = survey(job, count_tokens=None, files=100)
    assert not found.problem
    assert {name: split.files_read for name, split in found.splits.items()} == {"train": 18, "validation": 6}


# Whole jobs


def trained(job, end: bool = False):
    """Train on this rank; return the weights on rank 0 and the metrics."""
    run = open_run(job, open_task(job))
    train(run)
    frozen = job.task.of(ImageTextSpec).image_tower == "Frozen"
    assert (run.task.saved.hits > 0) == (frozen and job.semantics.features == "Cached"), "a frozen tower sees once"
    weights = {name: tensor.clone() for name, tensor in run.engine.weights(run.engine.shapes).items()}
    if end:
        with patch.object(export, "reload", plain_outputs):
            finish(run)
    run.saver.close()
    return weights, run.state.metrics


DIVIDED = {
    "training": {"epochs": 2, "batchSize": 5, "gradientAccumulationSteps": 2, "optimizer": "SGD", "weightDecay": 0}
}
DIVIDED["training"] |= {"evaluate": {"everySteps": 4}}
RATES = {"type": "FullFineTuning", "learningRate": {"head": 5e-2, "backbone": 5e-2}}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "engine"), [("clip", "DDP"), ("siglip", "FSDP")])
def test_two_workers_with_uneven_shares_train_and_measure_as_one_process(ranks, places, tmp_path, kind, engine):
    """18 samples in batches of 5, 3 and 2 a worker, each in two micro batches."""
    options = {"imageTower": "Frozen"} if kind == "clip" else {}
    change = {"strategy": RATES, **DIVIDED, "distribution": {"numNodes": 2, **ENGINES[engine]}}
    job = job_of(places, tmp_path / "run", kind, options, **change)
    task = open_task(job)
    (ours, metrics), _ = ranks.call(trained, job)
    start = {name: tensor.detach().clone() for name, tensor in task.build_model().module.named_parameters()}
    wanted = train_by_hand(job, task, ranks=2)
    assert max((ours[name] - wanted[name]).abs().max().item() for name in ours) < 1e-5
    moved = {name for name in ours if not torch.equal(ours[name], start[name])}
    seeing = {name for name in ours if "vision_model" in name or "visual_projection" in name}
    assert bool(moved & seeing) != bool(options), "a frozen tower stays, another one does not"
    assert moved > {"logit_scale"}
    alone = job_of(places, tmp_path / "alone", kind, options, **change | {"distribution": {}})
    semantics = alone.semantics.model_copy(update={"features": "Computed"})
    assert metrics == pytest.approx(trained(alone.model_copy(update={"semantics": semantics}))[1], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DUAL_ENCODERS)
def test_pictures_are_found_after_training_and_by_the_export(places, tmp_path, kind):
    spec = {
        "training": {"epochs": 8, "batchSize": 18},
        "strategy": RATES | {"learningRate": {"head": 1e-2, "backbone": 5e-3}},
    }
    job = job_of(places, tmp_path / "run", kind, {"prompts": ["{}", "is {}"]}, **spec)
    run = open_run(job, open_task(job))
    before = run.evaluator.measure("train").metrics["loss"]
    train(run)
    assert run.evaluator.measure("train").metrics["loss"] < 0.8 * before
    with patch.object(export, "reload", export.reload if kind == "clip" else plain_outputs):
        finish(run)
    run.saver.close()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["results"]["validation"].keys() == {*CaptionMetrics.names}
    assert any("by guessing" in line for line in report["warnings"])
    pictures_are_told(places, tmp_path / "run")
    again = open_task(job_of(tmp_path / "run", tmp_path / "again", "model", data=places / "rows.jsonl"))
    whole = again.build_model().module.state_dict()
    assert whole["logit_scale"].shape == (1,), "an export is a base"


def pictures_are_told(places, run):
    """Of pictures without texts the classes are predicted, as often rightly as an evaluation with texts counts."""
    rows = [json.loads(row) for row in (places / "rows.jsonl").read_text().splitlines()]
    alone = places / f"alone-{run.parent.name}.jsonl"
    alone.write_text("".join(json.dumps({"image": row["image"]}) + "\n" for row in rows))
    done = CliRunner().invoke(main, ["predict", str(run), str(alone), "--format", "jsonl"])
    assert done.exit_code == 0, done.output
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 24
    assert {row["prediction"] for row in told} <= {*COLOURS}
    assert all(len(row["probabilities"]) == 3 for row in told)
    done = CliRunner().invoke(main, ["evaluate", str(run), str(places / "rows.jsonl"), "--output", "json"])
    assert done.exit_code == 0, done.output
    metrics = json.loads(done.stdout)["metrics"]
    right = np.mean([said["prediction"] == row["kind"] for said, row in zip(told, rows, strict=True) if "kind" in row])
    assert metrics["zeroShotAccuracy"] == pytest.approx(right)
    assert metrics.keys() == {*CaptionMetrics.names}


@pytest.mark.slow
def test_projections_alone_or_an_adapter_train(places, tmp_path):
    """Of SigLIP; of CLIP they are combinations of `test_product`."""
    rates = {"learningRate": {"head": 1e-2}}
    job = job_of(places, tmp_path / "head", "siglip", strategy={"type": "FeatureExtraction", **rates})
    start = {name: tensor.clone() for name, tensor in open_task(job).build_model().module.named_parameters()}
    after, _ = trained(job, end=True)
    parts = ("vision_model.head", "text_model.head", "logit")
    moved = {name for name in after if not torch.equal(after[name], start[name])}
    assert moved
    assert all(any(part in name for part in parts) for name in moved)
    lora = {"adapter": {"type": "LoRA", "lora": {"r": 2}}, "strategy": {"type": "FullFineTuning", **rates}}
    job = job_of(
        places,
        tmp_path / "lora",
        "siglip",
        **lora,
        output={"destination": f"file://{tmp_path}/lora", "exports": ["Adapter", "Merged"]},
    )
    trained(job, end=True)
    assert (tmp_path / "lora" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_what_it_takes_is_estimated(places, tmp_path):
    """With its own loss, whose products grow with the square of the batch; a tower that is frozen has no moments."""
    training = {"batchSize": 12, "gradientAccumulationSteps": 3}
    job = job_of(places, tmp_path, "siglip", {"imageTower": "Frozen"}, training=training)
    task = open_task(job)
    traced = Aside(lambda: trace(job, task, steps_alone=True), Traced).result()
    loaded = task.build_model()
    sizes = {name: one.numel() for name, one in loaded.module.named_parameters()}
    [phase] = traced.phases
    assert traced.parameters == sum(sizes.values())
    assert phase.trainable_parameters == sum(size for name, size in sizes.items() if name not in loaded.locked)
    assert 8 * phase.trainable_parameters <= phase.optimizer <= 9 * phase.trainable_parameters
    assert not check.not_estimated(job)


def test_a_job_is_drafted_for_pictures_with_captions(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in (["--task", "ImageText"], ["--column", "image=image", "--column", "text=text"]):
        done = CliRunner().invoke(main, ["init", str(places / "rows.jsonl"), *given, "--output", "job.yaml", "--force"])
        assert done.exit_code == 0, done.output
        spec = yaml.safe_load((tmp_path / "job.yaml").read_text())["spec"]
        assert spec["task"] == {"type": "ImageText"}
        assert spec["training"]["gradientAccumulationSteps"] == 2
    done = CliRunner().invoke(
        main, ["init", str(places / "rows.jsonl"), "--task", "ImageText", "--column", "text=kinds", "--force"]
    )
    assert done.exit_code == 2, done.output
