"""How well captions of pictures, written and spoken, are found in a space that was learned of others: the stamps of Tux Paint.

    python -m bench.alignment FOLDER [EXAMPLE...]

Needs `apt-get` and pip, as examples/prepare_stamps.py does. Prints JSON, and keeps it in bench/results: recall@1 and @5 of the test data
by each direction, with 95 % intervals (a bootstrap over captions) and what chance gives, of the jobs of examples/tasks that are
named, alignment, alignment-class-names and alignment-audio by default. The exports are asked by their own script, bridge.py. A picture, a text
or a clip looks among the distinct ones of the test data; a clip is right with each text and picture of its caption.
NAME:CLIPS is a job with so many of each picture's clips to train on, drawn by the seed, and not all: alignment-audio:2 takes a third of the time.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np

from bench.support.outcomes import SEED, example, interval, record, trained
from examples.prepare_stamps import prepare_all

EXAMPLES = ("alignment", "alignment-class-names", "alignment-audio")


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_all(folder)
    for name in sys.argv[2:] or EXAMPLES:
        print(json.dumps(record("alignment", name, partial(_measured, folder, name)), indent=1), flush=True)


def _measured(folder: Path, name: str) -> dict[str, Any]:
    name, _, clips = name.partition(":")
    spec = example(folder, f"tasks/{name}.yaml")
    if clips:
        name = f"{name}-{clips}"
        spec["data"]["train"]["source"] = f"file://{_fewer(spec['data']['train']['source'], int(clips))}"
    trained(folder, name, spec)
    table = Path(spec["data"]["test"]["source"].removeprefix("file://"))
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    bridge = run_path(str(folder / name / "model" / "bridge.py"))["load"](str(folder / name / "model"))
    read: dict[str, Callable[[Any], Any]] = {
        "image": picture,
        "text": lambda text: text,
        "audio": partial(clip, rate=getattr(bridge, "audio_rate", 0)),
    }
    cells, vectors = {}, {}
    for modality in [one for one in read if hasattr(bridge, f"embed_{one}")]:
        cells[modality] = [*dict.fromkeys((row[modality], row["text"]) for row in rows)]
        samples = [read[modality](cell if modality == "text" else table.parent / cell) for cell, _ in cells[modality]]
        vectors[modality] = getattr(bridge, f"embed_{modality}")(samples).numpy()
    return {
        f"{asks} to {told}": recall(
            vectors[asks] @ vectors[told].T, [text for _, text in cells[asks]], [text for _, text in cells[told]]
        )
        for asks, told in permutations(cells, 2)
    }


def _fewer(source: str, clips: int) -> Path:
    """Write a table beside another one, with so many rows of each picture that have a clip; return its path."""
    table = Path(source.removeprefix("file://"))
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    order = np.random.default_rng(SEED).permutation(len(rows))
    seen, kept = Counter[str](), set[int]()
    for number in order.tolist():
        row = rows[number]
        seen[row["image"]] += bool(row["audio"])
        kept |= {number} if not row["audio"] or seen[row["image"]] <= clips else set()
    found = table.with_name(f"{table.stem}-{clips}.jsonl")
    found.write_text("".join(f"{json.dumps(row)}\n" for number, row in enumerate(rows) if number in kept))
    return found


def recall(scores: np.ndarray, asks: list[str], told: list[str]) -> dict[str, Any]:
    """Return recall@1 and @5, their intervals over captions, and what chance gives.

    Parameters
    ----------
    scores
        Of each that asks with each that is told, (asks, told).
    asks, told
        The caption of each: equal ones belong together.
    """
    right = np.array(asks)[:, None] == np.array(told)
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(right, order, axis=1)
    captions, of = np.unique(asks, return_inverse=True)
    found: dict[str, Any] = {"queries": len(asks), "captions": len(captions), "among": len(told)}
    rng = np.random.default_rng(0)
    for best in (1, 5):
        hit = hits[:, :best].any(axis=1).astype(float)
        sums = np.stack([np.bincount(of, hit), np.bincount(of)])
        chance = np.mean(
            [
                np.take_along_axis(right, np.argsort(rng.random(scores.shape), axis=1), axis=1)[:, :best].any(axis=1)
                for _ in range(200)
            ]
        )
        found[f"recall@{best}"] = round(float(hit.mean()), 4)
        found[f"recall@{best} 95 %"] = interval(partial(_share, sums), len(captions))
        found[f"recall@{best} by chance"] = round(float(chance), 4)
    return found


def _share(sums: np.ndarray, drawn: np.ndarray) -> float:
    """Return the share of hits of the captions drawn; `sums` are hits and queries of each, (2, captions)."""
    hits, queries = sums[:, drawn].sum(axis=1)
    return float(hits / queries)


def picture(file: Path) -> Any:
    """Return a picture of Pillow."""
    from PIL import Image

    found = Image.open(file)
    found.load()
    return found


def clip(file: Path, rate: int) -> np.ndarray:
    """Return a clip of one channel, float32 of shape (values,), at a rate."""
    import soundfile
    import soxr

    sound, own = soundfile.read(file, dtype="float32", always_2d=True)
    wave: np.ndarray = soxr.resample(sound.mean(axis=1), own, rate)
    return wave


if __name__ == "__main__":
    main()
