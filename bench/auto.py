"""`strategy.type: Auto` beside each single strategy, random weights and a classical model, on texts, pictures and sounds.

    python -m bench.auto FOLDER [WORD ...]

Measures the rows whose names have all the words, as `trec 50, Auto, seed 0`; keeps each in bench/results/auto.jsonl and prints the tables. Sets:

- `trec N`: N of TREC's questions, drawn by the seed; its own test questions;
- `fashion 200`: 200 pictures of Fashion-MNIST, drawn by the seed, and 600 others (bench.pictures);
- `handwritten 200`: 200 of scikit-learn's handwritten digits, drawn by the seed, and 180 others;
- `shifted 100`: 100 of them with light and dark inverted, drawn by the seed, on a model that was trained on all as they are: what is new is in the inputs
  alone, and so is what has to change. `bottom` trains the lowest blocks there, `Auto bottom` has that rung in place of the upper half;
- `tuxpaint`: stamps of Tux Paint in seven folders (bench.stamps);
- `spoken`: spoken digits, of languages that were not trained on (bench.digits);
- `lee`: how similar pairs of news texts are (bench.pairs), by Pearson's correlation.

A fifth of the training samples is held out; Lee's pairs have a validation file. All jobs of a set have the same epochs, batches and rates, but
for LoRA's, which are ten times as high; convolutions have none here. Probes are solved; that of the spoken digits, whose head has two layers, is trained as Auto's is, five
times as long. `processor` is the time of a whole job's processor, from its worker's start to its report, of one thread;
`trained` that of its phases by the clock, with their evaluations and forward passes. The floor that all share is the probe's: start, one forward
pass over all data, export; Auto's has the classical model besides. The cost of Auto is what it takes above its floor over what the single strategy
with the best test value takes above the probe; where that is the probe itself, whole jobs are compared.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from PIL import Image, ImageOps

from bench.features import of_worker
from bench.pictures import clothes
from bench.stamps import write_stamps
from bench.support.beside import CLASSICAL, STRATEGIES, table
from bench.support.outcomes import SEED, record
from bench.support.turns import make_job
from examples.prepare import prepare, prepare_images, prepare_pairs
from examples.prepare_audio import prepare_audio
from unfreeze_api.spec.strategy import PROBE_EPOCHS

Row = dict[str, Any]

SEEDS, LEAST = (0, 1, 2), 2
PICTURES, SHOWN = 2000, 600
"""Of Fashion-MNIST, that are drawn from, and that are measured on."""
_RATES: Row = {"learningRate": {"head": 5e-3, "backbone": 2e-4, "layerDecay": 0.9}}
_OF_PICTURES: Row = {"learningRate": {"head": 1e-2, "backbone": 1e-3, "layerDecay": 0.9}}
_OF_SOUNDS: Row = {"learningRate": {"head": 2e-3, "backbone": 1e-4, "layerDecay": 0.9}}
SETS: dict[str, Row] = {
    "trec 50": {"rows": 50, "training": {"epochs": 12, "batchSize": 8}},
    "trec 200": {"rows": 200, "training": {"epochs": 8, "batchSize": 16}},
    "fashion 200": {"rows": 200, "rates": _OF_PICTURES, "training": {"epochs": 8, "batchSize": 16}},
    "handwritten 200": {"rows": 200, "rates": _OF_PICTURES, "training": {"epochs": 8, "batchSize": 16}},
    "shifted 100": {"rows": 100, "rates": _OF_PICTURES, "training": {"epochs": 8, "batchSize": 16}},
    "tuxpaint": {"rates": _OF_PICTURES, "training": {"epochs": 6, "batchSize": 16}},
    "spoken": {"rates": _OF_SOUNDS, "training": {"epochs": 8, "batchSize": 16}},
    "trec 1000": {"rows": 1000, "training": {"epochs": 3, "batchSize": 32}},
    "lee": {"training": {"epochs": 2, "batchSize": 16, "metric": "pearson"}},
}
_LOWEST = {"blocks": ["embeddings", "layer.0", "layer.1", "layer.2"]}
"""Of EfficientNet-Lite0: the stem and three of its sixteen layers."""


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    (folder / "auto").mkdir(exist_ok=True, parents=True)
    found = []
    for seed, name, strategy in itertools.product(SEEDS, SETS, STRATEGIES):
        row = f"{name}, {strategy}, seed {seed}"
        if has(name, strategy) and all(word in row for word in sys.argv[2:]):
            found.append(record("auto", row, partial(_measured, folder, name, strategy, seed)))
    print(table(found))


def has(name: str, strategy: str) -> bool:
    """Return whether a set has a strategy: no classical model of sounds, no LoRA of convolutions, and the lowest blocks where they should win."""
    kind = name.split(maxsplit=1)[0]
    return not (
        (strategy == CLASSICAL and kind == "spoken")
        or (strategy == "LoRA" and kind in ("fashion", "handwritten", "shifted", "tuxpaint"))
        or (strategy.endswith("bottom") and kind != "shifted")
    )


def strategy_of(name: str, strategy: str) -> Row:
    """Return the fields of a job that a strategy sets on a set."""
    rates = SETS[name].get("rates", _RATES)
    everything = {"type": "FullFineTuning", **rates}
    steps = {"learningRate": {"head": rates["learningRate"]["head"]}}
    given: dict[str, Row] = {
        "Auto": {"strategy": {"type": "Auto", **rates}},
        "probe": {"strategy": {"type": "FeatureExtraction"} | (steps if name == "spoken" else {"solver": "Closed"})},
        "full": {"strategy": everything},
        "LoRA": {
            "strategy": {"type": "FullFineTuning", "learningRate": {"head": 10 * rates["learningRate"]["backbone"]}},
            "adapter": {"type": "LoRA", "lora": {"r": 8, "loraAlpha": 16}},
        },
        "gradual": {"strategy": {"type": "GradualUnfreezing", "gradualUnfreezing": {"blocksPerPhase": 3}, **rates}},
        "scratch": {"strategy": everything, "model": {"initialization": "Random"}},
        "bottom": {"strategy": {"type": "PartialFineTuning", "partialFineTuning": _LOWEST, **rates}},
        "Auto bottom": {
            "strategy": {
                "type": "Auto",
                "auto": {
                    "rungs": [
                        {"type": "FeatureExtraction"},
                        {"type": "PartialFineTuning", **_LOWEST},
                        {"type": "FullFineTuning"},
                    ]
                },
                **rates,
            }
        },
    }
    return given[strategy]


def spec_of(folder: Path, name: str, strategy: str, seed: int) -> Row:
    """Return a job without its output; its data is written."""
    given = strategy_of(name, strategy)
    make: dict[str, Callable[[Path, str, int], Row]] = {
        "trec": _questions,
        "fashion": _clothes,
        "handwritten": _digits,
        "shifted": _inverted,
        "tuxpaint": _stamps,
        "spoken": _sounds,
        "lee": _pairs,
    }
    spec = make[name.split(maxsplit=1)[0]](folder, name, seed)
    spec["model"] |= given.get("model", {})
    spec["training"] = {**SETS[name]["training"], "seed": seed}
    if (name, strategy) == ("spoken", "probe"):
        spec["training"]["epochs"] *= PROBE_EPOCHS
    return spec | {key: value for key, value in given.items() if key != "model"}


def _spec(model: str, task: str, options: Row, train: str, test: str) -> Row:
    return {
        "model": {"source": f"file://{model}"},
        "task": {"type": task, task[0].lower() + task[1:]: options},
        "data": {
            "train": {"source": f"file://{train}"},
            "validation": {"fraction": 0.2},
            "test": {"source": f"file://{test}"},
        },
    }


def _questions(folder: Path, name: str, seed: int) -> Row:
    prepare(folder)
    test = f"{folder}/data/trec-test.csv"
    spec = _spec(
        f"{folder}/models/minilm", "TextClassification", {"maxLength": 32}, f"{drawn(folder, name, seed)}", test
    )
    spec["data"]["train"]["columns"] = {"text": "question"}
    return spec


def _clothes(folder: Path, name: str, seed: int) -> Row:
    if not (folder / "clothes").exists():
        clothes(folder, PICTURES)
    return _pictures(folder, name, folder / "clothes", seed)


def _digits(folder: Path, name: str, seed: int) -> Row:
    prepare_images(folder)
    return _pictures(folder, name, folder / "data" / "digits", seed)


def _pictures(folder: Path, name: str, source: Path, seed: int, *, model: str = "") -> Row:
    """Return the job of some of the pictures below a folder, which are drawn by the seed."""
    prepare_images(folder)
    place = folder / "auto" / f"{name.replace(' ', '-')}-{seed}"
    if not place.exists():
        for split, count in (("train", SETS[name]["rows"]), ("test", SHOWN)):
            files = sorted((source / split).glob("*/*.png"))
            random.Random(seed if split == "train" else 0).shuffle(files)  # noqa: S311 - no secret
            for file in files[:count]:
                copy = place / split / file.parent.name / file.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    return _of_pictures(model or f"{folder}/models/efficientnet-lite0", place)


def _of_pictures(model: str, place: Path) -> Row:
    options = {"imageSize": 48, "augmentation": "None"}
    return _spec(model, "ImageClassification", options, f"{place}/train", f"{place}/test")


def _inverted(folder: Path, name: str, seed: int) -> Row:
    prepare_images(folder)
    digits, place, base = folder / "data" / "digits", folder / "auto" / "inverted", folder / "auto" / "clean"
    for file in [] if place.exists() else sorted(digits.glob("*/*/*.png")):
        copy = place / file.relative_to(digits)
        copy.parent.mkdir(parents=True, exist_ok=True)
        ImageOps.invert(Image.open(file).convert("L")).save(copy)
    if not (base / "report.json").exists():
        shutil.rmtree(base, ignore_errors=True)
        clean = _of_pictures(f"{folder}/models/efficientnet-lite0", digits)
        training = {**SETS[name]["training"], "epochs": 3, "seed": SEED}
        of_worker(clean | {"training": training, "strategy": {"type": "FullFineTuning", **_OF_PICTURES}}, base)
    return _pictures(folder, name, place, seed, model=f"{base}/model")


def _stamps(folder: Path, *_: Any) -> Row:
    prepare_images(folder)
    write_stamps(place := folder / "stamps")
    options = {"imageSize": 96, "augmentation": "None"}
    return _spec(
        f"{folder}/models/efficientnet-lite0", "ImageClassification", options, f"{place}/train", f"{place}/test"
    )


def _sounds(folder: Path, *_: Any) -> Row:
    prepare_audio(folder)
    place = folder / "data" / "spoken-digits"
    model = f"{folder}/models/whisper-tiny-en"
    return _spec(model, "AudioClassification", {"maxSeconds": 1}, f"{place}/train", f"{place}/test")


def _pairs(folder: Path, *_: Any) -> Row:
    prepare(folder)
    prepare_pairs(folder)
    data = f"{folder}/data/lee"
    spec = _spec(
        f"{folder}/models/minilm", "TextRegression", {"maxLength": 96}, f"{data}-train.csv", f"{data}-test.csv"
    )
    spec["data"]["train"]["columns"] = {"text": "one", "textPair": "other", "value": "similarity"}
    spec["data"]["validation"] = {"source": f"file://{data}-validation.csv"}
    return spec


def _measured(folder: Path, name: str, strategy: str, seed: int) -> Row:
    row = {"set": name, "strategy": strategy, "seed": seed}
    if strategy == CLASSICAL:
        return row | _classical(spec_of(folder, name, "probe", seed), seed)
    run = folder / "auto" / f"{name}-{strategy}-{seed}".replace(" ", "-").lower()
    shutil.rmtree(run, ignore_errors=True)  # of a job that was ended in between
    seconds = of_worker(spec_of(folder, name, strategy, seed), run)
    report = json.loads((run / "report.json").read_text())
    decided = [one for one in report["decisions"] if one["type"] in ("Rung", "Trial", "Strategy", "Baseline")]
    metric = SETS[name]["training"].get("metric", "accuracy")
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return row | {
        metric: round(report["results"]["test"][metric], 4),
        "validation": round(report["results"]["validation"][metric], 4),
        "processor": round(seconds, 1),
        "trained": round(sum(phase["seconds"] for phase in report["phases"]), 1),
        "phases": {phase["name"]: phase["steps"] for phase in report["phases"]},
        "decisions": [one["message"] for one in decided],
    }


def drawn(folder: Path, name: str, seed: int) -> Path:
    """Write the training questions of a set, at least two of each class; return the file."""
    file = folder / "auto" / f"{name.replace(' ', '-')}-{seed}.csv"
    rows = read(folder / "data" / "trec-train.csv")
    random.Random(seed).shuffle(rows)  # noqa: S311 - no secret
    seen: Counter[str] = Counter()
    rows.sort(
        key=lambda row: seen.update([row[1]]) or seen[row[1]] > LEAST
    )  # two of each class first, the others as they are
    rows = rows[: SETS[name]["rows"]]
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("question", "label"), *rows])
    return file


def read(file: Path) -> list[tuple[str, str]]:
    """Return questions and labels of a file."""
    with file.open(encoding="utf-8", newline="") as rows:
        return [(row["question"], row["label"]) for row in csv.DictReader(rows)]


def _classical(spec: Row, seed: int) -> Row:
    """Return what the classical model has that stands below the rungs, on all samples: no choice is made with it."""
    from unfreeze_api.tasks import task_type
    from unfreeze_trainer.judgement.classical import fit
    from unfreeze_trainer.judgement.said import Said, compared_by
    from unfreeze_trainer.tasks import open_task

    job = make_job("/none", **spec)
    task, reads = open_task(job), task_type(job.task.type).classical
    answers = task.answers
    assert answers is not None
    assert reads
    began = time.process_time()
    parts = [task.raw(split, np.arange(task.splits[split])) for split in ("train", "validation")]
    inputs, targets = itertools.chain(*(one for one, _ in parts)), np.concatenate([other for _, other in parts])
    pairs = job.data.train.columns.text_pair is not None
    by, width = compared_by(answers.kind, job.metric.name), answers.width
    model = fit(answers.kind, reads, inputs, targets, outputs=width, pairs=pairs, seed=seed, metric=by)
    took = time.process_time() - began
    asked, targets = task.raw("test", np.arange(task.splits["test"]))
    said = Said.of(answers.kind, list(answers.names), targets, model.predict(asked))
    metric = job.metric.name
    return {metric: round(said.rates(np.ones(len(targets)))[metric], 4), "processor": round(took, 1)}


if __name__ == "__main__":
    main()
