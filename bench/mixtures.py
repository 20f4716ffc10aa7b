"""Whether mixing weights pays at the end of `strategy.type: Auto`: those of its rungs (soup), and with the base's (WiSE-FT).

    python -m bench.mixtures FOLDER [SET...]

MiniLM on the questions of bench.auto's sets of TREC, three seeds; all rungs are trained whatever the gates say. What is tried is
chosen on the validation questions, as a job would have to, and measured on TREC's test questions, as they are and with one in three words
misspelt (two neighbouring letters change places), which nothing was trained on. A mixture is chosen where it is, with probability .9, not worse
than the rung that Auto takes by more than Auto's margin, or where its validation accuracy is not lower:

- `soup, greedy`: from the best rung on, each next one joins the mean while that is not worse on the validation questions (arXiv 2203.05482);
- `soup, sure`: the mean of all rungs, by the probability;
- `wise, greedy`: of 20, 40, 60, 80 and 100 % of the way from the base below the head what validates best, of equals the furthest (arXiv 2109.01903);
- `wise, sure`: the smallest of these that is chosen by the probability.

`soup` is the mean of all rungs and `wise` 80 % of the way, whatever the validation questions say. One row a run in bench/results/mixtures.jsonl, and a table.
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
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

from bench.auto import SEEDS, read, spec_of
from bench.support.outcomes import record
from bench.support.turns import make_job
from examples.prepare import prepare

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_trainer.training.run import Run

Row = dict[str, Any]
Weights = Mapping[str, "Tensor"]
ASKED = ("trec 50", "trec 200")
WAYS = (0.2, 0.4, 0.6, 0.8)
KINDS = ("taken", "soup, greedy", "soup, sure", "soup", "wise, greedy", "wise, sure", "wise")


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
        for seed, name in itertools.product(SEEDS, named or ASKED)
    ]
    print(table(found))


def misspelt(place: Path) -> None:
    """Write the test questions, and again with misspelt words."""
    draw = random.Random(0)  # noqa: S311 - no secret

    def spelt(word: str) -> str:
        if len(word) < 4 or draw.random() > 1 / 3:  # noqa: PLR2004
            return word
        at = draw.randrange(1, len(word) - 1)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    rows = read(place / "data" / "trec-test.csv")
    others = [(" ".join(map(spelt, question.split())), label) for question, label in rows]
    with (place / "auto" / "misspelt.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("question", "label"), *rows, *others])


def measured(place: Path, name: str, seed: int) -> Row:
    """Train the rungs of a run; return accuracies of what Auto takes and of what is made of the rungs."""
    from accelerate.state import AcceleratorState, PartialState

    from unfreeze_trainer.engines import open_engine
    from unfreeze_trainer.judgement.paired import within_by_rows
    from unfreeze_trainer.judgement.rungs import MIN_GAIN, SURE
    from unfreeze_trainer.models.blocks import of_head
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.finish import take_best
    from unfreeze_trainer.training.loop import train
    from unfreeze_trainer.training.run import Run

    AcceleratorState._reset_state()  # noqa: SLF001 - it takes one engine per process for granted
    PartialState._reset_state()  # noqa: SLF001
    with tempfile.TemporaryDirectory() as folder:
        spec = spec_of(place, name, "Auto", seed)
        spec["data"]["test"] = {"source": f"file://{place}/auto/misspelt.csv"}
        job = make_job(f"{folder}/run", **spec)
        task = open_task(job)
        run = Run(job, task, task.build_model(), open_engine(job), None)
        _open_gates(run)
        train(run)
        run.saver.wait()
        rungs = run.state.rungs
        run.ladder.choose()
        assert run.state.best is not None
        taken = [rung.best.step for rung in rungs].index(run.state.best.step)
        take_best(run, run.state.best.step)
        loaded = task.build_model()
        head = of_head(loaded.blocks)
        base = {key: tensor.detach() for key, tensor in loaded.module.named_parameters()}
        kept = [run.folder.checkpoints.load_weights(rung.best.step) for rung in rungs]
        weights = [base | {key: one[key] for key in base if key in one} for one in kept]
        tried = [_Tried(run, one) for one in weights]
        result = weights[taken]
        line = {
            way: _Tried(
                run, {key: one if key in head else base[key] + way * (one - base[key]) for key, one in result.items()}
            )
            for way in WAYS
        } | {1.0: tried[taken]}
        order = sorted(range(len(rungs)), key=lambda number: (-tried[number].value, number))
        members, soup = [order[0]], tried[order[0]]
        for number in order[1:]:
            other = _Tried(run, _mean([weights[one] for one in (*members, number)]))
            if other.value >= soup.value:
                members, soup = [*members, number], other
        whole = soup if len(members) == len(rungs) else _Tried(run, _mean(weights))
        rows = tried[taken].right
        margin = min(MIN_GAIN, float(np.sqrt(rows.mean() * (1 - rows.mean()) / len(rows))))
        sure = {id(one): within_by_rows(one.right, rows, margin) >= SURE for one in (whole, *line.values())}
        wise = max(line, key=lambda way: (line[way].value, way))
        surely = min(way for way in line if way == 1.0 or sure[id(line[way])])
        found = {
            "rungs": {
                run.plan.phases[rung.phase_index].rung: one.value for rung, one in zip(rungs, tried, strict=True)
            },
            "line": {str(way): one.value for way, one in line.items()},
            "taken": tried[taken].figures() | {"rung": run.plan.phases[rungs[taken].phase_index].rung},
            "soup, greedy": soup.figures() | {"members": len(members)},
            "soup, sure": (whole if sure[id(whole)] else tried[taken]).figures() | {"chosen": sure[id(whole)]},
            "soup": whole.figures(),
            "wise, greedy": line[wise].figures() | {"way": wise},
            "wise, sure": line[surely].figures() | {"way": surely},
            "wise": line[WAYS[-1]].figures(),
        }
        run.saver.close()
        run.engine.end()
    return {"set": name, "seed": seed} | found


def _open_gates(run: Run) -> None:
    """Have all rungs be trained to their ends."""
    asked = run.ladder._gate  # noqa: SLF001

    def gate() -> Any:
        found = asked()
        return found and found.model_copy(update={"answer": "Yes"})

    run.ladder._gate = gate  # type: ignore[method-assign]  # noqa: SLF001
    run.ladder.goes_on = lambda phase: True  # type: ignore[method-assign]  # noqa: ARG005


def _mean(of: Sequence[Weights]) -> Weights:
    return {key: sum(one[key] for one in of) / len(of) for key in of[0]}  # type: ignore[misc]


class _Tried:
    """Weights, and which questions they get right: those of validation at once, test questions when they are asked for."""

    def __init__(self, run: Run, weights: Weights) -> None:
        self._run, self._weights = run, weights
        self.right = self._answers("validation")
        self.value = round(float(self.right.mean()), 4)
        self._figures: dict[str, Any] = {}

    def figures(self) -> dict[str, Any]:
        """Return accuracies on the questions of validation, of the test, and misspelt ones."""
        if not self._figures:
            test = self._answers("test")
            half = len(test) // 2
            parts = {"test": test[:half], "misspelt": test[half:]}
            self._figures = {"validation": self.value} | {of: round(float(one.mean()), 4) for of, one in parts.items()}
        return self._figures

    def _answers(self, split: str) -> np.ndarray:
        self._run.engine.load_weights(self._weights)
        kept = self._run.evaluator.measure(split).kept
        assert kept is not None
        said = kept.outputs.argmax(dim=1).numpy()
        right: np.ndarray = said == self._run.task.raw(split, np.arange(len(said)))[1]
        return right


def table(found: list[Row]) -> str:
    """Return the table in Markdown; of each mixture the mean gain over what is taken, and its standard deviation over seeds."""
    lines = ["| set | weights | seeds | validation | test | misspelt | gain, test | misspelt |", "|---" * 8 + "|"]
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in found:
        groups[row["set"]].append(row)
    for name, rows in groups.items():
        for kind in KINDS:
            cells = [_told([_of(row, kind)[key] for row in rows]) for key in ("validation", "test", "misspelt")]
            gains = [
                _told([_of(row, kind)[key] - row["taken"][key] for row in rows], sign="+")
                for key in ("test", "misspelt")
            ]
            lines.append(
                f"| {name} | {kind} | {len(rows)} | {' | '.join(cells + (gains if kind != 'taken' else ['', '']))} |"
            )
    return "\n".join(lines)


def _of(row: Row, kind: str) -> dict[str, float]:
    """Return the figures of a mixture; a row that has those of the whole line has no others of `wise`."""
    found: dict[str, float] = row.get(kind) or row["line"][str(WAYS[-1])]
    return found


def _told(values: list[float], *, sign: str = "") -> str:
    return f"{mean(values):{sign}.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
