"""Alignment: what is read, what is lost and measured, what is held out, and that an export is loaded without Unfreeze."""

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

from tests.trainer.engine_group import open_run
from tests.trainer.jobs import WORDS, bert_folder, decoder_folder, image_model, make_job, merge, timm_folder
from unfreeze_api.cli import main
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.commands.draft import Draft
from unfreeze_trainer.commands.estimate import estimated
from unfreeze_trainer.commands.guessed import Guess
from unfreeze_trainer.commands.init import _bases
from unfreeze_trainer.commands.layout import Layout
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.commands.survey import survey
from unfreeze_trainer.data.held_out import hold_out_whole
from unfreeze_trainer.data.pictures import decode
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import bridge_layers, export
from unfreeze_trainer.models.bridge import Bridge, Encoders
from unfreeze_trainer.models.folders import modality_of
from unfreeze_trainer.models.image_processor import load_config
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.objectives.agreement import Agreement, AgreementMetrics
from unfreeze_trainer.objectives.base import IGNORED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.targets import encoder
from unfreeze_trainer.objectives.targets.pairings import connected
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train

ROWS = 24
BOTH = ["image", "text"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Models, and a table of pictures whose colour their text tells; each text has two pictures."""
    folder = tmp_path_factory.mktemp("places")
    timm_folder(folder / "timm", "resnet10t", num_classes=3)
    image_model(folder / "vit")
    bert_folder(folder / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    rows = []
    for n in range(ROWS):
        pixels = rng.integers(0, 60, (40, 46, 3), dtype=np.uint8)
        pixels[: 3 * n, :, n % 3] += 150
        Image.fromarray(pixels).save(folder / "pictures" / f"{n}.png")
        rows.append({"image": f"pictures/{n}.png", "text": f"{WORDS[n // 2]} {WORDS[n // 4]}"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job_of(places, run, image="timm", data="rows.jsonl", **change) -> ResolvedJob:
    return make_job("none", places / data, **merge(spec_of(places, run, image), change))


def spec_of(places, run, image="timm"):
    towers = [
        {"modality": "Image", "source": f"file://{places / image}"},
        {"modality": "Text", "source": f"file://{places / 'bert'}"},
    ]
    return {
        "model": {"source": None, "towers": towers},
        "task": {"type": "Alignment", "alignment": {"width": 8, "imageSize": 32 if image == "timm" else None}},
        "strategy": {"type": "FeatureExtraction", "learningRate": {"head": 1e-2}},
        "training": {"epochs": 3, "batchSize": 12},
        "output": {"destination": f"file://{run}"},
    }


# What is learned


def test_each_sample_is_told_from_those_that_have_no_cell_in_common_both_ways():
    vectors = torch.randn(5, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cells = torch.tensor([[0, 0], [1, 0], [2, 1], [2, 2], [3, 3]])
    found = Agreement(encoder("Pairings")(cells.numpy(), "train"), BOTH, 8).losses(vectors, cells)
    for row in range(5):
        others = [n for n in range(5) if n == row or not (cells[n] == cells[row]).any()]
        place, expected = others.index(row), 0.0
        for one, other in ((0, 1), (1, 0)):
            scores = vectors[others, other] @ vectors[row, one]
            expected += float(scores.logsumexp(dim=0) - scores[place]) / 2
        assert found[row].item() == pytest.approx(expected)


def test_the_loss_is_that_of_clip_where_no_cell_stands_twice():
    vectors = functional.normalize(torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    cells = torch.arange(12).view(2, 6).T
    scores = 20 * vectors[:, 0] @ vectors[:, 1].T
    labels = torch.arange(6)
    expected = (functional.cross_entropy(scores, labels) + functional.cross_entropy(scores.T, labels)) / 2
    learned = encoder("Pairings")(cells.numpy(), "train")
    torch.testing.assert_close(Agreement(learned, BOTH, 8).losses(math.sqrt(20) * vectors, cells).mean(), expected)


def bridge(temperature=0.07):
    towers = {"image": torch.nn.Identity(), "text": torch.nn.Identity()}
    features = dict.fromkeys(towers, lambda module, inputs: module(inputs["x"]))
    encoders = Encoders(towers, features, {name: name for name in towers})
    return Bridge(encoders, {"image": 6, "text": 4}, kind="Linear", width=3, dropout=0.0, temperature=temperature)


def test_products_are_cosines_times_a_learned_factor_that_stays_at_100():
    inputs = {"image.x": torch.randn(5, 6), "text.x": torch.randn(5, 4)}
    made = bridge(temperature=0.5)
    outputs = made(inputs)
    assert outputs.shape == (5, 2, 3)
    torch.testing.assert_close(outputs.square().sum(dim=-1), torch.full((5, 2), 2.0))
    for start, factor in ((math.log(50), 50.0), (math.log(400), 100.0)):
        with torch.no_grad():
            made.logit_scale.fill_(start)
        torch.testing.assert_close(made(inputs).square().sum(dim=-1), torch.full((5, 2), factor))
    made(inputs).square().sum().backward()
    assert made.logit_scale.grad.item() > 0, "it can come back from above"


def test_recall_counts_distinct_cells_and_is_that_of_all_samples_in_any_order():
    vectors = torch.randn(30, 2, 4, generator=torch.Generator().manual_seed(0))
    cells = torch.stack([torch.arange(30) // 2, torch.arange(30) % 20], dim=1)
    vectors[:, 0], vectors[:, 1] = vectors[cells[:, 0], 0], vectors[cells[:, 1], 1]
    metrics = AgreementMetrics(BOTH, 4)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    batch = {TARGETS: cells[order], SAMPLES: order}
    padded = {TARGETS: torch.full((1, 2), IGNORED), SAMPLES: torch.tensor([-1])}
    rows = torch.cat([metrics.rows(vectors[order], batch), metrics.rows(vectors[:1], padded)])
    found = metrics.compute(metrics.new_state(), rows)
    directions = {}
    for way, (one, other) in {"forward": (0, 1), "backward": (1, 0)}.items():
        asked, told = cells[:, one].unique(), cells[:, other].unique()
        first = {
            side: [int((cells[:, side] == n).nonzero()[0]) for n in part]
            for side, part in ((one, asked), (other, told))
        }
        unit = functional.normalize(vectors, dim=-1)
        scores = unit[first[one], one] @ unit[first[other], other].T
        for best in (1, 5):
            hits = [
                any(((cells[:, one] == n) & (cells[:, other] == told[m])).any() for m in row.topk(best).indices)
                for n, row in zip(asked, scores, strict=True)
            ]
            directions[f"{way}RecallAt{best}"] = float(np.mean(hits))
    assert {name: found[name] for name in directions} == pytest.approx(directions)
    assert found["recallAt1"] == pytest.approx((found["forwardRecallAt1"] + found["backwardRecallAt1"]) / 2)


# What is held out


def test_rows_that_have_a_cell_in_common_are_one_group_by_others_too():
    cells = np.array([[0, 0], [1, 0], [1, 1], [2, 2], [3, 3], [3, 4], [5, 5]])
    assert connected(cells).tolist() == [0, 0, 0, 1, 2, 2, 3]


def test_no_group_stands_in_two_parts():
    groups = np.repeat(np.arange(40), 3)
    parts = hold_out_whole(groups, {"validation": 0.1, "test": 0.2}, seed=3)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 84, "validation": 12, "test": 24}
    assert len(np.unique(np.concatenate([np.unique(groups[rows]) for rows in parts.values()]))) == 40
    assert sum(len(np.unique(groups[rows])) for rows in parts.values()) == 40
    again = hold_out_whole(groups, {"validation": 0.1, "test": 0.2}, seed=3)
    assert all((parts[name] == again[name]).all() for name in parts)


# What is read


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "pictures/0.png"}], "text"),
        ([{"image": "pictures/0.png", "text": " "}], "no text in column 'text' of row 1; fill in or remove it"),
        ([{"image": "", "text": "a"}], "no picture in column 'image' of row 1; remove it"),
        ([{"image": "pictures/none.png", "text": "a"}], "row 1, column 'image': no such image"),
        ([{"image": "rows.jsonl", "text": "a"}], "it is no picture"),
        ([{"image": "pictures/0.png", "text": word} for word in WORDS[:8]], "all have a cell in common"),
    ],
)
def test_what_cannot_be_read_is_named(places, tmp_path, rows, said):
    table = places / f"broken-{abs(hash(said))}.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = job_of(places, tmp_path, data=table.name)
    with pytest.raises(JobError) as error:
        look(job)
    assert said in str(error.value)


def test_a_tower_that_cannot_be_loaded_is_named(places, tmp_path):
    job = job_of(places, tmp_path, image="none")
    for opened in (look, open_task):
        with pytest.raises(
            JobError, match=r"spec\.model\.towers\[0\]\.source file://.*none: the model folder .* does not exist"
        ):
            opened(job)


@pytest.mark.parametrize("kind", ["clip_vision_model", "dinov3_vit", "siglip_vision_model"])
def test_an_encoder_of_pictures_needs_no_class_of_classifiers(places, tmp_path, kind):
    """DINOv3, and the part that sees of CLIP and SigLIP, alone: transformers classifies by none of them."""
    import transformers

    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.AutoConfig.for_model(kind, **sizes, intermediate_size=32)
    transformers.AutoModel.from_config(config).save_pretrained(places / kind)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(places / kind)
    job = job_of(places, tmp_path, kind)
    look(job)
    task = open_task(job)
    loaded = task.build_model()
    assert {"layer.0", "layer.1"} < {block.name for block in loaded.blocks}
    [batch] = task.batches("train", [range(3)])
    assert task.forward(loaded.module, batch).shape[:2] == (3, 2)
    with pytest.raises(JobError, match=f"no image classifier of model_type {kind}"):
        load_config(str(places / kind), "here")


def test_a_look_tells_what_there_is(places, tmp_path):
    assert look(job_of(places, tmp_path)) == "samples: 18 in train, 6 in validation"


def test_the_script_shows_pictures_as_training_does(tmp_path):
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[2:6, 2:6] = (200, 10, 30, 128)
    white = np.full((8, 8, 4), 255, dtype=np.uint8)
    white[2:6, 2:6, 3] = 0
    wide = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    shares = (wide / 65535).astype(np.float32)
    kinds = [
        (pixels, "RGB", "png"),
        (white, "RGB", "png"),
        (pixels, "L", "png"),
        (wide, "RGB", "png"),
        (shares, "L", "tif"),
    ]
    for number, (values, mode, end) in enumerate(kinds):
        Image.fromarray(values).save(tmp_path / f"{number}.{end}")
        with Image.open(tmp_path / f"{number}.{end}") as image:
            shown = np.array(bridge_layers.shown(image, mode))
        assert (shown == np.array(decode(str(tmp_path / f"{number}.{end}"), mode))).all()


# Whole jobs


@pytest.mark.slow
@pytest.mark.parametrize("image", ["timm", "vit"])
def test_heads_are_trained_on_cached_outputs_and_exports_load_by_their_script(places, tmp_path, image):
    job = job_of(places, tmp_path / "run", image=image, task={"alignment": {"projection": "MLP"}})
    run = open_run(job, open_task(job))
    before = {name: tensor.clone() for name, tensor in run.engine.weights(run.engine.shapes).items()}
    train(run)
    assert run.task.saved.hits > 0, "frozen encoders compute once"
    after = run.engine.weights(run.engine.shapes)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert all(name.startswith(("heads.", "logit_scale")) for name in changed)
    with patch.object(export, "reload", plain_outputs):
        finish(run)
    run.saver.close()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {"recallAt1", "forwardRecallAt5", "backwardRecallAt1", "loss"} <= report["results"]["validation"].keys()
    assert report["base"]["source"].count("file://") == 2
    loaded = bridge_layers.load(str(tmp_path / "run" / "model"))
    texts = loaded.embed_text(["how what", "who is"])
    with Image.open(places / "pictures" / "3.png") as picture:
        pictures = loaded.embed_image([picture])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    assert texts.shape == (2, 8)
    assert pictures.shape == (1, 8)
    if image == "timm":
        described_by_its_encoder(places, tmp_path, after)


def described_by_its_encoder(places, folder, weights):
    """What an export holds of an encoder goes on in a captioner."""
    decoder_folder(folder / "decoder", tie_word_embeddings=True)
    sources = {"Image": folder / "run" / "model" / "image", "Text": folder / "decoder"}
    towers = [{"modality": kind, "source": f"file://{source}"} for kind, source in sources.items()]
    options = {"type": "Captioning", "captioning": {"prefixLength": 3, "imageSize": 32}}
    job = make_job("none", places / "rows.jsonl", model={"source": None, "towers": towers}, task=options)
    for name, tensor in open_task(job).build_model().module.encoder.model.named_parameters():
        assert torch.equal(tensor, weights[f"encoders.towers.image.{name}"])


def test_the_survey_of_a_table_looks_at_its_pictures(places, tmp_path):
    found = survey(job_of(places, tmp_path), count_tokens=None, files=100)
    assert not found.problem
    assert {name: (split.samples, split.files_read) for name, split in found.splits.items()} == {
        "train": (18, 18),
        "validation": (6, 6),
    }


def test_what_a_held_out_source_shares_is_counted(places, tmp_path):
    rows = (places / "rows.jsonl").read_text().splitlines()
    other = json.loads(rows[0]) | {"image": "pictures/1.png"}
    (places / "other.jsonl").write_text(f"{json.dumps(other)}\n{rows[-1]}\n")
    (places / "most.jsonl").write_text("\n".join(rows[:-2]) + "\n")
    held_out = {"fraction": None, "source": f"file://{places / 'other.jsonl'}"}
    job = make_job("none", places / "most.jsonl", **spec_of(places, tmp_path), data={"validation": held_out})
    assert open_task(job).overlaps == {"validation in train": 1}


@pytest.mark.slow
def test_a_job_is_drafted_for_the_encoders_that_lie_there(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = str(places / "rows.jsonl")
    named = [f"--model={places / name}" for name in ("vit", "timm", "bert")]
    done = CliRunner().invoke(main, ["init", table, "--task", "Alignment", *named])
    assert done.exit_code == 0, done.output
    spec = yaml.safe_load((tmp_path / "job.yaml").read_text())["spec"]
    assert [(one["modality"], one["source"].rpartition("/")[2]) for one in spec["model"]["towers"]] == [
        ("Image", "vit"),
        ("Image", "timm"),
        ("Text", "bert"),
    ]
    assert spec["training"] == {"batchSize": 22, "gradientAccumulationSteps": 2, "epochs": 60, "seed": 0}
    done = CliRunner().invoke(main, ["init", table, "--task", "Alignment", "--output", "other.yaml"])
    assert "no encoder was found for Image" in done.stdout
    done = CliRunner().invoke(main, ["data", table, "--task", "Alignment"])
    assert done.exit_code == 0, done.output


def test_a_column_that_no_encoder_was_named_for_is_not_read(tmp_path):
    for name, files in {
        "sees": {"config.json": '{"architecture": "x"}'},
        "reads": {"config.json": "{}", "vocab.txt": ""},
    }.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
    columns = {"image": "image", "text": "text", "audio": "clip"}
    drafted = Draft(Layout("Table", tmp_path / "rows.jsonl"), Guess("Alignment", columns))
    _, towers, _ = _bases(drafted, [tmp_path / "sees", tmp_path / "reads"], tmp_path)
    assert [modality for modality, _ in towers] == drafted.modalities == ["Image", "Text"]
    assert drafted.guess.columns == {"image": "image", "text": "text"}


def test_what_is_no_encoder_of_the_data_is_not_drafted(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(
        main, ["init", str(places / "rows.jsonl"), "--task", "Alignment", "--model", str(tmp_path / "empty")]
    )
    assert done.exit_code == 2
    assert "nothing in it says what it reads, and the data have Image, Text" in " ".join(done.stderr.split())
    (tmp_path / "texts.csv").write_text("text,label\nsome words here,a\nother words there,b\n")
    done = CliRunner().invoke(main, ["init", "texts.csv", "--task", "Alignment"])
    assert done.exit_code == 2
    assert "one column looks like any" in done.stderr


@pytest.mark.slow
def test_what_towers_take_is_estimated(places, tmp_path):
    job = job_of(places, tmp_path, training={"gradientAccumulationSteps": 3})
    found, _ = estimated(job, limit=1 << 40)
    module = open_task(job).build_model().module
    [phase] = found.traced.phases
    assert found.traced.parameters == sum(each.numel() for each in module.parameters())
    assert phase.trainable_parameters == sum(each.numel() for each in module.heads.parameters()) + 1
    assert phase.weights >= 4 * found.traced.parameters
    assert found.verdict == "Fits"


def test_an_older_folder_of_an_encoder_of_pictures_is_none_of_sound(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    said = {"feature_extractor_type": "ViTFeatureExtractor", "image_mean": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    assert modality_of(tmp_path) == "Image"
