"""Exports load in the plain libraries, in a process of their own, with the same logits; broken ones are found."""

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder, write_csv
from unfreeze_trainer.tasks import ExportKind, Task, open_task

LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
BOTTLENECK = {"adapter": {"type": "Bottleneck"}}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # each starts processes that import everything anew


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("text")
    return bert_folder(root / "m"), write_csv(root / "t.csv")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("image")
    vit = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 32, "patch_size": 16}
    return timm_folder(root / "m", "vit_tiny_patch16_224", **vit), image_folder(root / "d")


def moved(task: Task) -> torch.nn.Module:
    """Return the task's model with every weight moved, as training would."""
    module = task.build_model().module
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module


def frozen_base(task: Task) -> torch.nn.Module:
    model = task.build_model()
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if name in model.adapter_parameters:
                parameter.add_(0.05)
    return model.module


@pytest.mark.parametrize(
    ("kind", "change"), [("Model", {}), ("Adapter", LORA), ("Merged", LORA), ("Adapter", BOTTLENECK)]
)
def test_text_exports(text: tuple[Path, Path], tmp_path: Path, kind: ExportKind, change: dict[str, Any]) -> None:
    task = open_task(make_job(*text, data={"test": {"fraction": 0.1}}, **change))
    module = frozen_base(task) if change else moved(task)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    task.export(module, tmp_path / "out", kind, metrics={"test.accuracy": 0.5})
    task.verify_export(tmp_path / "out", kind, module)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| test.accuracy | 0.5000 |" in card
    assert task.pins["data"]["train"]["sha256"] in card
    assert task.pins["base"]["files"]["model.safetensors"] in card
    assert f"torch {torch.__version__.partition('+')[0]}" in card
    data = ModelCard(card).data
    assert data.library_name == ("peft" if kind == "Adapter" and change == LORA else "transformers")
    [result] = data.eval_results
    assert (result.dataset_split, result.metric_type, result.metric_value) == ("test", "accuracy", 0.5)
    if kind == "Adapter":
        assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(("kind", "change"), [("Model", {}), ("Adapter", LORA), ("Merged", LORA)])
def test_image_exports(image: tuple[Path, Path], tmp_path: Path, kind: ExportKind, change: dict[str, Any]) -> None:
    options = {"type": "ImageClassification", "imageClassification": {"imageSize": 48}}
    task = open_task(make_job(*image, task=options, **change))
    module = frozen_base(task) if change else moved(task)
    task.export(module, tmp_path / "out", kind)
    task.verify_export(tmp_path / "out", kind, module)


def test_a_wrong_export_is_found(text: tuple[Path, Path], tmp_path: Path) -> None:
    task = open_task(make_job(*text))
    module = moved(task)
    task.export(module, tmp_path / "out", "Model")
    file = tmp_path / "out" / "model.safetensors"
    weights = load_file(file)
    weights["classifier.weight"] *= 1.5
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="gives other logits"):
        task.verify_export(tmp_path / "out", "Model", module)
    file.write_bytes(b"broken")
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        task.verify_export(tmp_path / "out", "Model", module)
