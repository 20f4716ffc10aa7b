"""Forty jobs of several strategies, tasks and models at rates from 1e-6 to 1, drawn by a seed: what becomes of those that destroy.

    python -m bench.destroy FOLDER [SET...]

Needs what `examples/prepare.py` writes for trec, labels, images, pairs and addresses. Head and backbone have the same rate, drawn
log-uniformly; sets come in turns, in an order that is drawn; each job has its own seed, which divides the data too. Models are the first layer
of MiniLM, and EfficientNet-Lite0 on pictures of 32 pixels. A job that went back and succeeded is trained once more at a usual rate, with the same seed. All
end where their export would begin. Adds a row for each job to bench/results/destroy.jsonl, unless it is there, and prints the table.

`guard` is the share of the processor time of a job that its guard took: the running mean, and what it makes of an evaluation.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.rates import cut
from bench.support.outcomes import RESULTS, record
from bench.support.turns import make_job
from examples import prepare
from unfreeze_api.contracts.resolved import ResolvedJob

SEED, JOBS, LOWEST, HIGHEST = 22, 40, -6.0, 0.0
USUAL = {"head": 2e-3, "backbone": 2e-4}
Row = dict[str, Any]

_TEXT: Row = {"type": "TextClassification", "textClassification": {"maxLength": 16}}
_PICTURE: Row = {"type": "ImageClassification", "imageClassification": {"imageSize": 32, "augmentation": "None"}}
_ALL: Row = {"type": "FullFineTuning"}
SETS: dict[str, Row] = {
    "questions, head": {"data": "questions", "task": _TEXT, "strategy": {"type": "FeatureExtraction"}},
    "questions, top": {
        "data": "questions",
        "task": _TEXT,
        "strategy": {"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 1}},
    },
    "questions, all": {"data": "questions", "task": _TEXT, "strategy": _ALL},
    "questions, LoRA": {
        "data": "questions",
        "task": _TEXT,
        "strategy": _ALL,
        "adapter": {"type": "LoRA", "lora": {"r": 8}},
    },
    "questions, gradual": {"data": "questions", "task": _TEXT, "strategy": {"type": "GradualUnfreezing"}},
    "questions, probe first": {
        "data": "questions",
        "task": _TEXT,
        "strategy": {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 1}},
    },
    "questions, Auto": {"data": "questions", "task": _TEXT, "strategy": {"type": "Auto"}},
    "two labels, all": {
        "data": "labels",
        "task": {"type": "TextClassification", "textClassification": {"labels": "Multi", "maxLength": 16}},
        "strategy": _ALL,
    },
    "addresses, all": {
        "data": "addresses",
        "task": {"type": "TokenClassification", "tokenClassification": {"maxLength": 24}},
        "strategy": _ALL,
    },
    "similarities, all": {
        "data": "pairs",
        "task": {"type": "TextRegression", "textRegression": {"maxLength": 24}},
        "strategy": _ALL,
        "metric": "pearson",
    },
    "embedding, all": {
        "data": "pairs",
        "task": {"type": "TextEmbedding", "textEmbedding": {"maxLength": 24, "annotation": "Scores"}},
        "strategy": _ALL,
        "metric": "spearman",
    },
    "digits, all": {"data": "digits", "task": _PICTURE, "strategy": _ALL},
}
ROWS, PICTURES = 130, 10
"""Of a table, and of each digit."""


def drawn() -> list[Row]:
    """Return the jobs: their number, set, seed and rate."""
    draw = random.Random(SEED)  # noqa: S311 - no secret
    names = list(itertools.chain.from_iterable(draw.sample(list(SETS), len(SETS)) for _ in range(JOBS)))
    return [{"set": names[n], "seed": n, "rate": 10 ** draw.uniform(LOWEST, HIGHEST)} for n in range(JOBS)]


def main() -> None:
    """Measure what is missing, and print the table."""
    place, named = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(SETS)
    logging.disable(logging.WARNING)
    for write in (
        prepare.prepare,
        prepare.prepare_labels,
        prepare.prepare_images,
        prepare.prepare_pairs,
        prepare.prepare_addresses,
    ):
        write(place)
    for asked in drawn():
        if asked["set"] not in named:
            continue
        name = f"{asked['seed']}: {asked['set']} at {asked['rate']:.2g}"
        row = record("destroy", name, partial(measure, place, asked))
        if row["rollbacks"] and row["ended"] == "Succeeded":
            usual = {**asked, "rate": None}
            record("destroy", f"{asked['seed']}: {asked['set']}, usual", partial(measure, place, usual))
    print(table([json.loads(line) for line in (RESULTS / "destroy.jsonl").read_text().splitlines()]))


def measure(place: Path, asked: Row) -> Row:
    """Train a job up to its export; return how it ended."""
    from accelerate.state import AcceleratorState, PartialState

    from unfreeze_trainer.engines import open_engine
    from unfreeze_trainer.errors import JobError
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.loop import train
    from unfreeze_trainer.training.run import Run

    AcceleratorState._reset_state()  # noqa: SLF001 - it takes one engine per process for granted
    PartialState._reset_state()  # noqa: SLF001
    ended, said = "Succeeded", ""
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(place, Path(folder), asked)
        task = open_task(job)
        began, spent = time.process_time(), [0.0]
        run = Run(job, task, task.build_model(), open_engine(job), None)
        guard = run.rollbacks
        run.meter.observe = _timed(guard.observe, spent)
        guard.note = _timed(guard.note, spent)  # type: ignore[method-assign]
        guard.judge = _timed(guard.judge, spent)  # type: ignore[method-assign]
        guard.go_back = _not_timed(guard.go_back, spent)  # type: ignore[method-assign]
        try:
            train(run)
            run.saver.wait()
            run.ladder.choose()
            guard.require_useful()
        except JobError as error:
            ended, said = error.reason, error.message
        finally:
            run.saver.close()
        seconds, state = time.process_time() - began, run.state
        run.engine.end()
    best = state.best
    worth = best.usefulness if best else None
    return asked | {
        "ended": ended,
        "metric": job.metric.name,
        "value": round(best.value, 4) if best else None,
        "untrained": state.untrained and round(state.untrained, 4),
        "useful": worth and worth.better,
        "guess": worth and round(worth.majority, 4),
        "validation": task.splits["validation"],
        "rollbacks": [[one.step, one.to] for one in state.rollbacks],
        "given up": state.given_up,
        "said": said,
        "steps": run.plan.total_steps,
        "processor": round(seconds, 2),
        "guard": round(spent[0] / seconds, 6),
    }


def _timed(work: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """Return a function that adds its processor time to what is spent."""

    def timed(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return work(*arguments)
        finally:
            spent[0] += time.process_time() - began

    return timed


def _not_timed(work: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """Return a function, called within one that counts, whose own time does not count."""

    def untimed(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return work(*arguments)
        finally:
            spent[0] -= time.process_time() - began

    return untimed


def job_of(place: Path, folder: Path, asked: Row) -> ResolvedJob:
    """Return a job whose data and run folder lie in a folder; without a rate it has the usual ones."""
    given = SETS[asked["set"]]
    rates: Row = USUAL if asked["rate"] is None else {"head": asked["rate"], "backbone": asked["rate"]}
    if "adapter" in given or given["strategy"]["type"] == "FeatureExtraction":
        rates = {"head": rates["head"]}
    digits = given["data"] == "digits"
    model = place / "models" / "efficientnet-lite0" if digits else cut(1, examples=place)
    spec = {
        "model": {"source": f"file://{model}"},
        "data": _data(place, folder, asked["set"]),
        "task": given["task"],
        "strategy": given["strategy"] | {"learningRate": rates},
        "training": {"epochs": 3, "batchSize": 8, "seed": asked["seed"], "metric": given.get("metric")},
    } | {name: given[name] for name in given if name == "adapter"}
    return make_job(f"{folder}/run", **spec)


def _data(place: Path, folder: Path, name: str) -> Row:
    """Return the data of a set's jobs; those that are drawn lie in a folder."""
    kind, held_out = SETS[name]["data"], {"validation": {"fraction": 0.25}}
    if kind == "digits":
        for label in (place / "data" / "digits" / "train").iterdir():
            (folder / "pictures" / label.name).mkdir(parents=True)
            for file in sorted(label.iterdir())[:PICTURES]:
                (folder / "pictures" / label.name / file.name).write_bytes(file.read_bytes())
        return {"train": {"source": f"file://{folder}/pictures"}, **held_out}
    if kind == "addresses":
        return {"train": {"source": f"file://{_head(place, folder, 'addresses-train.jsonl', ROWS)}"}, **held_out}
    if kind == "pairs":
        names = {"text": "one", "textPair": "other", "value": "similarity"}
        if SETS[name]["task"]["type"] == "TextEmbedding":
            names = {"anchor": "one", "positive": "other", "score": "similarity"}
        validation = {"source": f"file://{place}/data/lee-validation.csv"}
        return {
            "train": {"source": f"file://{_head(place, folder, 'lee-train.csv', ROWS + 1)}", "columns": names},
            "validation": validation,
        }
    name = "trec-labels-train.csv" if kind == "labels" else "trec-train.csv"
    source = _head(place, folder, name, ROWS + 1)
    return {"train": {"source": f"file://{source}", "columns": {"text": "question"}}, **held_out}


def _head(place: Path, folder: Path, name: str, lines: int) -> Path:
    """Return a file in a folder with the first lines of one of the examples."""
    with (place / "data" / name).open(encoding="utf-8") as source:
        (folder / name).write_text("".join(itertools.islice(source, lines)), encoding="utf-8")
    return folder / name


def verdict(row: Row) -> str:
    """Return how a job ended, for people: a success that is worth nothing is told apart."""
    if row["ended"] != "Succeeded":
        return str(row["ended"])
    if row["useful"] is not None:
        return "useful" if row["useful"] else "NoBetterThanMajority"
    return "not worse than the base" if row["value"] >= row["untrained"] - noise(row, row) else "worse than the base"


def noise(one: Row, other: Row) -> float:
    """Return how far two shares of the same number of rows lie apart by chance, in 95 of 100 cases."""
    shares = [min(max(row["value"], 0.0), 1.0) for row in (one, other)]
    return 1.96 * math.sqrt(sum(share * (1 - share) for share in shares) / one["validation"])


def table(found: list[Row]) -> str:
    """Return the tables in Markdown: of all jobs by decades of the rate, and of those that went back and succeeded."""
    lines = ["| rates | jobs | went back | ended |", "|---|---|---|---|"]
    jobs = [row for row in found if row["rate"]]
    for decade in range(int(LOWEST), int(HIGHEST)):
        group = [row for row in jobs if math.floor(math.log10(row["rate"])) == decade]
        if group:
            back, ended = sum(bool(row["rollbacks"]) for row in group), Counter(map(verdict, group))
            told = ", ".join(f"{count} {word}" for word, count in ended.most_common())
            lines.append(f"| 1e{decade} to 1e{decade + 1} | {len(group)} | {back} | {told} |")
    lines += [
        "",
        "| went back and succeeded | rate | metric | value | usual rates | differ by chance |",
        "|---" * 6 + "|",
    ]
    for row in jobs:
        usual = [other for other in found if not other["rate"] and other["seed"] == row["seed"]]
        for other in usual:
            told = f"{row['set']} | {row['rate']:.2g} | {row['metric']} | {row['value']:.3f} | {other['value']:.3f}"
            lines.append(f"| {told} | {noise(row, other):.2f} |")
    shares = [row["guard"] for row in found if not row["rollbacks"]]
    lines += [
        "",
        f"guard: {median(shares):.3%} of a job's processor time, {max(shares):.3%} at most".replace("%", " %"),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
