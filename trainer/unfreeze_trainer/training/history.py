"""history.csv of a run folder: loss, learning rates and metrics over the steps, each step once whatever stopped the run."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_trainer.judgement.phases import Evaluated
from unfreeze_trainer.runs.generation import Generation, append

if TYPE_CHECKING:
    from unfreeze_api.contracts.progress import Progress

FILE = "history.csv"
_POINTS = 500
"""Rows of losses alone that a run has at most, about; each evaluation has a row besides."""


class CurveFile:
    """The file, on the process that may write; elsewhere it does nothing.

    Parameters
    ----------
    run_folder, generation
        Where it lies, and the right to write; None without it.
    step
        That the run resumes from: later rows are of steps that will be taken again, and go.
    total_steps
        Of the run.
    blocks, metrics
        Whose learning rates have a column, and the metrics of an evaluation.
    """

    def __init__(
        self,
        run_folder: Path,
        generation: Generation | None,
        *,
        step: int,
        total_steps: int,
        blocks: Sequence[str],
        metrics: Sequence[str],
    ) -> None:
        self._path, self._generation = run_folder / FILE, generation
        self._blocks, self._metrics = list(blocks), list(metrics)
        self._every, self._newest = max(1, total_steps // _POINTS), step
        self._header = [
            *("step", "epoch", "phase", "loss"),
            *(f"learningRate.{block}" for block in blocks),
            *(f"validation.{name}" for name in metrics),
        ]
        if generation:
            self._begin(generation, step)

    def _begin(self, generation: Generation, step: int) -> None:
        """Keep what was written up to a step; a line that a crash has cut is not among it."""
        text = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        rows = [row for row in csv.DictReader(io.StringIO(text)) if None not in row.values()]
        kept = [row for row in rows if row.get("step", "").isdecimal() and int(row["step"]) <= step]
        lines = ([row.get(name, "") for name in self._header] for row in kept)  # another version had other columns
        whole = "".join(self._line(line) for line in (self._header, *lines))
        if text != whole:
            aside = generation.aside(FILE)
            aside.write_text(whole, encoding="utf-8", newline="")
            generation.commit(aside, self._path)

    def go_back(self, step: int) -> None:
        """Drop the rows after a step, which will be taken again."""
        self._newest = step
        if self._generation:
            self._begin(self._generation, step)

    def evaluations(self, phase: str) -> list[Evaluated]:
        """Return the evaluations of a phase whose losses are numbers; none where there are no such losses, or this process may not write."""
        found = []
        with suppress(
            OSError, KeyError, ValueError, TypeError, csv.Error
        ):  # a damaged line ends what it tells, and no run
            for row in csv.DictReader(io.StringIO(self._path.read_text(encoding="utf-8") if self._generation else "")):
                rates = [float(row[name]) for name in self._header if name.startswith("learningRate.") and row[name]]
                losses = [float(row.get(name) or "nan") for name in ("loss", "validation.loss")]
                if row["phase"] == phase and rates and all(map(math.isfinite, losses)):
                    found.append(Evaluated(int(row["step"]), max(rates), *losses))
        return found

    @staticmethod
    def _line(cells: Sequence[object]) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        return line.getvalue()

    def trained(self, progress: Progress) -> None:
        """Add the loss of a step, if it is time."""
        if progress.step >= self._newest + self._every:
            self._add(progress, measured=False)

    def evaluated(self, progress: Progress) -> None:
        """Add an evaluation, with the loss at its step."""
        self._add(progress, measured=True)

    def _add(self, progress: Progress, *, measured: bool) -> None:
        self._newest = progress.step
        if not self._generation:
            return
        self._generation.check()
        rates = [progress.learning_rates.get(block, "") for block in self._blocks]
        metrics = [progress.metrics.get(name, "") if measured else "" for name in self._metrics]
        loss = "" if progress.loss is None else progress.loss
        with append(self._path) as file:
            file.write(self._line([progress.step, progress.epoch, progress.phase_name, loss, *rates, *metrics]))
