"""Exports load in the plain libraries, in a process of their own, with the same outputs; broken ones are found."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder, write_csv
from unfreeze_trainer.models import export, plain
from unfreeze_trainer.tasks import ExportKind, Task, open_task

LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
BOTTLENECK = {"adapter": {"type": "Bottleneck"}}
IMAGES = {"task": {"type": "ImageClassification", "imageClassification": {"imageSize": 48}}}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # some start processes that import everything anew


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


@dataclass
class Exported:
    """An export, the model that it was written from, and what plain libraries make of it."""

    task: Task
    kind: ExportKind
    module: torch.nn.Module
    folder: Path
    before: dict[str, torch.Tensor]
    found: tuple[torch.Tensor, list[str]] | None = None


CASES: dict[str, tuple[str, ExportKind, dict[str, Any]]] = {
    "text-model": ("text", "Model", {}),
    "text-lora": ("text", "Adapter", LORA),
    "text-merged": ("text", "Merged", LORA),
    "text-bottleneck": ("text", "Adapter", BOTTLENECK),
    "image-model": ("image", "Model", {}),
    "image-lora": ("image", "Adapter", LORA),
    "image-merged": ("image", "Merged", LORA),
}
# A fresh process that knows nothing of Unfreeze, as the one that a worker starts, but for several exports.
LOAD_ALL = """
import json, runpy, sys
main = runpy.run_path(sys.argv[1])["main"]
for arguments in json.loads(sys.argv[2]):
    main(*arguments)
assert not [name for name in sys.modules if name.startswith("unfreeze")]
"""


class Asked(BaseException):
    """Ends a verification that has asked for an export to be loaded."""


@pytest.fixture(scope="module")
def exports(text, image, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    root, made, wanted = tmp_path_factory.mktemp("exports"), {}, []

    def note(load: str, outputs: str, names: str, inputs: Any) -> None:
        lines = root / f"{len(wanted)}.pt"
        torch.save({"load": load, "outputs": outputs, "names": names, "inputs": inputs}, lines)
        wanted.append([str(lines)])
        raise Asked

    for name, (modality, kind, change) in CASES.items():
        options = {"data": {"test": {"fraction": 0.1}}} if modality == "text" else IMAGES
        task = open_task(make_job(*(text if modality == "text" else image), **options, **change))
        module = frozen_base(task) if change else moved(task)
        before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
        one = made[name] = Exported(task, kind, module, root / name, before)
        task.export(module, one.folder, kind, metrics={"test.accuracy": 0.5} if modality == "text" else None)
        with patch.object(export, "reload", note), suppress(Asked):
            task.verify_export(one.folder, kind, module)
    command = [sys.executable, "-P", "-c", LOAD_ALL, plain.__file__, json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if line.startswith('{"outputs"')]
    for one, line in zip(made.values(), answers, strict=True):
        found = json.loads(line)
        one.found = torch.tensor(found["outputs"]), found["names"]
    return made


@pytest.mark.parametrize("name", CASES)
def test_exports(exports: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    one = exports[name]
    monkeypatch.setattr(export, "reload", lambda *_: one.found)
    one.task.verify_export(one.folder, one.kind, one.module)
    assert all(torch.equal(tensor, one.before[key]) for key, tensor in one.module.state_dict().items())


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("text")])
def test_the_card_of_an_export(exports: dict[str, Exported], name: str) -> None:
    task, kind, folder = exports[name].task, exports[name].kind, exports[name].folder
    card = (folder / "README.md").read_text()
    assert "| test.accuracy | 0.5000 |" in card
    assert task.pins["data"]["train"]["sha256"] in card
    assert task.pins["base"]["files"]["model.safetensors"] in card
    assert f"torch {torch.__version__.partition('+')[0]}" in card
    data = ModelCard(card).data
    assert data.library_name == ("peft" if name == "text-lora" else "transformers")
    [result] = data.eval_results
    assert (result.dataset_split, result.metric_type, result.metric_value) == ("test", "accuracy", 0.5)
    if kind == "Adapter":
        assert not (folder / "model.safetensors").exists()


def test_a_wrong_export_is_found(text: tuple[Path, Path], tmp_path: Path) -> None:
    task = open_task(make_job(*text))
    module = moved(task)
    task.export(module, tmp_path / "out", "Model")
    file = tmp_path / "out" / "model.safetensors"
    weights = load_file(file)
    weights["classifier.weight"] *= 1.5
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="gives other outputs"):
        task.verify_export(tmp_path / "out", "Model", module)
    file.write_bytes(b"broken")
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        task.verify_export(tmp_path / "out", "Model", module)
