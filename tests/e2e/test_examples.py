"""Examples that `make demo` does not run, as they lie there, in pods: LoRA under ZeRO-2, images with a timm model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo import REPOSITORY, volumes
from examples.prepare import prepare, prepare_images
from tests.cluster.cluster import Cluster
from tests.operator.world import Json

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]
SECONDS = 800.0
QUESTION = "How far is it from Denver to Aspen ?"
LOAD_ADAPTER = """
import sys, torch
from peft import PeftModel
from runpy import run_path
from transformers import AutoTokenizer
models, run, question = sys.argv[1:]
base = run_path(run + "/adapter/pooled.py")["load_base"](models + "/minilm", run + "/adapter")
plain = AutoTokenizer.from_pretrained(run + "/adapter")(question, return_tensors="pt")
merged = run_path(run + "/model/pooled.py")["load"](run + "/model").eval()
model = PeftModel.from_pretrained(base, run + "/adapter").eval()
with torch.no_grad():
    assert torch.allclose(model(**plain).logits, merged(**plain).logits, atol=1e-4)
    print(merged.config.id2label[int(merged(**plain).logits.argmax())])
"""
LOAD_IMAGES = """
import sys, timm
from pathlib import Path
from PIL import Image
run, data = sys.argv[1:]
model = timm.create_model("local-dir:" + run + "/model", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
files = sorted(Path(data, "digits/test").glob("*/*.png"))[::3]
said = [model.pretrained_cfg["label_names"][int(model(transform(Image.open(f).convert("RGB"))[None]).argmax())] for f in files]
print(sum(label == f.parent.name for label, f in zip(said, files)) / len(files))
"""


@pytest.fixture(scope="module")
def folder(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models and data behind the claims of examples/volumes.yaml, in a namespace of their own."""
    folder = tmp_path_factory.mktemp("examples")
    prepare(folder)
    prepare_images(folder)
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)  # pytest's folders are for their owner alone
    installed.kubectl("create", "namespace", "examples")
    volumes(installed, folder, "examples")
    yield folder
    installed.kubectl("delete", "namespace", "examples", "--wait=false")
    installed.kubectl("delete", "pv", "models", "data", "results", "--wait=false")


def _run(cluster: Cluster, file: str) -> Json:
    cluster.kubectl("-n", "examples", "apply", "-f", str(REPOSITORY / "examples" / file))

    path = f"/apis/unfreeze.dev/v1alpha1/namespaces/examples/finetunejobs/{Path(file).stem}"
    try:
        job = cluster.wait_for(
            path, lambda job: "completionTime" in job.get("status", {}), timeout=SECONDS, what="ended"
        )
    finally:
        cluster.request("DELETE", path)  # what has failed to end takes nothing from the next test
    status: Json = job["status"]
    assert status["phase"] == "Succeeded", status
    return status


def _python(program: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_lora_under_zero_2(installed: Cluster, folder: Path) -> None:
    status = _run(installed, "adapters/lora.yaml")
    assert status["results"]["test.accuracy"] > 0.85  # TF-IDF and logistic regression: .77
    assert status["phases"][0]["trainableParameters"] < 1_000_000
    assert _python(LOAD_ADAPTER, folder / "models", folder / "results/lora", QUESTION) in {"NUM", "LOC"}


def test_images(installed: Cluster, folder: Path) -> None:
    status = _run(installed, "tasks/image-classification.yaml")
    assert status["results"]["test.accuracy"] > 0.88  # one seed gave .94
    assert [phase["name"] for phase in status["phases"]] == ["head", "all"]
    assert float(_python(LOAD_IMAGES, folder / "results/image-classification", folder / "data")) > 0.85
