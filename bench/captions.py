"""What a picture or a clip tells a language model: texts of such that it has never met, beside another one's and none.

    python -m bench.captions FOLDER [EXAMPLE...]

Needs `apt-get`, pip and the package gguf, as examples/prepare_stamps.py and examples/prepare_dialogues.py do. Prints JSON, and keeps it in
bench/results: for the jobs of examples/tasks that are named, captioning and captioning-audio by default, the loss of the test data's texts (nats a token,
with the token that ends each) and exact match of what is written, the most probable token each time, of

- the example as it lies there, each text with its own picture or clip;
- the same model, each text with the picture or clip of the next row, whose text is another one;
- the same model, with one grey picture or one second of silence for all;
- the same job, trained and tested on that alone: the language model without a picture or a clip.

Intervals are of 95 %, by a bootstrap over rows. `loss above own` and `exact match below own` are differences to the first on the same rows,
drawn together. A job whose report lies below FOLDER is not trained again. Texts are compared without regard to case, blanks and the stop at their end. All is asked by the exports' own script, captioner.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np

from bench.alignment import clip, picture
from bench.support.outcomes import example, interval, record, trained
from examples.prepare import prepare_images
from examples.prepare_audio import prepare_audio
from examples.prepare_dialogues import prepare_smollm
from examples.prepare_stamps import key, prepare_stamps

EXAMPLES = ("captioning", "captioning-audio")
COLUMNS = ("image", "audio")
SIDE, RATE = 64, 16000
"""Pixels of the grey picture, and values of the second of silence."""
TOKENS, BATCH = 16, 18
"""That are written of each, at most, and rows whose losses are computed together."""


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_images(folder)
    prepare_smollm(folder)
    prepare_stamps(folder)
    prepare_audio(folder)
    for name in sys.argv[2:] or EXAMPLES:
        for which, given in (("own", 0), ("the next row's", 1), ("nothing", None)):
            measure = partial(_measured, folder, name, given, without=False)
            print(json.dumps(record("captions", f"{name}.yaml, {which}", measure), indent=1), flush=True)
        measure = partial(_measured, folder, name, 0, without=True)
        print(json.dumps(record("captions", f"{name}.yaml, trained on nothing", measure), indent=1), flush=True)


def _measured(folder: Path, name: str, given: int | None, *, without: bool) -> dict[str, Any]:
    """Return the figures of a row, beside those of the example with what belongs to each text."""
    own = _asked(folder, name, 0, without=False)
    here = own if not given and given is not None and not without else _asked(folder, name, given, without=without)
    losses, tokens, right = (np.array(here[part], dtype=np.float64) for part in ("losses", "tokens", "right"))
    count, first = len(tokens), here["texts"][:5]
    found = _both("loss", lambda drawn: float(losses[drawn].sum() / tokens[drawn].sum()), count)
    found |= _both("exact match", lambda drawn: float(right[drawn].mean()), count)
    if here is not own:
        more, fewer = losses - np.array(own["losses"]), np.array(own["right"], dtype=np.float64) - right
        found |= _both("loss above own", lambda drawn: float(more[drawn].sum() / tokens[drawn].sum()), count)
        found |= _both("exact match below own", lambda drawn: float(fewer[drawn].mean()), count)
    return {"rows": count} | found | {"distinct texts written": len({*here["texts"]}), "first written": first}


def _both(name: str, measure: Callable[[Any], float], count: int) -> dict[str, Any]:
    """Return a figure over so many rows, and its interval."""
    return {name: round(measure(np.arange(count)), 4), f"{name} 95 %": interval(measure, count)}


@cache
def _asked(folder: Path, name: str, given: int | None, *, without: bool) -> Mapping[str, list[Any]]:
    """Return sum of losses and tokens of each text of the test data, what is written in its place, and whether that is right.

    Parameters
    ----------
    folder, name
        Where all lies, and the example.
    given
        How many rows further on that is taken from which each text is given; None for grey or silence.
    without
        Whether the model has never been given anything else.
    """
    spec = example(folder, f"tasks/{name}.yaml")
    if without:
        name = f"{name}-without"
        _emptied(folder / "data" / name, spec)
    if not (folder / name / "report.json").exists():
        trained(folder, name, spec)
    prompt = spec["task"]["captioning"].get("prompt")
    table = Path(spec["data"]["test"]["source"].removeprefix("file://"))
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    [column] = [one for one in COLUMNS if one in rows[0]]
    model = folder / name / "model"
    samples, written = list[Any](), list[str]()
    for number, row in enumerate(rows):
        other = None if given is None else rows[(number + given) % len(rows)]
        assert other is row or other is None or key(other["text"]) != key(row["text"])
        file = None if other is None or without else table.parent / other[column]
        samples.append(_opened(file, column))
        written.append(_written(model, file, column))
    losses, tokens = _losses(_loaded(model), samples, [row["text"] for row in rows], prompt)
    right = [key(text) == key(row["text"]) for text, row in zip(written, rows, strict=True)]
    return {"losses": losses, "tokens": tokens, "right": right, "texts": written}


@cache
def _loaded(model: Path) -> Any:
    return run_path(str(model / "captioner.py"))["load"](str(model))


@cache
def _written(model: Path, file: Path | None, column: str) -> str:
    [text] = _loaded(model).write([_opened(file, column)], tokens=TOKENS)
    return str(text)


def _emptied(place: Path, spec: Any) -> None:
    """Write a job's tables with grey pictures or silence in the place of what is in them, and have the job read these."""
    import soundfile

    place.mkdir(parents=True, exist_ok=True)
    for split, data in spec["data"].items():
        table, lines = Path(data["source"].removeprefix("file://")), list[str]()
        for number, line in enumerate(table.read_text().splitlines()):
            row = json.loads(line)
            [column] = [one for one in COLUMNS if one in row]
            # A file of its own for each row: equal ones by content, told apart by path.
            file = place / f"{split}-{number}.{'png' if column == 'image' else 'wav'}"
            if column == "image":
                _opened(None, column).save(file)
            else:
                soundfile.write(file, _opened(None, column), RATE)
            lines.append(json.dumps(row | {column: file.name}))
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        data["source"] = f"file://{place}/{split}.jsonl"


def _opened(file: Path | None, column: str) -> Any:
    """Return a picture or a clip; grey or silence for None."""
    from PIL import Image

    if column == "audio":
        return np.zeros(RATE, dtype=np.float32) if file is None else clip(file, RATE)
    return Image.new("RGB", (SIDE, SIDE), "grey") if file is None else picture(file)


def _losses(
    captioner: Any, samples: Sequence[Any], texts: Sequence[str], prompt: str | None
) -> tuple[list[float], list[int]]:
    """Return the sum of the losses of each text's tokens after its sample and the prompt, and how many there are."""
    import torch

    def ids_of(text: str) -> list[int]:
        ids: list[int] = captioner.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    asks = ids_of(prompt.strip()) if prompt else []
    ids = [
        [*ids_of(f" {text.strip()}" if prompt else text.strip()), captioner.tokenizer.eos_token_id] for text in texts
    ]
    losses = []
    for start in range(0, len(texts), BATCH):
        part = ids[start : start + BATCH]
        read = [
            captioner.embeddings(sample, [*asks, *own])[0]
            for sample, own in zip(samples[start : start + BATCH], part, strict=True)
        ]
        padded = torch.nn.utils.rnn.pad_sequence(read, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(one)) for one in read], batch_first=True).long()
        with torch.no_grad():
            logits = captioner.language(inputs_embeds=padded, attention_mask=mask).logits
        for said, one, own in zip(logits, read, part, strict=True):
            given = said[len(one) - len(own) - 1 : len(one) - 1]
            losses.append(float(torch.nn.functional.cross_entropy(given, torch.tensor(own), reduction="sum")))
    return losses, [len(own) for own in ids]


if __name__ == "__main__":
    main()
