"""How fast `unfreeze features` computes vectors, beside sentence-transformers' encode and a plain loop over timm.

    python -m bench.extract [SAMPLES [ROUNDS]]

Needs the packages of the examples' weights. Texts of mixed length through MiniLM, handwritten digits through EfficientNet-Lite0, batches of 32; each
way reads and prepares its inputs and keeps all vectors, importing libraries and loading the model are not counted, nor is the table of
texts. Prints JSON: rows per second by the processor's time (user and system), and how many times as fast as the library; `same` is whether the vectors are.
Goals: 1.3 times for texts of mixed length, 1.0 for pictures.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.predict import WORDS
from examples.prepare import prepare, prepare_images
from unfreeze_trainer.commands.local import open_job
from unfreeze_trainer.commands.predict import BATCH_SIZE
from unfreeze_trainer.ranking.extract import Extracted
from unfreeze_trainer.tasks import open_task

ATOL = 1e-4
"""Between vectors of the two: sums over another padded length differ in the last digits."""
TEXTS = "{type: TextClassification, textClassification: {maxLength: 256, pooling: Mean}}"
PICTURES = "{type: ImageClassification, imageClassification: {imageSize: 64, augmentation: None}}"
MANIFEST = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: features}
spec:
  model: {source: MODEL}
  task: TASK
  data: {train: {source: DATA}, validation: {fraction: 0.05}}
  strategy: {type: FeatureExtraction}
  output: {destination: run}
"""


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    samples, rounds = int((sys.argv[1:] or ["600"])[0]), int((sys.argv[2:] or ["3"])[0])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder)
        prepare_images(folder)
        found = {"texts": _texts(folder, samples, rounds), "pictures": _pictures(folder, rounds)}
    print(
        json.dumps(
            {"benchmark": "extract", "batchSize": BATCH_SIZE, "threads": torch.get_num_threads(), **found}, indent=1
        )
    )


def _opened(folder: Path, model: str, task: str, data: str) -> Extracted:
    text = MANIFEST.replace("MODEL", str(folder / model)).replace("TASK", task).replace("DATA", str(folder / data))
    (folder / "job.yaml").write_text(text)
    opened: Any = open_task(open_job(folder / "job.yaml", (), None))
    return Extracted(opened, "train", torch.device("cpu"), labelled=True)


def _texts(folder: Path, samples: int, rounds: int) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    rng = random.Random(0)  # noqa: S311 - texts, not a secret
    rows = [
        {"text": " ".join(rng.choices(WORDS, k=round(rng.lognormvariate(3, 0.9)) + 1)), "label": str(row % 2)}
        for row in range(samples)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    body = Transformer(str(folder / "models/minilm"), max_seq_length=256)
    model = SentenceTransformer(modules=[body, Pooling(body.get_embedding_dimension(), "mean")], device="cpu")

    def theirs(places: list[int]) -> np.ndarray:
        return np.asarray(model.encode([rows[place]["text"] for place in places], batch_size=BATCH_SIZE))

    return _compared(_opened(folder, "models/minilm", TEXTS, "texts.jsonl"), theirs, rounds)


def _pictures(folder: Path, rounds: int) -> dict[str, Any]:
    import timm
    from PIL import Image
    from safetensors.torch import load_file

    model = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    model.load_state_dict(load_file(folder / "models/efficientnet-lite0/model.safetensors"), strict=False)
    model.eval()
    config = timm.data.resolve_data_config({"input_size": (3, 64, 64)}, model=model)
    transform = timm.data.create_transform(**config)
    found = _opened(folder, "models/efficientnet-lite0", PICTURES, "data/digits/train")
    files = found.task.known("train", np.arange(found.samples), inputs=True)["file"].to_pylist()

    @torch.inference_mode()
    def theirs(_: list[int]) -> np.ndarray:
        parts = []
        for start in range(0, len(files), BATCH_SIZE):
            pictures = [
                Image.open(folder / "data/digits/train" / name).convert("RGB")
                for name in files[start : start + BATCH_SIZE]
            ]
            parts.append(model(torch.stack([transform(picture) for picture in pictures])).numpy())
        return np.concatenate(parts)

    return _compared(found, theirs, rounds)


def _compared(found: Extracted, theirs: Callable[[list[int]], np.ndarray], rounds: int) -> dict[str, Any]:
    rows = found.task.known("train", np.arange(found.samples), inputs=False).get("row")
    places = [row - 1 for row in rows.to_pylist()] if rows is not None else []
    seconds: dict[str, list[float]] = {"unfreeze": [], "library": []}
    ours = other = np.zeros(0)
    for _ in range(rounds):
        start = _worked()
        ours = np.concatenate(
            [part["features"].flatten().to_numpy() for part in found.columns(None, BATCH_SIZE, inputs=False)]
        )
        seconds["unfreeze"].append(_worked() - start)
        start = _worked()
        other = theirs(places).ravel()
        seconds["library"].append(_worked() - start)
    least = {name: min(times) for name, times in seconds.items()}
    return {
        "rows": found.samples,
        "rows per second": {name: round(found.samples / one, 1) for name, one in least.items()},
        "ratio": round(least["library"] / least["unfreeze"], 2),
        "same": bool(np.allclose(ours, other, atol=ATOL)),
    }


def _worked() -> float:
    times = os.times()
    return times.user + times.system


if __name__ == "__main__":
    main()
