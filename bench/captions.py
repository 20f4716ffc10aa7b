"""What a picture tells a language model: captions of pictures that it has never seen, beside no picture and beside another one.

    python -m bench.captions FOLDER

Needs `apt-get`, pip and the package gguf, as examples/prepare_stamps.py and examples/prepare_dialogues.py do. Prints JSON, and keeps it in
bench/results: loss of the test captions (nats a token, with the token that ends each) and exact match of what is written, the most probable
token each time, with 95 % intervals (a bootstrap over captions), of

- captioning.yaml, the example as it lies there;
- the same model where each caption is given the picture of the next one;
- the same model with one grey picture for all captions;
- the same job on the same captions, each with a grey picture in training and test: the language model without a picture.

Captions are compared without regard to case, blanks and the stop at their end. All is asked by the exports' own script, captioner.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np

from bench.support.outcomes import example, interval, record, trained
from examples.prepare import prepare_images
from examples.prepare_dialogues import prepare_smollm
from examples.prepare_stamps import key, prepare_stamps

NAME = "captioning"
SIDE = 64


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_images(folder)
    prepare_smollm(folder)
    prepare_stamps(folder)
    rows = {
        "captioning.yaml": partial(_with_pictures, folder, 0),
        "captioning.yaml, the next caption's picture": partial(_with_pictures, folder, 1),
        "captioning.yaml, a grey picture": partial(_with_pictures, folder, None),
        "captioning.yaml, trained on grey pictures": partial(_without, folder),
    }
    for name, measure in rows.items():
        print(json.dumps(record("captions", name, measure), indent=1), flush=True)


def _with_pictures(folder: Path, shift: int | None) -> dict[str, Any]:
    spec = example(folder, f"tasks/{NAME}.yaml")
    trained(folder, NAME, spec)
    return _measured(folder / NAME / "model", folder / "data" / "stamps" / "test.jsonl", shift)


def _without(folder: Path) -> dict[str, Any]:
    """Return the figures of a model that has never seen anything: its captions are those of the others."""
    place = folder / "data" / "no-picture"
    place.mkdir(parents=True, exist_ok=True)
    spec = example(folder, f"tasks/{NAME}.yaml")
    for split in ("train", "validation", "test"):
        lines = []
        for number, line in enumerate((folder / "data" / "stamps" / f"{split}.jsonl").read_text().splitlines()):
            # A file of its own for each row: equal ones by content, told apart by path.
            file = place / f"{split}-{number}.png"
            if not file.exists():
                _grey().save(file)
            lines.append(json.dumps(json.loads(line) | {"image": file.name}))
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        spec["data"][split] = {"source": f"file://{place}/{split}.jsonl"}
    trained(folder, f"{NAME}-blind", spec)
    return _measured(folder / f"{NAME}-blind" / "model", place / "test.jsonl", 0)


@cache
def _loaded(model: Path) -> Any:
    return run_path(str(model / "captioner.py"))["load"](str(model))


def _measured(model: Path, table: Path, shift: int | None) -> dict[str, Any]:
    """Return loss and exact match of a table's captions, each with the picture `shift` rows further on, or a grey one for None."""
    from PIL import Image

    captioner, write = _loaded(model), cache(_written)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    losses, counts, exact, said = [], [], [], list[str]()
    for number, row in enumerate(rows):
        file = None if shift is None else table.parent / rows[(number + shift) % len(rows)]["image"]
        with Image.open(file) if file else _grey() as picture:
            picture.load()
            loss, count = _loss(captioner, picture, row["text"])
        written = write(model, file)
        losses.append(loss)
        counts.append(count)
        exact.append(key(written) == key(row["text"]))
        said.append(written)
    sums, tokens, right = np.array(losses), np.array(counts), np.array(exact, dtype=np.float64)
    return {
        "captions": len(rows),
        "loss": round(float(sums.sum() / tokens.sum()), 4),
        "loss 95 %": interval(lambda drawn: float(sums[drawn].sum() / tokens[drawn].sum()), len(rows)),
        "exact match": round(float(right.mean()), 4),
        "exact match 95 %": interval(lambda drawn: float(right[drawn].mean()), len(rows)),
        "distinct texts written": len(set(said)),
        "first written": said[:5],
    }


def _grey() -> Any:
    from PIL import Image

    return Image.new("RGB", (SIDE, SIDE), "grey")


def _written(model: Path, file: Path | None) -> str:
    """Return what a model writes of a picture; of a grey one for None."""
    from PIL import Image

    with Image.open(file) if file else _grey() as picture:
        [text] = _loaded(model).write([picture], tokens=24)
    return str(text)


def _loss(captioner: Any, picture: Any, text: str) -> tuple[float, int]:
    """Return the sum of the losses of a caption's tokens, and how many there are."""
    import torch

    ids: Sequence[int] = [
        *captioner.tokenizer(text.strip(), add_special_tokens=False)["input_ids"],
        captioner.tokenizer.eos_token_id,
    ]
    logits = captioner.logits(picture, ids)
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum")), len(ids)


if __name__ == "__main__":
    main()
