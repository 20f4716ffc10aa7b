"""The lines that people are shown, run exactly as they stand, for every kind of export.

The base has other labels, and another number of them, than the job: what it says must not come through.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.trainer.jobs import (
    audio_folder,
    audio_model,
    bert_folder,
    image_folder,
    image_model,
    make_job,
    timm_folder,
    write_csv,
)
from unfreeze_trainer.data.pictures import decode
from unfreeze_trainer.tasks import open_task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
BOTTLENECK = {"adapter": {"type": "Bottleneck"}}
PROMPT = {"adapter": {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 3}}}
TEXTS = {
    "model": ("Model", {}),
    "lora": ("Adapter", LORA),
    "merged": ("Merged", LORA),
    "bottleneck": ("Adapter", BOTTLENECK),
    "prompt": ("Adapter", PROMPT),
}
IMAGES = {
    "model": ("Model", {}),
    "lora": ("Adapter", LORA),
    "merged": ("Merged", LORA),
    "bottleneck": ("Adapter", BOTTLENECK),
}
CONVOLUTIONS = {"adapter": {"type": "LoRA", "lora": {"r": 2, "targetModules": ["convolution"]}}}
PICTURES = {"model": ("Model", {}), "lora": ("Adapter", CONVOLUTIONS)}
SOUNDS = {"model": ("Model", {}), "lora": ("Adapter", LORA), "merged": ("Merged", LORA)}
BASE_LABELS = {"three": ["neutral", "negatif", "positif"], "five": list("vwxyz")}
LONG = "war " * 150
_RUNNER = """
import contextlib, io, json, os, sys
for folder, texts in json.load(open(sys.argv[1])).items():
    for name, text in texts.items():
        said = io.StringIO()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(said):
                exec(compile(text, name, "exec"), {})
            answer = said.getvalue().strip().splitlines()[-1]
        except Exception as error:
            answer = repr(error)
        print("answer", json.dumps([folder, name, answer]))
"""


def base(folder: Path, labels) -> Path:
    """A BERT that is a classifier of something else already."""
    from transformers import AutoModelForSequenceClassification

    bert_folder(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels))
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: number for number, label in enumerate(labels)}
    model.save_pretrained(folder)
    return folder


def trained(task, change):
    """Weights moved so that no class is the default one."""
    model = task.build_model()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            head = name in model.blocks[-1].parameters
            if not change or head or name in model.adapter_parameters:
                parameter.add_((2.0 if head else 0.05) * torch.randn(parameter.shape, generator=generator))
    return model.module.eval()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each set of lines prints, by export and by where it is shown, beside what the task itself predicts."""
    root = tmp_path_factory.mktemp("usage")
    runs, expected = {}, {}
    table = write_csv(root / "t.csv", rows=60)
    for kind_of_base, labels in BASE_LABELS.items():
        folder = base(root / kind_of_base, labels)
        for name, (kind, change) in TEXTS.items():
            out = root / f"text-{kind_of_base}-{name}"
            task = open_task(make_job(folder, table, task={"textClassification": {"maxLength": 12}}, **change))
            module = trained(task, change)
            task.export(module, out, kind)
            runs[str(out)] = shown(task, kind, out, folder)
            expected[out.name] = {text: predicted(task, module, text) for text in ("some text", LONG)}
    vit = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 32, "patch_size": 16, "num_classes": 7}
    folder, data = timm_folder(root / "vit", "vit_tiny_patch16_224", **vit), image_folder(root / "d")
    for name, (kind, change) in IMAGES.items():
        out = root / f"image-{name}"
        options = {"type": "ImageClassification", "imageClassification": {"imageSize": 48}}
        task = open_task(make_job(folder, data, task=options, **change))
        module = trained(task, change)
        task.export(module, out, kind)
        (out / "picture.png").write_bytes((data / "red" / "0.png").read_bytes())
        runs[str(out)] = shown(task, kind, out, folder)
        picture = task.modality.loader._sees.whole(decode(str(out / "picture.png"), "RGB"))
        expected[out.name] = task.labels[int(task.forward(module, {"images": picture[None]}).argmax())]
    folder = image_model(root / "resnet", "resnet")
    for name, (kind, change) in PICTURES.items():
        out = root / f"picture-{name}"
        task = open_task(make_job(folder, data, task={"type": "ImageClassification"}, **change))
        module = trained(task, change)
        task.export(module, out, kind)
        (out / "picture.png").write_bytes((data / "red" / "0.png").read_bytes())
        runs[str(out)] = shown(task, kind, out, folder)
        picture = task.modality.loader._sees.whole(decode(str(out / "picture.png"), "RGB"))
        expected[out.name] = task.labels[int(task.forward(module, {"images": picture[None]}).argmax())]
    folder, data = audio_model(root / "whisper", "whisper"), audio_folder(root / "clips")
    for name, (kind, change) in SOUNDS.items():
        out = root / f"audio-{name}"
        options = {"type": "AudioClassification", "audioClassification": {"maxSeconds": 0.8}}
        task = open_task(make_job(folder, data, task=options, **change))
        module = trained(task, change)
        task.export(module, out, kind)
        (out / "clip.wav").write_bytes((data / "high/3.mp3").read_bytes())
        runs[str(out)] = shown(task, kind, out, folder)
        heard = task.modality.loader.gather(
            [task.modality.loader.prepare(task.modality.loader.decode(str(out / "clip.wav")), 0, None)]
        )
        expected[out.name] = task.labels[int(task.forward(module, heard).argmax())]
    (root / "runs.json").write_text(json.dumps(runs))
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER, root / "runs.json"], capture_output=True, text=True, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("answer "):
            folder, name, answer = json.loads(line.removeprefix("answer "))
            found[Path(folder).name, name] = answer
    return found, expected


def predicted(task, module, text: str) -> str:
    batch = task.modality.tokenizer(text, truncation=True, max_length=task.modality.max_length, return_tensors="pt")
    with torch.no_grad():
        return task.labels[int(task.forward(module, batch).argmax())]


def shown(task, kind, out: Path, base_folder: Path):
    card = (out / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    console = Console(width=80, record=True, soft_wrap=True)
    console.print(task.usage(kind, str(out), str(base_folder)), highlight=False, markup=False)
    texts = {"card": card, "terminal": console.export_text()}
    if kind != "Adapter" and "text" in out.name:
        texts["long text"] = card.replace("some text", LONG)
    return texts


CASES = [
    *(f"text-{base}-{name}" for base in BASE_LABELS for name in TEXTS),
    *(f"image-{name}" for name in IMAGES),
    *(f"picture-{name}" for name in PICTURES),
    *(f"audio-{name}" for name in SOUNDS),
]


@pytest.mark.parametrize("case", CASES)
def test_the_lines_run_and_say_what_the_training_says(answers, case):
    found, expected = answers
    label = expected[case]["some text"] if case.startswith("text") else expected[case]
    assert found[case, "card"] in (label, found[case, "terminal"])
    assert found[case, "terminal"] == label or f"'label': '{label}'" in found[case, "terminal"]


@pytest.mark.parametrize("case", [case for case in CASES if case.endswith(("model", "merged")) and "text" in case])
def test_long_texts_are_cut_where_the_training_cut_them(answers, case):
    found, expected = answers
    assert f"'label': '{expected[case][LONG]}'" in found[case, "long text"]
