"""transformers' models that read images: what they see is what their own processor makes, and exports say the same."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, DeiTForImageClassificationWithTeacher

from tests.trainer.jobs import IMAGE_MODELS, bert_folder, image_folder, image_model, make_job, timm_folder
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.seeds import seed_everything
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow

TASK = {"type": "ImageClassification"}
LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
CONVOLUTIONS = {"adapter": {"type": "LoRA", "lora": {"r": 2, "targetModules": ["convolution"]}}}
BOTTLENECK = {"adapter": {"type": "Bottleneck"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("pictures") / "d")


def task_of(model, data, size=None, /, **change):
    options = {"imageClassification": {"imageSize": size}} if size else change.pop("task", {})
    return open_task(make_job(model, data, task=TASK | options, **change))


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_what_a_model_sees_is_what_its_own_processor_makes(tmp_path, data, name):
    folder = image_model(tmp_path / "m", name)
    task = task_of(folder, data)
    processor, mode = AutoImageProcessor.from_pretrained(folder), task.modality.loader._sees.mode
    assert mode == ("L" if name == "grey" else "RGB")
    [batch] = task.batches("validation", [range(task.splits["validation"])])
    for index, seen in enumerate(batch["images"]):
        with Image.open(task.name_of("validation", index).partition(": ")[2].strip()) as picture:
            own = processor(picture.convert(mode), return_tensors="pt")["pixel_values"][0]
        assert torch.equal(seen, own)
    # Each size, where the model takes it, is told to the processor that is exported.
    task = task_of(folder, data, 48)
    [batch] = task.batches("validation", [[0]])
    assert batch["images"].shape[2:] == (48, 48)
    task.modality.save(tmp_path / "out")
    with Image.open(task.name_of("validation", 0).partition(": ")[2].strip()) as picture:
        own = AutoImageProcessor.from_pretrained(tmp_path / "out")(picture.convert(mode), return_tensors="pt")
    assert torch.equal(batch["images"][0], own["pixel_values"][0])


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_blocks_gradients_and_batches_of_one(tmp_path, data, name):
    task = task_of(image_model(tmp_path / "m", name), data)
    loaded = task.build_model()
    names = [block.name for block in loaded.blocks]
    first = [] if name == "pvt" else ["embeddings"]  # its layers embed patches themselves
    assert names[: len(first) + 2] == [*first, "layer.0", "layer.1"]
    assert names[-1] == "head"
    seed_everything(0)
    batches = list(task.batches("train", [[0, 1], [], [2, 3, 4]], epoch_seed=1))
    again = list(task.batches("train", [[2, 3, 4]], epoch_seed=1))
    assert torch.equal(batches[2]["images"], again[0]["images"])
    total = sum(
        task.loss(task.forward(loaded.module, batch), batch).sum() for batch in batches if len(batch["images"]) > 1
    )
    total.backward()
    assert total.isfinite()
    head = loaded.blocks[-1].parameters
    assert all(parameter.grad is not None for key, parameter in loaded.module.named_parameters() if key in head)


MULTI = {"task": {"imageClassification": {"labels": "Multi"}}}
RUNS = [
    ("vit", {}),
    ("resnet", CONVOLUTIONS),
    ("mobilenet_v2", BOTTLENECK),
    ("siglip", LORA),
    ("swin", MULTI),
    ("grey", {}),
]


@pytest.mark.parametrize(("name", "change"), RUNS, ids=[name for name, _ in RUNS])
def test_an_export_gives_the_same_outputs_in_the_plain_library(tmp_path, data, name, change):
    if change is MULTI:
        data = image_folder(tmp_path / "d")
        rows = [f"{label}/{n}.png,{label}" for label in ("blue", "red") for n in range(6)]
        (data / "t.csv").write_text("image,label\n" + "\n".join([*rows[:-1], '"red/5.png","red,blue"']) + "\n")
        data /= "t.csv"
    task = task_of(image_model(tmp_path / "m", name), data, **change)
    loaded = task.build_model()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in loaded.module.named_parameters():
            if key in loaded.adapter_parameters or "adapter" not in change:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    kinds = ["Model"] if "adapter" not in change else ["Adapter"] if change is BOTTLENECK else ["Adapter", "Merged"]
    for kind in kinds:
        task.export(loaded.module, tmp_path / kind, kind)
        with patch.object(export, "reload", plain_outputs):
            task.verify_export(tmp_path / kind, kind, loaded.module)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet", "resnet"])
def test_running_statistics_are_means_over_batches(tmp_path, data, name):
    task = task_of(image_model(tmp_path / "m", name), data)
    module = task.build_model().module
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert {part.momentum for part in norms} == {0.1}
    before = norms[0].running_mean.clone()
    [batch] = task.batches("train", [[0, 1, 2]])
    seen = []
    norms[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3))))
    task.forward(module, batch)
    assert torch.allclose(norms[0].running_mean, before + 0.1 * (seen[0] - before), atol=1e-6)


def test_a_distilled_model_gives_the_mean_of_its_two_heads(tmp_path, data):
    folder = image_model(tmp_path / "m", "deit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"architectures": [DeiTForImageClassificationWithTeacher.__name__]})
    )
    loaded = task_of(folder, data, model={"initialization": "Random"}).build_model()
    assert loaded.blocks[-1].parameters == (
        *("cls_classifier.weight", "cls_classifier.bias"),
        *("distillation_classifier.weight", "distillation_classifier.bias"),
    )


def refused(model, data, /, **change) -> str:
    with pytest.raises(JobError) as error:
        task_of(model, data, **change)
    assert error.value.reason == "InvalidModel"
    return error.value.message


def test_folders_that_cannot_be_used_are_told_what_they_lack(tmp_path, data):
    folder = image_model(tmp_path / "m")
    said = folder / "preprocessor_config.json"
    before = json.loads(said.read_text())
    assert look(make_job(folder, data, task=TASK)).startswith("2 labels")

    def with_processor(**change) -> str:
        said.write_text(json.dumps({**before, **change}))
        return refused(folder, data)

    said.unlink()
    with pytest.raises(JobError, match=r"no preprocessor_config\.json, which says how a picture"):
        look(make_job(folder, data, task=TASK))
    assert "no preprocessor_config.json, which says how a picture becomes what the model reads" in refused(folder, data)
    assert "remove auto_map from preprocessor_config.json" in with_processor(auto_map={"AutoImageProcessor": "x.Y"})
    assert "the image processor makes pictures of 32 x 48" in with_processor(
        size={"shortest_edge": 32}, image_processor_type="ViTImageProcessor"
    )
    assert "makes pictures of 32 x 48 and 72 x 40" in with_processor(do_resize=False)
    said.write_text("{")
    assert "preprocessor_config.json cannot be read" in refused(folder, data)
    grey = image_model(tmp_path / "g", "grey")
    (grey / "preprocessor_config.json").write_text(json.dumps(before | {"do_convert_rgb": True}))
    assert "makes pictures of 3 channels, and the model takes 1 (num_channels)" in refused(grey, data)
    message = refused(bert_folder(tmp_path / "b"), data)
    assert (
        "transformers has no image classifier of model_type bert: name a model of timm, or of beit, bit, clip"
        in message
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_channels": 4}))
    assert "pictures of 4 channels (num_channels in config.json)" in refused(folder, data)
    (folder / "config.json").write_text(json.dumps({"model_type": "imagegpt"}))
    assert "a model of model_type imagegpt reads colours by number" in refused(folder, data)


def test_what_lies_below_the_head_is_the_checkpoint_s_where_a_class_has_no_base_model(tmp_path, data):
    """HGNet-V2's stem was drawn anew."""
    sizes = {"hidden_sizes": [16, 24], "stage_out_channels": [16, 24], "stage_mid_channels": [8, 8], "depths": [1, 1]}
    sizes |= {"stage_in_channels": [16, 16], "stage_num_blocks": [1, 1], "stage_numb_of_layers": [2, 2]}
    for name in ("stage_downsample", "stage_light_block", "stage_kernel_size"):
        sizes[name] = getattr(transformers.HGNetV2Config(), name)[:2]
    config = transformers.HGNetV2Config(num_labels=3, stem_channels=[3, 8, 16], embedding_size=16, **sizes)
    transformers.HGNetV2ForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    loaded = task_of(tmp_path, data).build_model()
    own, there = loaded.module.state_dict(), load_file(tmp_path / "model.safetensors")
    assert {key for key in own if not torch.equal(own[key], there[key])} == {"fc.weight", "fc.bias"}
    assert loaded.blocks[-1].parameters == ("fc.weight", "fc.bias")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pp_lcnet"}))
    assert "a model of model_type pp_lcnet gives no logits in transformers" in refused(tmp_path, data)


def test_weights_of_another_timm_model_are_refused(tmp_path, data):
    """timm draws what they lack at random, where the number of classes differs, and goes on."""
    folder = timm_folder(tmp_path / "m")
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({f"model.{name}": tensor for name, tensor in weights.items()}, file)
    with pytest.raises(
        JobError, match=r"lack conv1\.0\.weight, .* \(9 parameters of embeddings\).* they have model\.bn1\.bias"
    ):
        task_of(folder, data, 32).build_model()
    save_file({f"timm_model.{name}": tensor for name, tensor in weights.items()}, file)
    with pytest.raises(JobError, match=r"transformers has saved this model of timm, .*save_for_hf\(model\.timm_model"):
        task_of(folder, data, 32).build_model()
    config = json.loads((folder / "config.json").read_text())
    of_wrapper = json.dumps(config | {"model_type": "timm_wrapper", "model_args": None})
    (folder / "config.json").write_text(of_wrapper)
    assert "transformers has saved this model of timm" in refused(folder, data)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor for name, tensor in weights.items() if "layer4" not in name}, file)
    with pytest.raises(JobError, match=r"the weights lack layer4\.0\.conv1\.weight") as error:
        task_of(folder, data, 32).build_model()
    assert error.value.reason == "InvalidModel"
    save_file({name: tensor for name, tensor in weights.items() if "fc." not in name}, file)
    task_of(folder, data, 32).build_model()


def test_what_a_timm_model_is_made_with_goes_before_what_its_weights_began_with(tmp_path, data):
    """As earlier timm writes a grey model of another size: model_args alone say so."""
    folder = timm_folder(tmp_path / "m", "vit_tiny_patch16_224", in_chans=1, img_size=32, depth=1)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [3, 224, 224], "mean": [0.2, 0.4, 0.6], "std": [0.1, 0.2, 0.3]}
    (folder / "config.json").write_text(json.dumps(config))
    task = task_of(folder, data)
    [batch] = task.batches("validation", [[0]])
    assert batch["images"].shape == (1, 1, 32, 32)
    assert task.library.data_config["mean"] == pytest.approx((0.4,))
    assert task.library.data_config["std"] == pytest.approx((0.2,))
    loaded = task.build_model()
    task.export(loaded.module, tmp_path / "out", "Model")
    with patch.object(export, "reload", plain_outputs):
        task.verify_export(tmp_path / "out", "Model", loaded.module)


def test_a_broken_picture_that_is_skipped_is_one_without_anything_on_it(tmp_path):
    data = image_folder(tmp_path / "d")
    for label in ("blue", "red"):
        for number in range(6):
            if number % 2:
                (data / label / f"{number}.png").write_bytes(b"no picture")
    task = task_of(image_model(tmp_path / "m"), data, data={"onError": "Skip"})
    batch, pictures = task.first_samples()
    sees = task.modality.loader._sees
    for seen, picture in zip(batch["images"], pictures, strict=True):
        assert torch.equal(seen, sees.whole(Image.fromarray(picture.permute(1, 2, 0).numpy())))
    assert any(not picture.any() for picture in pictures)


def test_what_is_cut_out_at_random_is_scaled_and_normalised_as_the_processor_does_it(tmp_path, data):
    task = task_of(image_model(tmp_path / "m"), data)
    sees = task.modality.loader._sees
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    assert torch.equal(sees.sized(picture), sees.whole(picture))
    assert Path(task.library.path, "preprocessor_config.json").exists()
    assert task.library.files() == ["config.json", "model.safetensors", "preprocessor_config.json"]
