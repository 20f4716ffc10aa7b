"""Whole jobs with the block cache, from `unfreeze run` to its end, against the same without it and transformers' Trainer.

    python -m bench.features [ROWS [ROUNDS]] [--works NAME ...] [--before CHECKOUT] [--epochs N] [--only NAME ...]

Prints JSON: seconds of processor time (user and system, with those of processes that it starts), and the ratios that the block
cache gains. MiniLM on ROWS of TREC's questions (all of them by default), at most 64 tokens, in batches of 32; `pictures` is
EfficientNet-Lite0 on ROWS pictures of Fashion-MNIST (needs `apt-get`), where a loop by hand with timm is in the Trainer's place. `floor` is
a process that imports, loads the model and reads each row once without gradients; `of_floor` the share of it that is reached. `again` is
the job with another seed, whose features `cached` has left in a folder that outlives it; `grouped` the job with `groupByLength`, which has
batches of samples of similar length. `bound` is what the operations allow: a training block does three parts of work for each row in each
epoch, a frozen one a third of that, and those that stay frozen do theirs once. With --works or --only, others are left out.

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.job import RESOLVE, environment
from bench.pictures import clothes
from examples.prepare import prepare, prepare_images
from unfreeze_api.apiserver.validate import load_job
from unfreeze_api.resolve import resolve

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / ".demo"
RESULTS = ROOT / "bench" / "results" / "features.jsonl"
BLOCKS = 6
PICTURES = 5000


@dataclass(frozen=True)
class Work:
    """A strategy with its epochs; how many of the uppermost blocks train in which of them, for a loop that has no cache."""

    strategy: dict[str, Any]
    epochs: int
    phases: tuple[tuple[int, int], ...]
    pictures: bool = False

    @property
    def frozen(self) -> bool:
        """Whether the head alone trains."""
        return not any(blocks for blocks, _ in self.phases)

    def bound(self) -> float:
        """Return how many times fewer operations are left, of those that compute frozen blocks in each step."""
        all_of_them = sum(epochs * (BLOCKS + 2 * blocks) for blocks, epochs in self.phases)
        return all_of_them / (BLOCKS + sum(epochs * 3 * blocks for blocks, epochs in self.phases))


WORKS: dict[str, Work] = {
    "FeatureExtraction": Work({"type": "FeatureExtraction", "learningRate": {"head": 1e-2}}, 20, ((0, 20),)),
    "probe5of7": Work(
        {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 5}}, 7, ((0, 5), (BLOCKS, 2))
    ),
    "probe": Work({"type": "LinearProbeThenFineTune"}, 3, ((0, 1), (BLOCKS, 2))),
    "gradual": Work(
        {
            "type": "GradualUnfreezing",
            "gradualUnfreezing": {"groups": [[f"layer.{one}"] for one in reversed(range(BLOCKS))]},
        },
        7,
        tuple((blocks, 1) for blocks in range(BLOCKS + 1)),
    ),
    "pictures": Work({"type": "FeatureExtraction", "learningRate": {"head": 1e-2}}, 20, ((0, 20),), pictures=True),
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
layers = net.base_model.encoder.layer
for blocks, epochs in phases:
    net.base_model.requires_grad_(blocks == len(layers))
    for layer in layers[len(layers) - blocks:]:
        layer.requires_grad_(True)
    arguments = TrainingArguments(out, per_device_train_batch_size=32, per_device_eval_batch_size=64, num_train_epochs=epochs,
                                  learning_rate=1e-3, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
                                  disable_tqdm=True)
    trainer = Trainer(net, arguments, train_dataset=items[held:], eval_dataset=items[:held],
                      data_collator=DataCollatorWithPadding(tokenizer))
    trainer.train()
trainer.save_model(out)
"""
TIMM = """
import os, sys, torch
import timm
from PIL import Image
model, data, out, epochs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
names = sorted(os.listdir(data))
net = timm.create_model("local-dir:" + model, pretrained=True, num_classes=len(names))
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)

class Pictures(torch.utils.data.Dataset):
    def __init__(self, files):
        self.files = files
    def __len__(self):
        return len(self.files)
    def __getitem__(self, index):
        file, label = self.files[index]
        return transform(Image.open(file).convert("RGB")), label

files = [(os.path.join(data, name, file), label) for label, name in enumerate(names) for file in sorted(os.listdir(os.path.join(data, name)))]
torch.manual_seed(0)
order = torch.randperm(len(files)).tolist()
held = len(files) // 10
train, test = (torch.utils.data.DataLoader(Pictures([files[one] for one in part]), batch_size=size, shuffle=shuffle)
               for part, size, shuffle in ((order[held:], 32, True), (order[:held], 64, False)))
net.requires_grad_(False)
head = net.get_classifier().requires_grad_(True)
optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
net.eval()
for epoch in range(epochs):
    for pictures, labels in train:
        torch.nn.functional.cross_entropy(net(pictures), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        right = sum((net(pictures).argmax(-1) == labels).sum().item() for pictures, labels in test)
torch.save(net.state_dict(), out)
"""
TIMM_FLOOR = """
import os, sys, torch
import timm
from PIL import Image
model, data = sys.argv[1:3]
net = timm.create_model("local-dir:" + model, pretrained=True, num_classes=0).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
files = [os.path.join(data, name, file) for name in sorted(os.listdir(data)) for file in sorted(os.listdir(os.path.join(data, name)))]
with torch.no_grad():
    for low in range(0, len(files), 64):
        net(torch.stack([transform(Image.open(file).convert("RGB")) for file in files[low:low + 64]]))
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
    parser.add_argument("--works", nargs="*", choices=WORKS, default=[name for name in WORKS if name != "pictures"])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--only", nargs="*")
    asked = parser.parse_args()
    results: dict[str, Any] = {"benchmark": "features"}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.works:
            results[name] = measured(name, Path(folder), asked)
    print(json.dumps(results, indent=1))


def measured(name: str, folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of all contenders for one work, their ratios, and how many rows there were."""
    work = WORKS[name]
    data, rows = of_pictures(asked.rows) if work.pictures else of_texts(folder, asked.rows)
    contenders = contenders_of(work, data, asked.before)
    contenders = {one: run for one, run in contenders.items() if asked.only is None or one in asked.only}
    taken: dict[str, list[float]] = {contender: [] for contender in contenders}
    for number in range(asked.rounds):
        (folder / f"{name}-{number}").mkdir()
        for contender, measure in contenders.items():
            slow = asked.epochs and work.frozen and contender in ("Trainer", "computed")
            used = {}
            for some in [1, asked.epochs] if slow else [work.epochs]:
                used[some] = measure(some, folder / f"{name}-{number}" / f"{contender}-{some}")
                note(work=name, contender=contender, rows=rows, epochs=some, turn=number, seconds=used[some])
            most = max(used)
            each = (used[most] - used[1]) / (most - 1) if slow else 0.0
            taken[contender].append(used[most] + (work.epochs - most) * each)
    seconds = {contender: statistics.median(values) for contender, values in taken.items()}
    found = {"rows": float(rows), **{f"{contender}_s": round(value, 1) for contender, value in seconds.items()}}
    for ratio in ("computed/cached", "Trainer/cached", "Trainer/grouped", "floor/cached", "cached/again"):
        over, under = ratio.split("/")
        if {over, under} <= seconds.keys():
            found["of_floor" if over == "floor" else ratio] = round(seconds[over] / seconds[under], 2)
    return found if work.frozen else {**found, "bound": round(work.bound(), 2)}


def contenders_of(work: Work, data: Path, build: Path | None) -> dict[str, Callable[[int, Path], float]]:
    """Return who does a work, each a function of its epochs and an output; `grouped` only where there are lengths and steps that last."""
    model = str(EXAMPLES / "models" / ("efficientnet-lite0" if work.pictures else "minilm"))
    found: dict[str, Callable[[int, Path], float]] = {
        "cached": partial(worker, data, work),
        "again": partial(worker, data, work, seed=1),
        "floor": lambda _, __: script(TIMM_FLOOR if work.pictures else FLOOR, model, str(data)),
        "Trainer": (
            (lambda epochs, out: script(TIMM, model, str(data), str(out), str(epochs)))
            if work.pictures
            else partial(trainer, data, work)
        ),
        "computed": partial(before, build.resolve(), data, work)
        if build
        else partial(worker, data, work, cached=False),
    }
    return found if work.frozen else {**found, "grouped": partial(worker, data, work, grouped=True)}


def of_texts(folder: Path, rows: int | None) -> tuple[Path, int]:
    """Return a table of TREC's questions, the first ones, and how many there are."""
    if not (EXAMPLES / "models" / "minilm").is_dir():
        prepare(EXAMPLES)
    data = folder / "rows.csv"
    with (EXAMPLES / "data" / "trec-train.csv").open() as source:
        data.write_text("".join(itertools.islice(source, rows and rows + 1)))
    return data, len(data.read_text().splitlines()) - 1


def of_pictures(rows: int | None) -> tuple[Path, int]:
    """Return a folder of pictures of clothes, one folder for each kind, and how many there are: 5,000 by default."""
    prepare_images(EXAMPLES)
    place = EXAMPLES / f"clothes-{rows or PICTURES}"
    place.mkdir(exist_ok=True)
    [(train, _), _] = clothes(place, rows or PICTURES)
    return place / "clothes" / "train", len(train)


def note(**row: Any) -> None:
    """Keep a raw row."""
    print(json.dumps(row), file=sys.stderr, flush=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def manifest(data: Path, work: Work, epochs: int, run: Path) -> dict[str, Any]:
    """Return the manifest of a job."""
    texts = {"type": "TextClassification", "textClassification": {"maxLength": 64}}
    pictures = {"type": "ImageClassification", "imageClassification": {"augmentation": "None"}}
    train = {"source": f"file://{data}"}
    spec = {
        "model": {"source": f"file://{EXAMPLES}/models/{'efficientnet-lite0' if work.pictures else 'minilm'}"},
        "task": pictures if work.pictures else texts,
        "data": {
            "train": train if work.pictures else {**train, "columns": {"text": "question"}},
            "validation": {"fraction": 0.1},
        },
        "strategy": work.strategy,
        "training": {"epochs": epochs, "batchSize": 32, "seed": 0},
    }
    return job_of(spec, run)


def job_of(spec: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return the manifest of a job whose folder is `run`."""
    return {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "bench"},
        "spec": {**spec, "output": {"destination": f"file://{run}"}},
    }


def worker(
    data: Path, work: Work, epochs: int, run: Path, *, cached: bool = True, seed: int = 0, grouped: bool = False
) -> float:
    """Return the processor time of a job; features lie in a folder beside the run's.

    From `unfreeze run` to its end, all processes together; not cached, which is as runs of before are resumed, from a worker's start.
    """
    asked = manifest(data, work, epochs, run)
    asked["spec"]["training"]["seed"] = seed
    if grouped:
        asked["spec"]["training"]["groupByLength"] = True
    file = run.with_suffix(".json")
    if cached:
        name = "features-grouped" if grouped else "features"
        asked["spec"]["sources"] = {"featureCache": {"destination": f"file://{run.parent}/{name}"}}
        file.write_text(json.dumps(asked))
        return processor_time([sys.executable, "-c", "from unfreeze_api.cli import main; main()", "run", str(file)])
    job = resolve("bench", "default", load_job(asked).spec, rendezvous_host="127.0.0.1")
    first = job.semantics.model_copy(update={"features": "Computed", "dropout": "Everywhere"})
    file.write_text(job.model_copy(update={"semantics": first}).to_json())
    return processor_time([sys.executable, "-m", "unfreeze_trainer.worker"], UNFREEZE_JOB=str(file))


def before(build: Path, data: Path, work: Work, epochs: int, run: Path) -> float:
    """Return the processor time of the same job in another build."""
    asked, file = run.with_suffix(".yaml"), run.with_suffix(".json")
    asked.write_text(json.dumps(manifest(data, work, epochs, run)))
    own = environment(build)
    subprocess.run([sys.executable, "-P", "-c", RESOLVE, asked, file], env=own, cwd=run.parent, check=True)
    return processor_time([sys.executable, "-P", "-m", "unfreeze_trainer.worker"], **own, UNFREEZE_JOB=str(file))


def trainer(data: Path, work: Work, epochs: int, run: Path) -> float:
    """Return the processor time of transformers' Trainer with the blocks of each of the work's phases, or a frozen base for all epochs."""
    phases = [(0, epochs)] if work.frozen else work.phases
    return script(TRAINER, str(EXAMPLES / "models" / "minilm"), str(data), str(run), repr(phases))


def script(text: str, *arguments: str) -> float:
    """Return the processor time of a Python that runs a text."""
    return processor_time([sys.executable, "-c", text, *arguments])


def of_worker(spec: dict[str, Any], run: Path) -> float:
    """Return the processor time of a job of one worker, from its process to its report, whose folder is `run`."""
    file = run.with_suffix(".json")
    job = load_job(job_of(spec, run))
    file.write_text(resolve("bench", "default", job.spec, rendezvous_host="127.0.0.1").to_json())
    return processor_time([sys.executable, "-m", "unfreeze_trainer.worker"], UNFREEZE_JOB=str(file))


def processor_time(command: list[str], **environment: str) -> float:
    """Return user and system time of a process and of those that it has waited for; it has one thread.

    Raises
    ------
    RuntimeError
        It failed.
    """
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    threads["PYTHONDONTWRITEBYTECODE"] = ""  # compiled once, as what is installed is
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
