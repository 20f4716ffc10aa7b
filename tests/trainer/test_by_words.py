"""A bridge that reads the names of its classifiers' classes, and that tells what it was never trained to tell, by words."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional

from tests.trainer.jobs import WORDS, audio_folder, audio_model, bert_folder, image_model, make_job, timm_folder
from unfreeze_api.cli import main
from unfreeze_trainer.commands.by_words import ask_by_words
from unfreeze_trainer.commands.finished import find_model
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.described import described
from unfreeze_trainer.models import bridge_layers
from unfreeze_trainer.models.bridge import begin_with_names
from unfreeze_trainer.models.class_names import classifier_of, timm_names, transformers_names
from unfreeze_trainer.runs.destination import MARKER
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.tasks.by_words import require_apart

NAMES = ["tall, high", "far", "many"]


def test_a_classifier_speaks_by_the_vectors_of_its_names():
    named = bridge_layers.Named([3, 4], [(1, 5, 6)])
    for buffer in named.buffers():
        buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(len(buffer))))
    values = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    chances = (values[:, 3:] @ named.weight0.T + named.bias0).softmax(dim=1)
    torch.testing.assert_close(named(values), torch.cat([values, chances @ named.names0], dim=1))
    head = bridge_layers.projection("Linear", [3, 4], 2, 0.0, [(1, 5, 6)])
    assert head[-1].in_features == 3 + 4 + 6
    assert {name for name, _ in head.named_parameters()} == {"3.weight", "3.bias"}, "the classifier stays as it is"


def test_classes_of_one_vector_are_named(monkeypatch):
    monkeypatch.setattr("unfreeze_trainer.tasks.by_words.AT_ONCE", 2)
    vectors = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    require_apart("abcde", vectors)
    vectors[4] = vectors[1] * (1 + 1e-6)
    with pytest.raises(JobError, match=r"^the classes 'b' and 'e' cannot be told apart"):
        require_apart("abcde", vectors)


@pytest.mark.parametrize("width", [4, 9])
def test_heads_begin_where_the_names_of_a_pictures_classes_lie(width):
    pictures = bridge_layers.projection("Linear", [3, 4], width, 0.0, [(0, 2, 6), (1, 5, 6)])
    texts = bridge_layers.projection("Linear", [6], width, 0.0)
    before = pictures[-1].weight.clone(), texts[-1].weight.clone()
    begin_with_names(pictures, texts)
    added = texts[-1].weight - before[1]
    torch.testing.assert_close(added @ added.T if width < 6 else added.T @ added, torch.eye(min(width, 6)))
    more = pictures[-1].weight - before[0]
    torch.testing.assert_close(more, torch.cat([torch.zeros(width, 7), added / 2, added / 2], dim=1))


def test_classes_are_called_as_the_folder_says():
    import timm
    from transformers import BertConfig

    assert timm_names(timm.create_model("resnet10t"))[1].startswith("goldfish, Carassius auratus: small golden")
    assert timm_names(timm.create_model("resnet10t", num_classes=3)) is None
    assert transformers_names(BertConfig()) is None
    assert transformers_names(BertConfig(id2label={1: "b", 0: "a"})) == ["a", "b"]
    head = torch.nn.Linear(2, 3)
    assert classifier_of(head, NAMES).names == NAMES
    assert classifier_of(head, NAMES[:2]) is None
    assert classifier_of(torch.nn.Conv2d(2, 3, 1), NAMES) is None


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Models, a table of red and blue pictures with texts and clips, and the same pictures by colour."""
    folder = tmp_path_factory.mktemp("places")
    timm_folder(folder / "timm", "resnet10t", num_classes=3)
    config = json.loads((folder / "timm" / "config.json").read_text())
    (folder / "timm" / "config.json").write_text(json.dumps(config | {"label_names": NAMES}))
    timm_folder(folder / "nameless", "resnet10t", num_classes=3)
    image_model(folder / "vit")
    bert_folder(folder / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    audio_model(folder / "whisper", "whisper")
    audio_folder(folder / "tones", per_label=4)
    tones = sorted((folder / "tones").rglob("*.*"))
    rows = []
    for n in range(8):
        pixels = np.full((40, 40, 3), 20 * n, dtype=np.uint8)
        pixels[..., 0 if n % 2 else 2] += 100
        place = folder / "pictures" / ("what" if n % 2 else "river") / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
        rows.append({"image": str(place), "text": f"{WORDS[n]} {WORDS[n + 5]}", "audio": str(tones[n])})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job_of(places, towers, **options):
    reads = {"bert": "Text", "whisper": "Audio"}
    named = [{"modality": reads.get(one, "Image"), "source": f"file://{places / one}"} for one in towers]
    return make_job(
        "none",
        places / "rows.jsonl",
        model={"source": None, "towers": named},
        task={
            "type": "Alignment",
            "alignment": {"width": 8, "imageSize": 32 if "vit" not in towers else None} | options,
        },
        strategy={"type": "FeatureExtraction"},
    )


@pytest.mark.slow
def test_what_has_no_names_is_refused(places):
    for towers, said in (
        (("nameless", "bert"), "brings a linear classifier"),
        (("timm", "whisper"), "no encoder of texts"),
    ):
        task = open_task(job_of(places, towers, classNames=True))
        with pytest.raises(JobError, match=rf"spec\.task\.alignment\.classNames: .*{said}"):
            task.build_model()


@pytest.fixture(scope="module")
def export(places, tmp_path_factory):
    """An export of a bridge that was not trained."""
    folder = tmp_path_factory.mktemp("export")
    job = job_of(places, ("timm", "vit", "bert", "whisper"), classNames=True)
    task = open_task(job)
    module = task.build_model().module.eval()
    task.export(module, folder, "Model")
    (folder / MARKER).write_text(json.dumps(described(job, task)))
    return folder


def ask(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_an_export_tells_classes_by_the_texts_that_lie_closest(places, export, monkeypatch):
    monkeypatch.setattr("unfreeze_trainer.tasks.by_words.AT_ONCE", 3)
    bridge = bridge_layers.load(str(export))
    assert json.loads((export / "bridge.json").read_text())["told"] == {"image": [[0, 3, 16]]}
    classes, prompts = ("river", "what"), ("{} city", "the {}")
    texts = [prompt.replace("{}", name) for name in classes for prompt in prompts]
    vectors = functional.normalize(bridge.embed_text(texts).view(2, 2, -1).mean(dim=1), dim=-1)
    files = sorted((places / "pictures").rglob("*.png"))
    cosines = bridge.embed_image([Image.open(file) for file in files]) @ vectors.T
    asked = [*(f"--class={name}" for name in classes), *(f"--prompt={prompt}" for prompt in prompts)]
    done = ask("predict", export, places / "pictures", *asked, "--format", "jsonl", "--inputs")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["prediction"] for row in rows] == [classes[n] for n in cosines.argmax(dim=1)]
    torch.testing.assert_close(
        torch.tensor([row["probabilities"] for row in rows]), (cosines / 0.07).softmax(dim=1), rtol=1e-3, atol=1e-3
    )
    right = np.mean([row["prediction"] == file.parent.name for row, file in zip(rows, files, strict=True)])
    done = ask("evaluate", export, places / "pictures", *asked[2:], "--output", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]["accuracy"] == pytest.approx(right), "classes are the labels of the data"


@pytest.mark.slow
def test_recall_of_what_belongs_together_is_measured_by_the_heads_of_the_export(places, export, tmp_path):
    bridge = bridge_layers.load(str(export))
    rows = [json.loads(line) for line in (places / "rows.jsonl").read_text().splitlines()]
    pictures = bridge.embed_image([Image.open(row["image"]) for row in rows])
    cosines = pictures @ bridge.embed_text([row["text"] for row in rows]).T
    done = ask("evaluate", export, places / "rows.jsonl", "--output", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["samples"] == 8
    for name, way in (("imageToText", cosines), ("textToImage", cosines.T)):
        right = (way.argmax(dim=1) == torch.arange(8)).double().mean().item()
        assert found["metrics"][f"{name}RecallAt1"] == pytest.approx(right)
    assert "by --prompt TEXT" in " ".join(ask("evaluate", export, places / "pictures").stderr.split())
    folder = tmp_path / "export"
    shutil.copytree(export, folder)
    marker = json.loads((folder / MARKER).read_text())
    marker["described"]["task"]["alignment"]["width"] = 9
    (folder / MARKER).write_text(json.dumps(marker))
    said = ask("evaluate", folder, places / "rows.jsonl")
    assert "described.task.alignment cannot be read" in " ".join(said.stderr.split()), "heads would be drawn anew"
    (folder / "heads.safetensors").unlink()
    assert "heads.safetensors is missing" in " ".join(ask("evaluate", folder, places / "rows.jsonl").stderr.split())


@pytest.mark.slow
def test_clips_are_told_by_words_too(places, export):
    done = ask("predict", export, places / "tones", "--class", "river", "--class", "city")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 1 + 8


@pytest.mark.slow
def test_clips_are_heard_as_long_as_the_bridge_hears_them(places, export, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(export, folder)
    marker = json.loads((folder / MARKER).read_text())
    marker["described"]["task"]["alignment"]["maxSeconds"] = 0.25
    (folder / MARKER).write_text(json.dumps(marker))
    options = {"columns": {}, "labelled": False, "skip": False}
    asked = ask_by_words(find_model(folder, None, by_words=True), places / "tones", ["river", "city"], [], **options)
    assert asked.task.library.towers[0].hears.longest == 4000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--class", "river"], "1 classes: name 2 to"),
        (["--class", "river", "--class", "river"], "named twice"),
        (["--class", "river", "--class", "city", "--prompt", "a thing"], "write {} where the name of a class goes"),
        (
            ["--class", "river", "--class", "\u0e01", "--class", "\u0e02"],
            "the classes '\u0e01' and '\u0e02' cannot be told apart",
        ),
        (["--prompt", "a {}"], "name them by --class"),
        ([], "unfreeze predict --class NAME"),
    ],
)
def test_what_cannot_be_told_is_said(places, export, arguments, said):
    done = ask("predict", export, places / "pictures", *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


@pytest.mark.slow
def test_an_export_that_reads_no_pictures_says_so(places, export, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(export, folder)
    described = json.loads((folder / "bridge.json").read_text())
    described["towers"] = {name: tower for name, tower in described["towers"].items() if tower["modality"] != "image"}
    (folder / "bridge.json").write_text(json.dumps(described))
    done = ask("predict", folder, places / "pictures", "--class", "river", "--class", "city")
    assert done.exit_code == 2
    assert "it has no encoder of pictures" in " ".join(done.stderr.split())
