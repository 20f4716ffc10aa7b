"""Whether mixing weights pays after fine-tuning: with the base's (WiSE-FT), and of the best checkpoints of a run (greedy soup).

    python -m bench.mixtures FOLDER [SET...]

MiniLM on the questions of bench.auto's sets, three seeds, full fine-tuning; the checkpoint of each epoch that was the best so far, and of the last one, is kept. What is tried
is chosen on the validation questions, as a job would have to, and measured on 200 of TREC's test questions, as they are and with one in three words misspelt
(two neighbouring letters change places), which nothing was trained on. `wise` goes 20, 40, 60 or 80 % of the way from the base below the head,
`soup` adds the next best of the three best checkpoints while the mean is not worse on the validation questions. `best` is what a mixture could bring
at most, chosen on the test questions. One row a run in bench/results/mixtures.jsonl, and a table. WiSE-FT: Wortsman et al. 2022, arXiv 2109.01903; greedy soup: arXiv
2203.05482.
"""

from __future__ import annotations

import csv
import itertools
import logging
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.auto import _RATES, SEEDS, SETS, drawn, read
from bench.support.outcomes import record
from bench.support.turns import make_job
from examples.prepare import prepare

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_trainer.training.run import Run

Row = dict[str, Any]
WAYS = (0.2, 0.4, 0.6, 0.8)
MOST = 3
"""Checkpoints of a soup."""
ASKED = 200
"""Of the test questions."""


def main() -> None:
    """Measure and print."""
    folder, *named = sys.argv[1:]
    place = Path(folder).resolve()
    prepare(place)
    (place / "auto").mkdir(exist_ok=True)
    logging.disable(logging.WARNING)
    misspelt(place)
    found = [
        record("mixtures", f"{name}, seed {seed}", partial(measured, place, name, seed))
        for seed, name in itertools.product(SEEDS, named or SETS)
    ]
    print(table(found))


def misspelt(place: Path) -> None:
    """Write the test questions with misspelt words."""
    draw = random.Random(0)  # noqa: S311 - no secret

    def spelt(word: str) -> str:
        if len(word) < 4 or draw.random() > 1 / 3:  # noqa: PLR2004
            return word
        at = draw.randrange(1, len(word) - 1)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    rows = [
        (" ".join(map(spelt, question.split())), label) for question, label in read(place / "data" / "trec-test.csv")
    ]
    with (place / "auto" / "misspelt.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("question", "label"), *rows])


def measured(place: Path, name: str, seed: int) -> Row:
    """Train a run; return accuracies of its best weights and of what is made of them."""
    from accelerate.state import AcceleratorState, PartialState

    from unfreeze_trainer.engines import open_engine
    from unfreeze_trainer.models.blocks import of_head
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.finish import take_best
    from unfreeze_trainer.training.loop import train
    from unfreeze_trainer.training.run import Run

    AcceleratorState._reset_state()  # noqa: SLF001 - it takes one engine per process for granted
    PartialState._reset_state()  # noqa: SLF001
    with tempfile.TemporaryDirectory() as folder:
        spec = {
            "model": {"source": f"file://{place}/models/minilm"},
            "task": {"type": "TextClassification", "textClassification": {"maxLength": 32}},
            "data": {
                "train": {"source": f"file://{drawn(place, name, seed)}", "columns": {"text": "question"}},
                "validation": {"fraction": 0.2},
            },
            "strategy": {"type": "FullFineTuning", **_RATES},
            "training": {
                **SETS[name]["training"],
                "seed": seed,
                "checkpoint": {"everySteps": 10**8, "keep": 50},
            },
        }
        job = make_job(f"{folder}/run", **spec)
        task = open_task(job)
        run = Run(job, task, task.build_model(), open_engine(job), None)
        steps: dict[int, float] = {}
        save = run.milestones.save

        def kept() -> None:
            steps[run.state.step] = run.state.metrics["accuracy"]
            save()

        run.milestones.save = kept  # type: ignore[method-assign]
        train(run)
        run.saver.wait()
        assert run.state.best is not None
        best = run.state.best.step
        take_best(run, best)
        loaded = task.build_model()
        head = of_head(loaded.blocks)
        base = {key: tensor.detach() for key, tensor in loaded.module.named_parameters() if key not in head}
        result = run.folder.checkpoints.load_weights(best)
        found = {"fine-tuned": _accuracies(run, place, {})}
        line = {
            way: _accuracies(
                run, place, {key: base[key] + way * (result[key] - base[key]) for key in base if key in result}
            )
            for way in WAYS
        }
        order = sorted(steps, key=lambda step: (-steps[step], -step))[:MOST]
        order.sort(key=lambda step: step != best)
        soup, value, members = result, found["fine-tuned"], 1
        tried = []
        for step in order[1:]:
            other = run.folder.checkpoints.load_weights(step)
            mixed = {key: soup[key] + (other[key] - soup[key]) / (members + 1) for key in soup}
            tried.append(_accuracies(run, place, mixed))
            if tried[-1]["validation"] >= value["validation"]:
                soup, value, members = mixed, tried[-1], members + 1
        run.saver.close()
        run.engine.end()
    ways = {1.0: found["fine-tuned"], **line}
    wise = max(ways, key=lambda way: (ways[way]["validation"], way))
    return (
        {"set": name, "seed": seed}
        | found
        | {
            "wise": ways[wise] | {"way": wise},
            "soup": value | {"members": members},
            "best": {key: max(one[key] for one in (*ways.values(), *tried)) for key in found["fine-tuned"]},
            "line": {str(way): one for way, one in line.items()},
        }
    )


def _accuracies(run: Run, place: Path, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Return accuracies with other weights."""
    import torch

    if weights:
        run.engine.load_weights(weights)
    found = {"validation": round(run.evaluator.measure("validation").metrics["accuracy"], 4)}
    task, module = run.task, run.engine.module.eval()
    tokenizer = task.modality.tokenizer  # type: ignore[attr-defined]
    for name, file in (("test", place / "data" / "trec-test.csv"), ("misspelt", place / "auto" / "misspelt.csv")):
        rows, right = sorted(read(file)[:ASKED], key=lambda row: len(row[0])), 0
        for low in range(0, len(rows), 64):
            texts = [question for question, _ in rows[low : low + 64]]
            given = tokenizer(texts, truncation=True, max_length=32, padding=True, return_tensors="pt")
            with torch.no_grad():
                said = task.forward(module, dict(given)).argmax(dim=1).tolist()
            right += sum(
                task.labels[place] == label for place, (_, label) in zip(said, rows[low : low + 64], strict=True)
            )
        found[name] = round(right / len(rows), 4)
    return found


def table(found: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = ["| set | weights | seeds | validation | test | misspelt |", "|---" * 6 + "|"]
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in found:
        groups[row["set"]].append(row)
    for name, rows in groups.items():
        for kind in ("fine-tuned", "wise", "soup", "best"):
            values = {key: [row[kind][key] for row in rows] for key in ("validation", "test", "misspelt")}
            told = " | ".join(
                f"{mean(each):.3f}" + (f" ± {stdev(each):.3f}" if len(each) > 1 else "") for each in values.values()
            )
            lines.append(f"| {name} | {kind} | {len(rows)} | {told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
