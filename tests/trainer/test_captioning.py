"""Captioning: what is read and learned, what is frozen, what is refused before training, and that an export writes without Unfreeze."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from tests.trainer.engine_group import open_run
from tests.trainer.jobs import (
    WORDS,
    audio_model,
    decoder_folder,
    image_model,
    make_job,
    merge,
    timm_folder,
    write_speech,
)
from unfreeze_api.cli import main
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.data.caption_tokens import CaptionTokens
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.estimates import check
from unfreeze_trainer.estimates.aside import Aside
from unfreeze_trainer.estimates.estimate import estimate_of
from unfreeze_trainer.estimates.room import Room
from unfreeze_trainer.estimates.trace import Traced, trace
from unfreeze_trainer.models import captioner_layers, export
from unfreeze_trainer.models.activations import checkpoint_activations
from unfreeze_trainer.models.captioner_layers import Projector, fewer, places_of
from unfreeze_trainer.models.folders import writes_texts
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.models.text import load_tokenizer
from unfreeze_trainer.objectives.base import IGNORED, TARGETS
from unfreeze_trainer.objectives.targets import encoder
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train

pytestmark = pytest.mark.slow  # models are built

LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
ROWS = 16


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Models, and pictures that two rows each say something of, and ask something."""
    folder = tmp_path_factory.mktemp("places")
    timm_folder(folder / "timm", "resnet10t", num_classes=3)
    image_model(folder / "vit")
    audio_model(folder / "whisper", "whisper")
    audio_model(folder / "wav2vec2")
    decoder_folder(folder / "decoder", tie_word_embeddings=True)
    write_speech(folder / "spoken", rows=12)
    rng = np.random.default_rng(0)
    rows = []
    for n in range(ROWS):
        pixels = rng.integers(0, 60, (40, 46, 3), dtype=np.uint8)
        pixels[: 4 * (n // 2), :, n % 3] += 150
        Image.fromarray(pixels).save(folder / f"{n}.png")
        rows.append({"image": f"{n // 2}.png", "prompt": f"{WORDS[n % 4]}?", "text": f"{WORDS[n // 2]} {WORDS[n % 3]}"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job_of(places, run, encoder="timm", language="decoder", data="rows.jsonl", **change) -> ResolvedJob:
    kind = "Audio" if encoder in ("whisper", "wav2vec2") else "Image"
    options = {"prefixLength": 3, "imageSize": 64 if encoder == "timm" else None, "maxLength": 16}
    spec = {
        "model": {
            "source": None,
            "towers": [
                {"modality": "Text", "source": f"file://{places / language}"},
                {"modality": kind, "source": f"file://{places / encoder}"},
            ],
        },
        "task": {"type": "Captioning", "captioning": options},
        "strategy": {"type": "LinearProbeThenFineTune", "learningRate": {"head": 1e-2}},
        "training": {"epochs": 4, "batchSize": 12},
        "output": {"destination": f"file://{run}"},
    }
    return make_job("none", places / data, **merge(spec, change))


# What is read


@pytest.fixture(scope="module")
def tokenizer(places):
    return load_tokenizer(str(places / "decoder"), "the model")


def tokens_of(tokenizer, texts, prompts=None, most=16):
    return CaptionTokens(
        tokenizer,
        pa.chunked_array([prompts]) if isinstance(prompts, list) else prompts,
        pa.chunked_array([texts]),
        most,
        end=tokenizer.eos_token_id,
        remedy="raise it",
    )


def test_the_text_alone_is_learned_with_its_end_and_what_is_cut_does_not_end(tokenizer):
    whole = tokens_of(tokenizer, [" who is "], ["what?"])
    ids, learned = whole.of(0)
    assert tokenizer.decode(ids[:-learned]) == "what?"
    assert tokenizer.decode(ids[-learned:]) == " who is<|im_end|>"
    same = tokens_of(tokenizer, ["who is"], "what?")
    assert same.of(0)[0].tolist() == ids.tolist()
    cut = tokens_of(tokenizer, ["who is"], most=2)
    assert (cut.lengths.tolist(), cut.learned.tolist(), (cut.beyond > 0).tolist()) == ([2], [2], [True])
    assert tokenizer.eos_token_id not in cut.of(0)[0]
    assert tokens_of(tokenizer, ["who is"]).of(0)[0][-1] == tokenizer.eos_token_id
    assert [tokens_of(tokenizer, [text, "who"]).ended for text in ("who<|im_end|>", "who")] == [1, 0]


def test_a_prompt_that_leaves_nothing_of_the_text_is_named(tokenizer):
    found = tokens_of(tokenizer, ["who", "who"], ["what?", "what what what what what what?"], most=5)
    [(row, asks, why)] = found.wrong
    assert (row, asks) == (1, True)
    assert "of the 5 that are kept of a row none is left for the text: raise it" in why


def test_groups_are_the_same_whatever_numbers_a_process_gives_its_pictures():
    kind = encoder("Descriptions")
    found = [kind(np.zeros(0), "data").encode(np.array(read), "data").groups for read in ([5, 2, 5, 9], [0, 7, 0, 3])]
    assert [groups.tolist() for groups in found] == [[0, 1, 0, 2]] * 2


@pytest.mark.parametrize(
    ("rows", "change", "said"),
    [
        ([{"image": "0.png"}], {}, "text"),
        ([{"image": "0.png", "text": " "}], {}, "no text in column 'text' of row 1; fill in or remove it"),
        ([{"image": "", "text": "a"}], {}, "no picture in column 'image' of row 1; remove it"),
        ([{"image": "none.png", "text": "a"}], {}, "row 1, column 'image': no such image"),
        ([{"image": "rows.jsonl", "text": "a"}], {}, "it is no picture"),
        (
            [{"image": "0.png", "text": "a", "prompt": "b"}, {"image": "1.png", "text": "a"}],
            {"annotation": "Answers"},
            "no text in column 'prompt' of row 2; fill in or remove it",
        ),
    ],
)
def test_what_cannot_be_read_is_named(places, tmp_path, rows, change, said):
    table = places / f"broken-{abs(hash(said))}.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(JobError) as error:
        look(job_of(places, tmp_path, data=table.name, task={"captioning": change}))
    assert said in str(error.value)


def test_a_fraction_holds_out_whole_pictures(places, tmp_path, caplog):
    assert look(job_of(places, tmp_path)) == "samples: 12 in train, 4 in validation"
    assert not caplog.records
    for singles in (1, 0):
        pictures = [0] * (ROWS - singles) + [*range(1, singles + 1)]
        rows = [{"image": f"{picture}.png", "text": WORDS[n]} for n, picture in enumerate(pictures)]
        (places / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with (
            nullcontext()
            if singles
            else pytest.raises(JobError, match=r"none to measure on, as .*, up to 16 of them: raise")
        ):
            look(job_of(places, tmp_path, data="few.jsonl"))
    assert "are 1, as rows that share a picture or a clip stay together, up to 15 of them" in caplog.text
    task = open_task(job_of(places, tmp_path))
    assert task.overlaps == {}
    assert {part.keys() >= {"sha256", "pictures", "rows"} for part in task.pins["data"].values()} == {True}


def without_end(places, folder):
    shutil.copytree(places / "decoder", folder)
    for name, keys in (("tokenizer_config.json", ["eos_token"]), ("config.json", ["eos_token_id"])):
        held = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(held | dict.fromkeys(keys)))
    (folder / "generation_config.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"language": "mute"}, "names a token that ends a text"),
        ({"model": {"initialization": "Random"}}, r"initialization Random: the encoder of Captioning never trains"),
        ({"language": "timm"}, r"spec\.model\.towers\[0\]\.source file://.*timm"),
        (
            {"task": {"captioning": {"prefixLength": 63}}},
            r"prefixLength: 63 embeddings .* positions of spec\.model\.towers\[0\]\.source",
        ),
        ({"task": {"captioning": {"maxLength": 3, "prompt": "who is what is"}}}, "none is left for the text: raise"),
        (
            {"encoder": "wav2vec2", "data": "spoken/clips.jsonl"},
            "built for encoders that make all clips alike, Whisper and AST: set features to Pooled",
        ),
    ],
)
def test_what_a_model_cannot_do_is_said_before_training(places, tmp_path, change, said):
    if not (places / "mute").exists():
        without_end(places, places / "mute")
    with pytest.raises(JobError, match=said):
        open_task(job_of(places, tmp_path, **change))


def test_an_encoder_without_features_is_named(places, tmp_path):
    task = open_task(job_of(places, tmp_path))
    without = patch("unfreeze_trainer.libraries.captioner.places_of", side_effect=AttributeError("no forward_features"))
    said = r"towers\[1\]\.source file://.*timm: what it is gives no features of a picture"
    with without, pytest.raises(JobError, match=said):
        task.build_model()


def test_a_language_model_that_could_be_trained_and_never_asked_is_named(places, tmp_path):
    task = open_task(job_of(places, tmp_path))
    kind = type(task.build_model().module.language)
    with (
        patch.object(kind, "prepare_inputs_for_generation", lambda _, **__: {}),
        pytest.raises(JobError, match=r"towers\[0\]\.source file://.*decoder: .* or generates of them alone"),
    ):
        task.build_model()


def test_a_job_is_drafted_for_it(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [str(places / "rows.jsonl"), "--task", "Captioning"]
    models = [part for name in ("decoder", "timm") for part in ("--model", str(places / name))]
    done = CliRunner().invoke(main, ["init", *given, *models])
    assert done.exit_code == 0, done.output
    assert "'prompt' was taken for what is asked of each picture, and 'text' for the answer" in done.output
    spec = yaml.safe_load((tmp_path / "job.yaml").read_text())["spec"]
    assert [Path(one["source"]).name for one in spec["model"]["towers"]] == ["timm", "decoder"]
    assert spec["task"] == {"type": "Captioning", "captioning": {"annotation": "Answers"}}
    assert spec["strategy"]["type"] == "FeatureExtraction"
    assert (spec["training"]["batchSize"], "gradientAccumulationSteps" in spec["training"]) == (8, False)
    done = CliRunner().invoke(main, ["init", *given, *models, "--model", str(places / "vit"), "--force"])
    assert done.exit_code == 2
    assert "one encoder and one language model, and several read Image" in " ".join(done.stderr.split())
    done = CliRunner().invoke(main, ["data", *given, "--output", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["splits"]["train"]["samples"] == 14
    assert [writes_texts(places / name) for name in ("decoder", "vit", "timm")] == [True, False, False]


@pytest.mark.slow
def test_what_it_takes_is_estimated(places, tmp_path):
    """A frozen encoder has neither gradients nor moments; what its outputs take for a moment, while they are cached, is no step's."""
    job = job_of(places, tmp_path, encoder="vit", strategy={"type": "FullFineTuning"}, **LORA)
    task = open_task(job)
    traced = Aside(lambda: trace(job, task, steps_alone=True), Traced).result()
    found = estimate_of(job, traced, base=0, limit=1 << 40)
    loaded = task.build_model()
    [phase] = traced.phases
    sizes = {name: one.numel() for name, one in loaded.module.named_parameters()}
    assert traced.parameters == sum(sizes.values())
    assert phase.trainable_parameters == sum(sizes[name] for name in loaded.adapter_parameters)
    assert 8 * phase.trainable_parameters <= phase.optimizer <= 12 * phase.trainable_parameters + 4096
    assert phase.weights >= 4 * traced.parameters
    assert found.verdict == "Fits"
    assert not check.not_estimated(job)
    assert check.plainly_fits(job, task, Room(1 << 40, "the pod"))
    least = check.least_of(traced, job)
    assert least.step == phase.weights + phase.optimizer + phase.activations
    room = Room(least.step // 2, "the memory limit of the pod")
    assert "phase all needs at least" in check.too_large(job, found, room)


@pytest.mark.slow
def test_what_one_that_hears_takes_is_estimated(places, tmp_path):
    job = job_of(places, tmp_path, encoder="whisper", data="spoken/clips.jsonl")
    task = open_task(job)
    traced = Aside(lambda: trace(job, task, steps_alone=True), Traced).result()
    assert traced.parameters == sum(one.numel() for one in task.build_model().module.parameters())


def test_the_longest_clip_and_the_longest_text_are_tried_first(places, tmp_path):
    job = job_of(
        places, tmp_path, encoder="wav2vec2", data="spoken/clips.jsonl", task={"captioning": {"features": "Pooled"}}
    )
    task = open_task(job)
    clips = task.modality.seen.lengths(task.modality.split_of(task._splits["train"]))
    texts, first = task.lengths("train"), np.argsort(-task.extents("train"))[:2]
    assert clips[first].max() == clips.max() > clips.min()
    assert texts[first].max() == texts.max() > texts.min()


# What is learned


def test_nothing_is_learned_of_a_cached_picture_that_cannot_be_read(places, tmp_path):
    task = open_task(job_of(places, tmp_path))
    task.unread["train"].add(1)
    [(_, batch)] = task.remembered("train", [[0, 1]])
    assert (batch[TARGETS] != IGNORED).any(dim=1).tolist() == [True, False]


def test_features_of_any_layout_become_places():
    class Grid(torch.nn.Module):
        pretrained_cfg = None

        def __init__(self, layout):
            super().__init__()
            self.output_fmt = layout

        def forward_features(self, _):
            grid = torch.arange(24.0).reshape(1, 2, 3, 4)  # width 4, of 2 x 3 places
            return grid if self.output_fmt == "NHWC" else grid.permute(0, 3, 1, 2)

    found = [places_of(Grid(layout), torch.zeros(1, 3, 8, 8)) for layout in ("NHWC", "NCHW")]
    assert torch.equal(*found)
    assert found[0][0, 1].tolist() == [4.0, 5.0, 6.0, 7.0]
    assert fewer(found[0], 6) is found[0]
    torch.testing.assert_close(fewer(found[0], 3)[0, 0], found[0][0, :2].mean(dim=0))


def test_one_vector_becomes_several_embeddings():
    made = Projector("MLP", 5, 4, spread=3, dropout=0.0)
    assert made(torch.randn(2, 1, 5)).shape == (2, 3, 4)
    assert Projector("Linear", 5, 4, spread=1, dropout=0.0)(torch.randn(2, 6, 5)).shape == (2, 6, 4)


def test_logits_are_those_of_the_language_model_and_padding_changes_nothing(places, tmp_path):
    task = open_task(job_of(places, tmp_path, task={"captioning": {"annotation": "Answers"}}))
    module = task.build_model().module.eval()
    [batch] = task.batches("train", [[0, 5]])
    [alone] = task.batches("train", [[5]])
    with torch.no_grad():
        both, one = task.forward(module, batch), task.forward(module, alone)
        length = int(alone["attention_mask"].sum())
        torch.testing.assert_close(both[1, :length], one[0, :length])
        prefix = module.projector(module.encoder({"images": alone["image.images"]}))
        assert prefix.shape[1] == 3
        text = module.language.get_input_embeddings()(alone["input_ids"][:, :length])
        plain = module.language(inputs_embeds=torch.cat([prefix, text], dim=1)).logits[:, 2:-1]
        torch.testing.assert_close(one[:, :length], plain)
    learned = alone[TARGETS] != IGNORED
    assert task.units("train")[5] == learned.sum()
    said = torch.nn.functional.cross_entropy(
        plain[0][learned[0, :length]], alone["input_ids"][0][learned[0]], reduction="sum"
    )
    torch.testing.assert_close(task.loss(one, alone)[0], said)


def test_the_projector_is_the_head_and_the_encoder_never_trains(places, tmp_path):
    loaded = open_task(job_of(places, tmp_path, **LORA)).build_model()
    assert [block.name for block in loaded.blocks] == ["embeddings", "layer.0", "layer.1", "norm", "head"]
    assert all(name.startswith("projector.") for name in loaded.blocks[-1].parameters)
    assert loaded.locked == {name for name, _ in loaded.module.named_parameters() if name.startswith("encoder.")}
    assert not any(part.training for part in loaded.module.train().encoder.modules())
    size = loaded.module.language.get_input_embeddings().weight.square().mean().sqrt()
    with torch.no_grad():
        made = loaded.module.projector.layers[-1].weight.square().sum(dim=1).mean().sqrt()
    torch.testing.assert_close(made, torch.tensor(1.0))
    assert loaded.module.projector.size == pytest.approx(float(size))


def test_a_step_of_a_usual_rate_moves_embeddings_by_far_less_than_their_size(places, tmp_path):
    projector = open_task(job_of(places, tmp_path)).build_model().module.projector
    features = torch.randn(4, 3, projector.layers[0].in_features)
    before = projector(features)
    optimizer = torch.optim.AdamW(projector.layers[-1].parameters(), lr=1e-3)
    before.sum().backward()
    optimizer.step()
    moved = (projector(features) - before).square().mean().sqrt()
    assert moved < before.square().mean().sqrt() / 4


def test_both_towers_of_an_export_go_on_with_its_projector(places, tmp_path):
    task = open_task(job_of(places, tmp_path))
    module = task.build_model().module
    with torch.no_grad():
        module.projector.layers[-1].weight.add_(1)
    task.library.save(module, tmp_path, "Merged", initial=task.build_model)
    towers = [{"modality": kind, "source": f"file://{tmp_path / kind.lower()}"} for kind in ("Text", "Image")]
    again = open_task(job_of(places, tmp_path / "run", model={"towers": towers})).build_model().module.projector
    assert again.size == module.projector.size
    torch.testing.assert_close(again.layers[-1].weight, module.projector.layers[-1].weight)


def test_layers_of_the_language_model_compute_again_where_that_is_asked_for(places, tmp_path):
    module = open_task(job_of(places, tmp_path, **LORA)).build_model().module
    checkpoint_activations(module)
    assert all(getattr(part, "gradient_checkpointing", True) for part in module.modules())


# Whole jobs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "change"),
    [("timm", LORA), ("vit", {"task": {"captioning": {"features": "Pooled", "annotation": "Answers"}}})],
)
def test_a_job_trains_projector_and_language_model_and_its_export_writes(places, tmp_path, encoder, change):
    training = {"evaluate": {"generate": {"maxTokens": 4}}}
    job = job_of(places, tmp_path / "run", encoder=encoder, **merge(change, {"training": training}))
    run = open_run(job, open_task(job))
    before = {name: tensor.clone() for name, tensor in run.engine.weights(run.engine.shapes).items()}
    train(run)
    assert run.task.saved.hits > 0, "the frozen encoder computes once"
    after = run.engine.weights(run.engine.shapes)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {name.partition(".")[0] for name in changed} == {"projector", "language"}
    with patch.object(export, "reload", plain_outputs):
        finish(run)
    run.saver.close()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    results = report["results"]["validation"]
    assert {"loss", "perplexity", "tokenAccuracy", "exactMatch", "rougeL", "chrF"} <= results.keys()
    loaded = captioner_layers.load(str(tmp_path / "run" / "model"))
    with Image.open(places / "3.png") as picture:
        [text] = loaded.write([picture], None if encoder == "timm" else "who?", tokens=4)
    asked = places / "asked.jsonl"
    asked.write_text('{"image": "rows.jsonl", "prompt": "who?"}\n{"image": "3.png", "prompt": "who?"}\n')
    done = CliRunner().invoke(main, ["predict", str(tmp_path / "run"), str(asked), "--inputs", "--on-error", "skip"])
    assert done.exit_code == 0, done.output
    assert "1 rows of" in done.stderr
    [row] = csv.DictReader(done.stdout.splitlines())
    assert (row["row"], row["file"]) == ("2", "3.png")
    assert row["prediction"].startswith(text)
    command = ["evaluate", str(tmp_path / "run"), str(places / "rows.jsonl"), "--generate", "4", "--output", "json"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert {"loss", "exactMatch", "rougeL"} <= json.loads(done.stdout)["metrics"].keys()
    (tmp_path / "run" / "model" / "projector.safetensors").unlink()
    done = CliRunner().invoke(main, ["predict", str(tmp_path / "run"), str(asked), "--on-error", "skip"])
    assert done.exit_code
    assert "projector.safetensors is missing: copy the export again" in done.stderr


@pytest.mark.slow
def test_clips_are_described_as_pictures_are(places, tmp_path):
    job = job_of(places, tmp_path / "run", encoder="whisper", data="spoken/clips.jsonl")
    run = open_run(job, open_task(job))
    train(run)
    with patch.object(export, "reload", plain_outputs):
        finish(run)
    run.saver.close()
    loaded = captioner_layers.load(str(tmp_path / "run" / "model"))
    assert loaded.rate == 16000
    assert len(loaded.write([np.zeros(4000, dtype=np.float32)], tokens=3)) == 1
    done = CliRunner().invoke(main, ["predict", str(tmp_path / "run"), str(places / "spoken" / "clips.jsonl")])
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 13
