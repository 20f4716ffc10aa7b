"""How well drawings and photographs are told apart by their folders: the stamps of Tux Paint, beside scikit-learn.

    python -m bench.stamps FOLDER

Needs `apt-get` (Debian's package tuxpaint-stamps-default) and pip, as `bench.pictures` does. Prints JSON, and keeps it in bench/results: accuracy on stamps that were
held out, with its 95 % interval, of timm's EfficientNet-Lite0 and of transformers' MobileNetV2, both pretrained on photographs, and of a
logistic regression on what the plain libraries' frozen models give for the same training pictures. Stamps with the same caption are in
one split; folders with few stamps, and those with signs, are left out.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.pictures import MODELS
from bench.support.outcomes import SEED, record, said, told, trained
from examples.prepare import prepare_images
from examples.prepare_audio import STAMPS, STAMPS_FILE, STAMPS_SHA256, fetched
from examples.prepare_mobilenet import write_mobilenet

SIZE = 128
FEWEST = 30
TEST_SHARE = 0.3


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_images(folder)
    write_mobilenet(folder / "models" / "mobilenet-v2")
    write_stamps(folder / "stamps")
    found: dict[str, Any] = {"benchmark": "stamps"}
    found |= {split: len(list((folder / "stamps" / split).glob("*/*.png"))) for split in ("train", "test")}
    for name, model in MODELS.items():
        plain = f"scikit-learn: logistic regression on the frozen {name}"
        found[plain] = record("stamps", plain, partial(_plain, folder, model))
        found[name] = record("stamps", name, partial(_tuned, folder, f"stamps-{model}", model))
    print(json.dumps(found, indent=1), flush=True)


def write_stamps(place: Path) -> None:
    """Write pictures below PLACE/{train,test}/LABEL; what is there is kept."""
    if (place / "test").exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    package = fetched(STAMPS_FILE, ["apt-get", "download", STAMPS], STAMPS_SHA256)
    subprocess.run(["dpkg-deb", "-x", package, place / "package"], check=True)
    root = place / "package" / "usr" / "share" / "tuxpaint" / "stamps"
    for kind in sorted(root.iterdir()):
        captions = defaultdict(list)
        for file in sorted(kind.rglob("*.png")):
            text = file.with_suffix(".txt")
            lines = text.read_text(errors="replace").splitlines() if text.exists() else []
            captions[lines[0] if lines else file.stem].append(file)
        if kind.name == "symbols" or sum(map(len, captions.values())) < FEWEST:
            continue
        groups = list(captions.values())
        random.Random(SEED).shuffle(groups)  # noqa: S311 - a split, not a secret
        for number, files in enumerate(groups):
            into = place / ("test" if number < TEST_SHARE * len(groups) else "train") / kind.name
            into.mkdir(parents=True, exist_ok=True)
            for file in files:
                (into / "-".join(file.relative_to(kind).parts)).write_bytes(file.read_bytes())


def _plain(folder: Path, model: str) -> dict[str, Any]:
    """Return what a logistic regression on a frozen model's outputs is right in."""
    from PIL import Image

    features = _features(folder / "models" / model)
    parts = []
    for split in ("train", "test"):
        files = sorted((folder / "stamps" / split).glob("*/*.png"))
        pictures = (Image.open(file).convert("RGBA") for file in files)
        whole = [Image.alpha_composite(Image.new("RGBA", one.size, "white"), one).convert("RGB") for one in pictures]
        parts.append((np.stack([features(one) for one in whole]), [file.parent.name for file in files]))
    (train, labels), (test, actual) = parts
    regression = LogisticRegressionCV(Cs=[1e-4, 1e-3, 1e-2, 1e-1], cv=4, max_iter=500, random_state=SEED)
    return told(make_pipeline(StandardScaler(), regression).fit(train, labels).predict(test) == np.array(actual))


def _features(place: Path) -> Any:
    """Return a function that gives what the plain library's model makes of a picture below its classifier."""
    import torch

    if "mobilenet" in place.name:
        from transformers import AutoImageProcessor, AutoModel

        processor = AutoImageProcessor.from_pretrained(place, backend="pil", trust_remote_code=False)
        sizes = {"size": {"shortest_edge": round(SIZE * 256 / 224)}, "crop_size": {"height": SIZE, "width": SIZE}}
        whole = AutoModel.from_pretrained(place, trust_remote_code=False).eval()

        def outputs(picture: Any) -> Any:
            return whole(**processor(picture, return_tensors="pt", **sizes)).pooler_output
    else:
        import timm

        module = timm.create_model(f"local-dir:{place}", pretrained=True, num_classes=0).eval()
        config = timm.data.resolve_model_data_config(module) | {"input_size": (3, SIZE, SIZE)}
        transform = timm.data.create_transform(**config, is_training=False)

        def outputs(picture: Any) -> Any:
            return module(transform(picture).unsqueeze(0))

    return torch.no_grad()(lambda picture: outputs(picture)[0].numpy())


def _tuned(folder: Path, name: str, model: str) -> dict[str, Any]:
    """Return the test accuracy of a model that was trained on the stamps."""
    spec = {
        "model": {"source": f"file://{folder}/models/{model}"},
        "task": {"type": "ImageClassification", "imageClassification": {"imageSize": SIZE}},
        "data": {
            "train": {"source": f"file://{folder}/stamps/train"},
            "validation": {"fraction": 0.1},
            "test": {"source": f"file://{folder}/stamps/test"},
        },
        "strategy": {
            "type": "LinearProbeThenFineTune",
            "linearProbeThenFineTune": {"probeEpochs": 4},
            "learningRate": {"head": 1e-2, "backbone": 1e-3},
        },
        "training": {"epochs": 6, "batchSize": 32, "seed": SEED},
    }
    trained(folder, name, spec)
    rows = said(folder, name)
    return told(np.array(rows["label"]) == np.array(rows["prediction"]))


if __name__ == "__main__":
    main()
