"""Whole jobs with the block cache, from a new process to the export, against the same without it and transformers' Trainer.

    python -m bench.features [ROWS [ROUNDS]] [--before CHECKOUT] [--epochs N] [--only NAME ...]

Prints JSON: seconds of processor time (user and system, with those of processes that it starts), and the ratios that the block
cache gains. MiniLM on ROWS of TREC's questions (all of them by default), at most 64 tokens, in batches of 32. `floor` is a process
that imports, loads the model and reads each row once without gradients; `of_floor` the share of it that is reached. `again` is the job
with another seed, whose features `cached` has left in a folder that outlives it. With --only, others are left out.

CHECKOUT is another build, which trains the same without a cache; without one this build does, as runs of before are resumed. With
--epochs, whoever computes frozen blocks in each step is measured for 1 and for N epochs of feature extraction, and the others are
taken to last as long as those from the first to the Nth. The raw rows go into bench/results/features.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.job import RESOLVE, environment
from examples.prepare import prepare
from unfreeze_api.apiserver.validate import load_job
from unfreeze_api.resolve import resolve

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / ".demo"
RESULTS = ROOT / "bench" / "results" / "features.jsonl"
WORKS: dict[str, tuple[dict[str, Any], int]] = {
    "FeatureExtraction, 20 epochs": ({"type": "FeatureExtraction", "learningRate": {"head": 1e-2}}, 20),
    "LinearProbeThenFineTune, 5 of 7 epochs": (
        {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 5}},
        7,
    ),
}
TRAINER = """
import csv, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
model, data, out, phases = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4])
tokenizer = AutoTokenizer.from_pretrained(model)
rows = list(csv.DictReader(open(data)))
names = sorted({row["label"] for row in rows})
encoded = tokenizer([row["question"] for row in rows], truncation=True, max_length=64)
items = [{"input_ids": ids, "attention_mask": mask, "labels": names.index(row["label"])}
         for ids, mask, row in zip(encoded["input_ids"], encoded["attention_mask"], rows)]
held = len(items) // 10
net = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(names))
for frozen, epochs in phases:
    net.base_model.requires_grad_(not frozen)
    arguments = TrainingArguments(out, per_device_train_batch_size=32, per_device_eval_batch_size=64, num_train_epochs=epochs,
                                  learning_rate=1e-3, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
                                  disable_tqdm=True)
    trainer = Trainer(net, arguments, train_dataset=items[held:], eval_dataset=items[:held],
                      data_collator=DataCollatorWithPadding(tokenizer))
    trainer.train()
trainer.save_model(out)
"""
FLOOR = """
import csv, sys, torch
from transformers import AutoModel, AutoTokenizer
model, data = sys.argv[1:3]
tokenizer, net = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
texts = sorted((row["question"] for row in csv.DictReader(open(data))), key=len)
with torch.no_grad():
    for low in range(0, len(texts), 64):
        net(**tokenizer(texts[low:low + 64], truncation=True, max_length=64, padding=True, return_tensors="pt"))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(usage=(__doc__ or "").split("\n")[2].strip())
    parser.add_argument("rows", type=int, nargs="?")
    parser.add_argument("rounds", type=int, nargs="?", default=1)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--only", nargs="*")
    asked = parser.parse_args()
    if not (EXAMPLES / "models" / "minilm").is_dir():
        prepare(EXAMPLES)
    results: dict[str, Any] = {"benchmark": "features"}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "rows.csv")
        with (EXAMPLES / "data" / "trec-train.csv").open() as source:
            data.write_text("".join(itertools.islice(source, asked.rows and asked.rows + 1)))
        results["rows"] = len(data.read_text().splitlines()) - 1
        for name, (strategy, epochs) in WORKS.items():
            probe = strategy.get("linearProbeThenFineTune", {}).get("probeEpochs")
            contenders: dict[str, Callable[[int, Path], float]] = {
                "cached": partial(worker, data, strategy),
                "again": partial(worker, data, strategy, seed=1),
                "floor": lambda _, __: script(FLOOR, str(EXAMPLES / "models" / "minilm"), str(data)),
                "Trainer": partial(trainer, data, probe),
                "computed": partial(before, asked.before.resolve(), data, strategy)
                if asked.before
                else partial(worker, data, strategy, cached=False),
            }
            contenders = {one: run for one, run in contenders.items() if asked.only is None or one in asked.only}
            taken: dict[str, list[float]] = {contender: [] for contender in contenders}
            for number in range(asked.rounds):
                Path(folder, f"{len(results)}-{number}").mkdir()
                for contender, measure in contenders.items():
                    slow = asked.epochs and not probe and contender in ("Trainer", "computed")
                    used = {}
                    for some in [1, asked.epochs] if slow else [epochs]:
                        used[some] = measure(some, Path(folder, f"{len(results)}-{number}", f"{contender}-{some}"))
                        note(
                            work=name,
                            contender=contender,
                            rows=results["rows"],
                            epochs=some,
                            turn=number,
                            seconds=used[some],
                        )
                    most = max(used)
                    each = (used[most] - used[1]) / (most - 1) if slow else 0.0
                    taken[contender].append(used[most] + (epochs - most) * each)
            seconds = {contender: statistics.median(values) for contender, values in taken.items()}
            results[name] = {f"{contender}_s": round(value, 1) for contender, value in seconds.items()}
            for ratio in ("computed/cached", "Trainer/cached", "floor/cached", "cached/again"):
                over, under = ratio.split("/")
                if {over, under} <= seconds.keys():
                    label = "of_floor" if over == "floor" else ratio
                    results[name][label] = round(seconds[over] / seconds[under], 2)
    print(json.dumps(results, indent=1))


def note(**row: Any) -> None:
    """Keep a raw row."""
    print(json.dumps(row), file=sys.stderr, flush=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def manifest(data: Path, strategy: dict[str, Any], epochs: int, run: Path) -> dict[str, Any]:
    """Return the manifest of a job."""
    spec = {
        "model": {"source": f"file://{EXAMPLES}/models/minilm"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 64}},
        "data": {
            "train": {"source": f"file://{data}", "columns": {"text": "question"}},
            "validation": {"fraction": 0.1},
        },
        "strategy": strategy,
        "training": {"epochs": epochs, "batchSize": 32, "seed": 0},
        "output": {"destination": f"file://{run}"},
    }
    return {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "bench"},
        "spec": spec,
    }


def worker(
    data: Path, strategy: dict[str, Any], epochs: int, run: Path, *, cached: bool = True, seed: int = 0
) -> float:
    """Return the processor time of a job from its worker's start to its export; features lie in a folder beside the run's.

    Not cached is as runs of before are resumed.
    """
    asked = manifest(data, strategy, epochs, run)
    asked["spec"]["training"]["seed"] = seed
    if cached:
        asked["spec"]["sources"] = {"featureCache": {"destination": f"file://{run.parent}/features"}}
    job = resolve("bench", "default", load_job(asked).spec, rendezvous_host="127.0.0.1")
    if not cached:
        first = job.semantics.model_copy(update={"features": "Computed", "dropout": "Everywhere"})
        job = job.model_copy(update={"semantics": first})
    file = run.with_suffix(".json")
    file.write_text(job.to_json())
    return processor_time([sys.executable, "-m", "unfreeze_trainer.worker"], UNFREEZE_JOB=str(file))


def before(build: Path, data: Path, strategy: dict[str, Any], epochs: int, run: Path) -> float:
    """Return the processor time of the same job in another build."""
    asked, file = run.with_suffix(".yaml"), run.with_suffix(".json")
    asked.write_text(json.dumps(manifest(data, strategy, epochs, run)))
    own = environment(build)
    subprocess.run([sys.executable, "-P", "-c", RESOLVE, asked, file], env=own, cwd=run.parent, check=True)
    return processor_time([sys.executable, "-P", "-m", "unfreeze_trainer.worker"], **own, UNFREEZE_JOB=str(file))


def trainer(data: Path, probe: int | None, epochs: int, run: Path) -> float:
    """Return the processor time of transformers' Trainer: a frozen base for all epochs, or for those of the probe."""
    phases = [(True, probe), (False, epochs - probe)] if probe else [(True, epochs)]
    return script(TRAINER, str(EXAMPLES / "models" / "minilm"), str(data), str(run), repr(phases))


def script(text: str, *arguments: str) -> float:
    """Return the processor time of a Python that runs a text."""
    return processor_time([sys.executable, "-c", text, *arguments])


def of_worker(spec: dict[str, Any], run: Path) -> float:
    """Return the processor time of a job of one worker, from its process to its report, whose folder is `run`."""
    manifest = {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "bench"},
        "spec": {**spec, "output": {"destination": f"file://{run}"}},
    }
    file = run.with_suffix(".json")
    file.write_text(resolve("bench", "default", load_job(manifest).spec, rendezvous_host="127.0.0.1").to_json())
    return processor_time([sys.executable, "-m", "unfreeze_trainer.worker"], UNFREEZE_JOB=str(file))


def processor_time(command: list[str], **environment: str) -> float:
    """Return user and system time of a process and of those that it has waited for; it has one thread.

    Raises
    ------
    RuntimeError
        It failed.
    """
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    null = os.open(os.devnull, os.O_WRONLY)
    process = os.posix_spawn(
        command[0],
        command,
        {**os.environ, **threads, **environment},
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)],
    )
    os.close(null)
    _, status, used = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{command[:3]} ended with status {status}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
