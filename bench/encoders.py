"""Whether neighbours say beforehand which encoders go together best: pictures and texts of Tux Paint's stamps, four pairs of encoders.

    python -m bench.encoders FOLDER

Needs `apt-get` and pip, as `bench.alignment` does, whose split it takes. Prints JSON, and keeps it in bench/results: of each encoder the share of
training rows whose 10 nearest neighbours among the others lie in the same folder of stamps (leave-one-out; nearness is the cosine of
centred features), which needs no training; of each pair the mean of its two, and what examples/tasks/alignment.yaml reaches with it:
recall@1 of both ways on the test data with its 95 % interval (a bootstrap over captions). At last the rank correlation of both over the pairs.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from itertools import product
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bench.alignment import recall
from bench.support.outcomes import example, record, trained
from bench.support.paraphrase import write_paraphrase
from bench.words import opened
from examples.prepare_stamps import prepare_all

PICTURES, TEXTS = ("efficientnet-lite0", "mobilenet-v2"), ("minilm", "paraphrase-minilm")
NEIGHBOURS = 10


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_all(folder)
    write_paraphrase(folder / "models" / "paraphrase-minilm", folder / "models" / "minilm")
    rows = [
        record("encoders", f"{one} + {other}", partial(_measured, folder, one, other))
        for one, other in product(PICTURES, TEXTS)
    ]
    found = [[row[name] for row in rows] for name in ("neighbours", "recall@1 of both ways")]
    print(
        json.dumps({"rows": rows, "rank correlation": round(float(spearmanr(*found).statistic), 3)}, indent=1),
        flush=True,
    )


def _measured(folder: Path, picture: str, text: str) -> dict[str, Any]:
    spec, name = example(folder, "tasks/alignment.yaml"), f"{picture}-{text}"
    sources = (("Image", picture), ("Text", text))
    spec["model"] = {
        "towers": [{"modality": reads, "source": f"file://{folder}/models/{one}"} for reads, one in sources]
    }
    trained(folder, name, spec)
    bridge = run_path(str(folder / name / "model" / "bridge.py"))["load"](str(folder / name / "model"))
    seen, told = {}, {}
    for split in ("train", "test"):
        table = Path(spec["data"][split]["source"].removeprefix("file://"))
        rows = [json.loads(line) for line in table.read_text().splitlines()]
        seen[split] = [opened(table.parent / row["image"]) for row in rows]
        told[split] = [row["text"] for row in rows]
        kinds = np.array([Path(row["image"]).name.partition("-")[0] for row in rows])
        if split == "train":
            each = [
                neighbours(read(samples).numpy(), kinds)
                for read, samples in ((bridge.read_image, seen[split]), (bridge.read_text, told[split]))
            ]
    scores = (bridge.embed_image(seen["test"]) @ bridge.embed_text(told["test"]).T).numpy()
    ways = {
        "image to text": recall(scores, told["test"], told["test"]),
        "text to image": recall(scores.T, told["test"], told["test"]),
    }
    both = np.mean([one["recall@1"] for one in ways.values()])
    return {
        "neighbours of pictures": round(each[0], 4),
        "neighbours of texts": round(each[1], 4),
        "neighbours": round(sum(each) / 2, 4),
        "recall@1 of both ways": round(float(both), 4),
    } | ways


def neighbours(features: np.ndarray, kinds: np.ndarray) -> float:
    """Return the share of the nearest neighbours that are of the same kind, of features of shape (rows, width)."""
    centred = features - features.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = centred @ centred.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    return float((kinds[nearest] == kinds[:, None]).mean())


if __name__ == "__main__":
    main()
