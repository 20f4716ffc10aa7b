"""How well `unfreeze rank` says which base is best after fine-tuning, beside the order by size, and what it costs.

    python -m bench.rank FOLDER [SET...]

Sets are trec (questions of six kinds), sections (Debian's packages in the eight largest sections; needs `apt-get update`), clothes (400 of
Fashion-MNIST), stamps (drawings and photographs of Tux Paint) and digits (scikit-learn's). Bases of the first two are all-MiniLM-L6,
paraphrase-MiniLM-L3, both with random weights and multilingual-e5-small; of the others EfficientNet-Lite0, MobileNetV2 and both with random weights. Each is fine-tuned
shortly, all of it, on 400 rows (drawings: all 500). Prints JSON for each set: scores, accuracy on held-out rows, rank correlations of
both over the bases, and processor seconds of the ranking and of the trainings. `cost` is what ranking four bases on 1,000 rows takes, beside
an epoch of each on all questions.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench import pictures, stamps, trainer
from bench.support.outcomes import SEED, trained
from bench.support.paraphrase import write_paraphrase
from examples.prepare import prepare, prepare_images
from examples.prepare_mobilenet import write_mobilenet
from examples.prepare_multilingual import write_multilingual

TEXTS = ("minilm", "paraphrase-minilm", "minilm-random", "paraphrase-minilm-random", "multilingual-e5-small")
PICTURES = ("efficientnet-lite0", "mobilenet-v2", "efficientnet-lite0-random", "mobilenet-v2-random")
SIZES = {"clothes": 48, "stamps": 64, "digits": 48}
EPOCHS, BATCH, ROWS, HELD_OUT = 2, 32, 400, 300
STEPS = 20
TEXT_RATES = {"head": 1e-3, "backbone": 2e-4}
PICTURE_RATES = {"head": 1e-2, "backbone": 1e-3}

Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    for name in sys.argv[2:] or ("trec", "sections", "clothes", "stamps", "digits", "cost"):
        print(json.dumps(_cost(folder) if name == "cost" else _measured(folder, name), indent=1), flush=True)


def _measured(folder: Path, name: str) -> Row:
    bases = PICTURES if name in SIZES else TEXTS
    spec = _picture_job(folder, name) if name in SIZES else _text_job(folder, name)
    for base in bases:
        if base.endswith("-random"):
            _write_random(folder / "models" / base.removesuffix("-random"), folder / "models" / base)
    sources = {base: f"file://{folder}/models/{base}" for base in bases}
    ranking, seconds = _cpu(partial(_ranked, folder, name, spec, list(sources.values())))
    places = {base: next(one for one in ranking["bases"] if one["source"] == sources[base]) for base in bases}
    accuracy, training = {}, 0.0
    for base, source in sources.items():
        found, took = _cpu(partial(trained, folder, f"{name}-{base}", {**spec, "model": {"source": source}}))
        accuracy[base] = round(found["accuracy"], 4)
        training += took
        print(json.dumps({name: accuracy}), file=sys.stderr, flush=True)
    values = list(accuracy.values())
    kinds = ("knn", "logme", "hScore")
    scores: dict[str, list[float]] = {
        f"{kind}, {where}": [_at(places[base], where)[kind] for base in bases]
        for kind in kinds
        for where in ("mean of layers", "head input", "best layer")
    }
    scores["size"] = [places[base]["parameters"] for base in bases]
    return {
        "benchmark": "rank",
        "set": name,
        "rows": ranking["rows"],
        "training rows": ranking["trainingRows"],
        "accuracy": accuracy,
        "scores": {kind: dict(zip(bases, found, strict=True)) for kind, found in scores.items()},
        "rank correlation": {kind: round(spearman(found, values), 3) for kind, found in scores.items()},
        "lost by the first": {
            kind: round(max(values) - values[int(np.argmax(found))], 4) for kind, found in scores.items()
        },
        "processor seconds": {
            "ranking, with its start": round(seconds, 1),
            f"trainings of {EPOCHS} epochs, from start to export": round(training, 1),
        },
    }


def _cost(folder: Path) -> Row:
    """Return what ranking the text bases on 1,000 of all TREC's questions takes, and training each for an epoch on all of them."""
    spec = _text_job(folder, "trec")
    spec["data"] = {
        "train": {"source": f"file://{folder}/data/trec-train.csv", "columns": {"text": "question"}},
        "validation": {"fraction": 0.1},
    }
    sources = [f"file://{folder}/models/{base}" for base in TEXTS[:4]]
    ranking, seconds = _cpu(partial(_ranked, folder, "cost", spec, sources))
    steps = -(-ranking["trainingRows"] // BATCH)
    epochs = {base: round(steps * _step(folder, spec, base), 1) for base in TEXTS[:2]}
    return {
        "benchmark": "rank",
        "set": "cost",
        "ranking rows": ranking["rows"],
        "epoch rows": ranking["trainingRows"],
        "processor seconds of ranking four, with its start": round(seconds, 1),
        f"processor seconds of an epoch, from {STEPS} steps": epochs,
        "times": round(2 * sum(epochs.values()) / seconds, 1),
    }


def _step(folder: Path, spec: Row, base: str) -> float:
    """Return the processor seconds of a step of full fine-tuning by hand: forward, backward, AdamW, on batches as they come."""
    import torch

    from unfreeze_api.resolve import resolve
    from unfreeze_api.spec.job import FineTuneJobSpec
    from unfreeze_trainer.tasks import open_task

    whole = {**spec, "model": {"source": f"file://{folder}/models/{base}"}, "output": {"destination": "file:///none"}}
    task = open_task(resolve("step", "default", FineTuneJobSpec.model_validate(whole), rendezvous_host="localhost"))
    module = task.build_model().module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)
    lists = [range(low, low + BATCH) for low in range(0, (STEPS + 1) * BATCH, BATCH)]
    began = 0.0
    for number, batch in enumerate(task.batches("train", lists)):
        if number == 1:  # the first one allocates
            began = time.process_time()
        task.loss(task.forward(module, batch), batch).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - began) / STEPS


def _at(base: Row, where: str) -> Row:
    """Return the scores of a place; where layers differ in width there is no mean, and the ranking's own place stands in."""
    place = base["bestLayer"] if where == "best layer" else where
    found: Row = base["places"].get(place, base["scores"])
    return found


def spearman(one: Iterable[float], other: Iterable[float]) -> float:
    """Return the correlation of ranks; equal numbers have the mean of their ranks."""
    ranks: list[list[float]] = [
        [(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values]
        for values in (np.array([*one]), np.array([*other]))
    ]
    return float(np.corrcoef(np.array(ranks))[0, 1]) if all(np.ptp(rank) > 0 for rank in ranks) else 0.0


def _cpu(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what something gives, and the processor seconds of the processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _ranked(folder: Path, name: str, spec: Row, sources: list[str]) -> Row:
    whole = {**spec, "model": {"candidates": [{"source": source} for source in sources]}}
    whole["output"] = {"destination": f"file://{folder}/{name}-ranked"}
    job = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": whole}
    file = folder / f"{name}-ranked.yaml"
    file.write_text(yaml.safe_dump(job))
    program = "from unfreeze_api.cli import main; main()"
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    command = [sys.executable, "-c", program, "rank", str(file), "-o", "json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | threads)
    found: Row = json.loads(done.stdout)
    return found


def _text_job(folder: Path, name: str) -> Row:
    prepare(folder)
    write_paraphrase(folder / "models" / "paraphrase-minilm", folder / "models" / "minilm")
    write_multilingual(folder / "models" / "multilingual-e5-small")
    rows = trainer.questions(folder) if name == "trec" else trainer.sections()
    splits = {"validation": rows[:100], "test": rows[100:][:HELD_OUT], "train": rows[100 + HELD_OUT :][:ROWS]}
    for split, part in splits.items():
        trainer.write(folder / f"{name}-{split}.csv", part)
    return {
        "task": {"type": "TextClassification", "textClassification": {"maxLength": trainer.MAX_LENGTH}},
        "data": {split: {"source": f"file://{folder}/{name}-{split}.csv"} for split in ("train", "validation", "test")},
        "strategy": {"type": "FullFineTuning", "learningRate": TEXT_RATES},
        "training": {"epochs": EPOCHS, "batchSize": BATCH, "seed": SEED},
    }


def _picture_job(folder: Path, name: str) -> Row:
    prepare_images(folder)
    write_mobilenet(folder / "models" / "mobilenet-v2")
    place = folder / ("data/digits" if name == "digits" else name)
    if name == "clothes":
        pictures.clothes(folder, ROWS)
    elif name == "stamps":
        stamps.write_stamps(place)
    return {
        "task": {
            "type": "ImageClassification",
            "imageClassification": {"imageSize": SIZES[name], "augmentation": "None"},
        },
        "data": {
            "train": {"source": f"file://{place}/train"},
            "validation": {"fraction": 0.1},
            "test": {"source": f"file://{place}/test"},
        },
        "strategy": {"type": "FullFineTuning", "learningRate": PICTURE_RATES},
        "training": {"epochs": EPOCHS, "batchSize": BATCH, "seed": SEED},
    }


def _write_random(base: Path, folder: Path) -> None:
    """Write a base with weights that are drawn anew: all else is the same."""
    if folder.exists():
        return
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(SEED)
    shutil.copytree(base, folder)
    config = json.loads((base / "config.json").read_bytes())
    if "architectures" in config:
        import transformers

        kind = getattr(transformers, config["architectures"][0])
        module = kind(transformers.AutoConfig.from_pretrained(base, trust_remote_code=False))
        module.save_pretrained(folder)
        return
    import timm

    module = timm.create_model(f"local-dir:{base}", pretrained=False)
    known = load_file(base / "model.safetensors").keys()
    save_file(
        {name: value for name, value in module.state_dict().items() if name in known}, folder / "model.safetensors"
    )


if __name__ == "__main__":
    main()
