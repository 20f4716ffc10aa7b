"""What jobs hold in memory, measured, beside what `unfreeze estimate` says of them, and what is compared before they begin (`least`).

    python -m bench.memory FOLDER [--only SUBSTRING] [--drawn | --without-drawn] [--seconds N] [--again] [--table]

One row a case is added to bench/results/memory.jsonl; cases that stand there are passed over, so that it can be stopped and goes
on, and `--seconds` ends it after the case that is under way then. Measured is the most that torch's CPU allocator had given out at once, in rank 0 of a real job from the loading of the
model to the end of its export (support/allocations.c counts), with the pages of the base's files that its weights lie in. A checkpoint is held until the next one is due: that is the most that a
slow disk costs, and what is estimated. `--again` measures nothing: it estimates the cases that stand there once more, a second each.
`--table` prints them for docs/engines.md.

The cases are fixed, and 20 of them are drawn by SEED from those that nobody had looked at by then, to be looked at last. The seeds before, 20261129 and 31, were spoilt: some of their cases were
looked at while the estimator was written.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from bench.support.outcomes import commit
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.resolve import resolve
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_trainer.estimates.aside import Aside
from unfreeze_trainer.estimates.check import least_of
from unfreeze_trainer.estimates.estimate import SHARE, judge
from unfreeze_trainer.estimates.trace import Traced, trace
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training import saver
from unfreeze_trainer.worker import work

SEED = 20261130
DRAWN = 20
ROWS = Path(__file__).parent / "results" / "memory.jsonl"
_MOST_SECONDS = 180.0
NAMES = ("model", "engine", "strategy", "recipe")
Json = dict[str, Any]
Case = tuple[str, str, str, str]

_ZERO: dict[str, Json] = {
    f"ZeRO-{stage}": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": stage}} for stage in (1, 2, 3)
}
ENGINES: dict[str, Json] = {
    "one worker": {},
    "DDP": {"numNodes": 2, "engine": "DDP"},
    "FSDP": {"numNodes": 2, "engine": "FSDP"},
    **{name: {"numNodes": 2, **spec} for name, spec in _ZERO.items()},
    "ZeRO-2, offload": {
        "numNodes": 2,
        "engine": "DeepSpeed",
        "deepSpeed": {"zeroStage": 2, "offload": "Optimizer"},
    },
    "ZeRO-3, offload": {
        "numNodes": 2,
        "engine": "DeepSpeed",
        "deepSpeed": {"zeroStage": 3, "offload": "OptimizerAndParameters"},
    },
}
STRATEGIES: dict[str, Json] = {
    "full": {"strategy": {"type": "FullFineTuning"}},
    "head": {"strategy": {"type": "FeatureExtraction"}},
    "top": {"strategy": {"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 3}}},
    "probe": {
        "strategy": {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 1}},
        "training": {"epochs": 2},
    },
    "LoRA": {"strategy": {"type": "FullFineTuning"}, "adapter": {"type": "LoRA", "lora": {"r": 16}}},
}
RECIPES: dict[str, Json] = {
    "Float32": {},
    "BFloat16": {"precision": "BFloat16"},
    "checkpointing": {"gradientCheckpointing": True},
    "two micro batches": {"gradientAccumulationSteps": 2},
    "SGD": {"optimizer": "SGD"},
}
MODELS = ("bert", "llama", "distilbert")


def cases() -> list[Case]:
    """Return (model, engine, strategy, recipe) of each case: all engines by all strategies, and what else differs."""
    found = [("bert", engine, strategy, "Float32") for engine in ENGINES for strategy in STRATEGIES]
    plain = ("one worker", "DDP", "FSDP", "ZeRO-2")
    found += [
        ("bert", engine, strategy, recipe)
        for engine, strategy, recipe in itertools.product(plain, ("full", "LoRA"), list(RECIPES)[1:4])
    ]
    found += [(model, engine, "full", "Float32") for model in MODELS[1:] for engine in (*plain, "ZeRO-3")]
    found += [("bert", engine, "full", "SGD") for engine in ("one worker", "FSDP")]
    found += [("llama", "one worker", "LoRA", "checkpointing"), ("llama", "FSDP", "LoRA", "BFloat16")]
    return found


KNOWN = frozenset(
    {("bert", "one worker", "full", recipe) for recipe in RECIPES}
    | {("bert", engine, "full", "Float32") for engine in ("DDP", "FSDP", "ZeRO-2", "ZeRO-3")}
    | {("bert", "one worker", strategy, "Float32") for strategy in ("head", "LoRA")}
    | {("bert", engine, "top", "Float32") for engine in ("DDP", "ZeRO-1")}
    | {("bert", engine, "probe", "Float32") for engine in ("ZeRO-1", "ZeRO-3", "ZeRO-2, offload")}
    | {("bert", engine, "LoRA", "Float32") for engine in ("FSDP", "ZeRO-3")}
    | {("distilbert", engine, "full", "Float32") for engine in ("one worker", "ZeRO-3")}
)
"""Cases that had been looked at before SEED was written down."""


def drawn() -> set[Case]:
    """Return the cases that were put aside."""
    unseen = [case for case in cases() if case not in KNOWN]
    return set(random.Random(SEED).sample(unseen, DRAWN))  # noqa: S311 - no secret


def make_inputs(folder: Path) -> None:
    """Write the models, with random weights, and the data."""
    from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig, LlamaConfig

    jobs: Any = importlib.import_module("tests.trainer.jobs")  # not typed

    vocabulary = 16_000
    jobs.bert_folder(folder / "tokens")
    configs = {
        "bert": BertConfig(
            vocab_size=vocabulary, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4
        ),
        "llama": LlamaConfig(
            vocab_size=vocabulary, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0,
        ),
        "distilbert": DistilBertConfig(vocab_size=vocabulary, dim=384, hidden_dim=1536, n_layers=3, n_heads=6),
    }  # fmt: skip
    for name, config in configs.items():
        if not (folder / name).exists():
            AutoModelForSequenceClassification.from_config(config, trust_remote_code=False).save_pretrained(
                folder / name
            )
            for file in (folder / "tokens").iterdir():
                if "token" in file.name or "vocab" in file.name:
                    shutil.copy(file, folder / name)
    texts = [" ".join(jobs.WORDS[(row + place) % len(jobs.WORDS)] for place in range(80)) for row in range(16)]
    lines = [f"{text},{'ab'[row % 2]}" for row, text in enumerate(texts)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *lines[:12], ""]))
    (folder / "held.csv").write_text("\n".join(["text,label", *lines[12:], ""]))


def job_of(case: Case, folder: Path, run: Path) -> ResolvedJob:
    """Return a job of three steps a phase."""
    model, engine, strategy, recipe = case
    chosen = STRATEGIES[strategy]
    training = {"epochs": 1, "batchSize": 4, "checkpoint": {"everySteps": 1, "afterSuccess": "Keep"}}
    spec = {
        "model": {"source": f"file://{folder / model}"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 64}},
        "data": {
            "train": {"source": f"file://{folder / 'texts.csv'}"},
            "validation": {"source": f"file://{folder / 'held.csv'}"},
        },
        "output": {"destination": f"file://{run}"},
        "distribution": ENGINES[engine],
        **chosen,
        "training": training | chosen.get("training", {}) | RECIPES[recipe],
    }
    return resolve("memory", "bench", FineTuneJobSpec.model_validate(spec), rendezvous_host="127.0.0.1")


def measure(job: ResolvedJob, rank: int, port: int) -> Json:
    """Be a worker of a job; return the most that the allocator had given out, and the resident set."""
    world = str(job.distribution.world_size)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    counter = ctypes.CDLL(str(_counter()))
    counter.most_given_out.restype = counter.given_out.restype = ctypes.c_size_t
    before = _resident("VmRSS")
    task, base, in_files = open_task(job), Path(job.model.weights_path), [0, 0]
    most: list[int] = []
    write = Exporter.write

    def writing(exporter: Any, *arguments: Any, **options: Any) -> None:
        most.append(counter.most_given_out())
        in_files[0] = _of_weights(exporter._engine.module, base)  # noqa: SLF001 - it has no other word for it
        in_files[1] = in_files[0] - _in_files(base)  # pages that no weight lies in any more
        write(exporter, *arguments, **options)

    def exported(*_: Any) -> None:
        in_files[1] += _in_files(base)

    task.verify_export = exported  # type: ignore[assignment, method-assign]
    counter.most_given_out()
    already = counter.given_out()
    with patch.object(saver, "ThreadPoolExecutor", _Later), patch.object(Exporter, "write", writing):
        code = work(job, lambda _: task, None)
    assert not code
    most.append(counter.most_given_out())
    return {
        "peak": max(given + pages for given, pages in zip(most, in_files, strict=True)) - already,
        "resident": _resident("VmHWM"),
        "residentBefore": before,
    }


def _counter() -> Path:
    """Return the library that counts, compiled if it is not there yet."""
    source = Path(__file__).parent / "support" / "allocations.c"
    built = Path(tempfile.gettempdir()) / f"allocations-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
    if not built.exists():
        subprocess.run(
            ["gcc", "-O2", "-shared", "-fPIC", "-o", str(built), str(source), "-ldl", "-lpthread"], check=True
        )
    return built


class _Later:
    """Stands for the saver's thread and its future: a checkpoint is written when somebody waits for it."""

    def __init__(self, *_: Any) -> None:
        self._work: Callable[[], None] | None = None

    def submit(self, write: Callable[..., None], *arguments: Any) -> _Later:
        self._work = partial(write, *arguments)
        return self

    def done(self) -> bool:
        return self._work is None

    def result(self) -> None:
        if self._work:
            self._work()
            self._work = None

    def shutdown(self) -> None:
        self.result()


def _of_weights(module: torch.nn.Module, folder: Path) -> int:
    """Return the bytes of a module's weights that lie in pages of a folder's files."""
    maps = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if f" {folder}/" in line]
    ranges = [[int(end, 16) for end in each.split("-")] for each in maps]
    places = {parameter.data_ptr(): parameter.nbytes for parameter in module.parameters()}
    return sum(count for place, count in places.items() if any(low <= place < high for low, high in ranges))


def _in_files(folder: Path) -> int:
    """Return the bytes of a folder's files that this process holds: pages of its own, and those of each file once."""
    pages, own, file = dict[str, int](), 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            file = line[line.index("/") :] if f" {folder}/" in line else ""
        elif file and name == "Rss:":
            pages[file] = pages.get(file, 0) + int(rest[0]) * 1024
        elif file and name == "Anonymous:":
            own += int(rest[0]) * 1024
            pages[file] -= int(rest[0]) * 1024
    return own + sum(min(count, Path(name).stat().st_size) for name, count in pages.items())


def _resident(field: str) -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_case(case: Case, folder: Path) -> Json:
    """Measure a case, and estimate it."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    job = job_of(case, folder, run)
    began = time.perf_counter()
    port = _free_port()
    workers = [Aside(lambda rank=rank: measure(job, rank, port), Json) for rank in range(job.distribution.world_size)]  # type: ignore[misc]
    measured, *_ = [worker.result(most=_MOST_SECONDS) for worker in workers]
    return {
        **dict(zip(NAMES, case, strict=True)), "drawn": case in drawn(), "seed": SEED,
        "measured": measured["peak"], "resident": measured["resident"], "residentBefore": measured["residentBefore"],
        "commit": commit(), "seconds": round(time.perf_counter() - began, 1),
        **estimated(case, folder, measured["peak"]),
    }  # fmt: skip


def estimated(case: Case, folder: Path, measured: int) -> Json:
    """Estimate a case; return that part of its row."""
    job = job_of(case, folder, folder / "run")
    began = time.perf_counter()
    found: Traced = Aside(lambda: trace(job, open_task(job)), Traced).result()
    return {
        "estimated": found.peak, "error": round(found.peak / measured - 1, 4),
        "wrongFits": judge(found.peak, measured - 1) == "Fits",
        "least": least_of(found, job).step, "loading": found.loading, "exporting": found.exporting,
        "phases": [phase.peak for phase in found.phases],
        "estimatedBy": commit(), "estimateSeconds": round(time.perf_counter() - began, 2),
    }  # fmt: skip


def _rows() -> list[Json]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def _of(row: Json) -> Case:
    model, engine, strategy, recipe = (str(row[name]) for name in NAMES)
    return model, engine, strategy, recipe


def table(rows: list[Json]) -> Iterator[str]:
    """Yield rows as lines of Markdown, and how many are met."""
    yield "| model | engine | trains | recipe | estimated | measured | | |"
    yield "|---|---|---|---|--:|--:|--:|---|"
    order = {case: number for number, case in enumerate(cases())}
    for row in sorted(rows, key=lambda row: order[_of(row)]):
        sizes = (f"{row[name] / 1e6:.1f} MB" for name in ("estimated", "measured"))
        yield f"| {' | '.join((*_of(row), *sizes))} | {row['error']:+.1%} | {'drawn' * row['drawn']} |"
    for what, some in (("all", rows), ("drawn", [row for row in rows if row["drawn"]])):
        near, wrong = sum(abs(row["error"]) <= SHARE for row in some), sum(row["wrongFits"] for row in some)
        yield f"{what}: {near} of {len(some)} within 5 %, {wrong} said to fit into less than they took"


def main() -> None:
    """Do what is left to do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--without-drawn", action="store_true")
    parser.add_argument("--drawn", action="store_true")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table(_rows())))
        return
    if (counter := str(_counter())) not in os.environ.get("LD_PRELOAD", ""):
        os.execve(  # noqa: S606 - itself
            sys.executable, [sys.executable, "-m", "bench.memory", *sys.argv[1:]], os.environ | {"LD_PRELOAD": counter}
        )
    began, folder = time.monotonic(), options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    make_inputs(folder)
    from unfreeze_trainer.engines.deepspeed import import_deepspeed

    import_deepspeed()
    asked = [
        case
        for case in cases()
        if options.only in ", ".join(case)
        and not ((options.without_drawn and case in drawn()) or (options.drawn and case not in drawn()))
    ]
    if options.again:
        rows, now = _rows(), commit()
        for number, row in enumerate(rows):
            if _of(row) in asked and row["estimatedBy"] != now and time.monotonic() - began < options.seconds:
                rows[number] = row | estimated(_of(row), folder, row["measured"])
                ROWS.write_text("".join(json.dumps(each) + "\n" for each in rows))
        return
    done = {_of(row) for row in _rows()}
    for case in asked:
        if case in done or time.monotonic() - began > options.seconds:
            continue
        try:
            row = run_case(case, folder)
        except Exception as error:  # noqa: BLE001 - the others go on
            print(case, "FAILED", str(error)[:1500], file=sys.stderr, flush=True)
            continue
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if not row["drawn"] or options.drawn:
            print(case, row["estimated"], row["measured"], row["error"], row["least"], row["seconds"], flush=True)


if __name__ == "__main__":
    main()
