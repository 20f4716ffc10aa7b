"""Ranks the candidates of a job: the features of some training rows are computed once for each, and scored."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pydantic.alias_generators import to_snake

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_trainer.data.few import numbers_of
from unfreeze_trainer.data.samples import Split, read_training_rows, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.features.cut import Batch
from unfreeze_trainer.models.blocks import of_head
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.objectives.targets.label_sets import NO_LABEL
from unfreeze_trainer.ranking.candidates import candidates_of, naming, require_rankable
from unfreeze_trainer.ranking.layers import features, mean_of
from unfreeze_trainer.ranking.order import Measured, Ranking, ranked
from unfreeze_trainer.ranking.scores import Kind, Scores, scores
from unfreeze_trainer.runs.choice import MEAN
from unfreeze_trainer.tasks.composed import ComposedTask

ROWS = 1000
"""Training rows that features are computed of, unless somebody says another number."""
MIN_ROWS = 10
"""With fewer there is nothing to compare."""
_BATCH = 32
_SPLIT = "train"

Tell = Callable[[str], None]


def rank(job: ResolvedJob, rows: int = ROWS, tell: Tell = lambda _text: None) -> Ranking:
    """Rank the candidates of a job.

    Of the data the training split is read alone; what is held out of it by a fraction is not looked at, nor is a source of
    validation or test opened. Every candidate is opened, and its folder and tokenizer are looked at, before anything is computed.

    Parameters
    ----------
    job
        It has candidates, whose files are here.
    rows
        Of the training split, at most.
    tell
        Hears what is being done.

    Raises
    ------
    JobError
        InvalidJob: the task cannot be ranked, or there are too few rows. InvalidData. InvalidModel: what is wrong with which
        candidates.
    """
    require_rankable(job)
    data = _Rows(job, rows)
    tasks = _opened(job, data, tell)
    split = data.split
    kind, targets = _targets(job, split)
    copies, found = numbers_of(split.source.inputs), []
    for number, (candidate, task) in enumerate(zip(candidates_of(job), tasks, strict=True), 1):
        tell(f"ranking {candidate.model.source} ({number} of {len(tasks)})")
        with naming(job, candidate):
            found.append(_measured(candidate.model.source, task, targets, kind, copies))
    guess = float(targets.mean(axis=0).max()) if kind == "Label" else 0.0
    bases = ranked(found)
    first = next(one for one in found if one.source == bases[0].source)
    return Ranking(
        bases=bases,
        rows=len(split) if first.read is None else len(first.read),
        training_rows=data.total,
        seed=job.training.seed,
        guess=round(guess, 6),
        share_of="Rows" if kind == "Label" else "Variance",
    )


class _Rows:
    """The training rows of a job, read once for all of its candidates."""

    def __init__(self, job: ResolvedJob, most: int) -> None:
        self._job, self._most = job, most
        self._read: tuple[Encoder[Any], Split, int] | None = None

    def read(self, task: ComposedTask) -> tuple[Encoder[Any], dict[str, Split]]:
        """Return what there is to predict, and the rows under the name of each split that a task looks at."""
        if self._read is None:
            self._read = read_training_rows(self._job, task.modality.read, target_kind(self._job), self._most)
            if len(self.split) < MIN_ROWS:
                raise JobError(
                    "InvalidJob",
                    f"{self.split.source.where}: {len(self.split)} rows to train on are too few to rank bases by, at least {MIN_ROWS}"
                    " are needed: give more data, or name one base in spec.model.source",
                )
        return self._read[0], dict.fromkeys((_SPLIT, "validation"), self.split)

    @property
    def split(self) -> Split:
        """The rows."""
        assert self._read is not None
        return self._read[1]

    @property
    def total(self) -> int:
        """Rows of the whole training split."""
        assert self._read is not None
        return self._read[2]


def _opened(job: ResolvedJob, data: _Rows, tell: Tell) -> list[ComposedTask]:
    """Open the task with each candidate.

    Raises
    ------
    JobError
        InvalidModel: all that cannot be opened, each with what is wrong. Others: what is wrong with the data.
    """
    module = importlib.import_module(f"unfreeze_trainer.tasks.{to_snake(job.task.type)}")
    kind = getattr(module, job.task.type)
    opened, wrong = [], []

    def read(task: ComposedTask) -> tuple[Encoder[Any], dict[str, Split]]:
        return data.read(task)

    ranking = type(kind.__name__, (kind,), {"read": read})
    for candidate in candidates_of(job):
        tell(f"opening {candidate.model.source}")
        try:
            with naming(job, candidate):
                opened.append(ranking(candidate))
        except JobError as error:
            if error.reason != "InvalidModel":
                raise
            wrong.append(error.marked)
    if wrong:
        raise JobError("InvalidModel", "; ".join(wrong))
    return opened


def _targets(job: ResolvedJob, split: Split) -> tuple[Kind, np.ndarray]:
    """Return what a row's targets are, and all of them, float64 of shape (rows, columns): numbers in standard deviations."""
    values = split.targets.values
    if task_type(job.task.type).targets == "Numbers":
        spread = values.std(axis=0)
        return "Numbers", values / np.where(spread > 0, spread, 1.0)
    several = values.ndim > 1
    matrix = np.zeros((len(values), int(values.max(initial=0)) + 1))
    rows, places = np.nonzero(values != NO_LABEL) if several else (np.arange(len(values)), None)
    matrix[rows, values[rows, places] if several else values] = 1.0
    matrix = matrix[:, matrix.any(axis=0)]
    if matrix.shape[1] < 2 and not several:  # noqa: PLR2004 - to tell apart
        raise JobError(
            "InvalidJob",
            f"{split.source.where}: the {len(split)} rows that bases are ranked on have one label alone: give more rows, --rows"
            " or data, or name one base in spec.model.source",
        )
    return "Labels" if several else "Label", matrix


def _measured(source: str, task: ComposedTask, targets: np.ndarray, kind: Kind, copies: np.ndarray) -> Measured:
    """Load a candidate, compute its features and score them."""
    began = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = task.build_model()
    loaded.module.to(device)
    places = features(loaded, task.forward, _batches(task, device), len(targets))
    head = of_head(loaded.blocks)
    parameters = sum(one.numel() for name, one in loaded.module.named_parameters() if name not in head)
    if not places:
        raise JobError(
            "UnsupportedModel",
            f"{task.library.where}: no layer gives a vector for each sample, so this model cannot be ranked: leave it out, or name"
            " it in spec.model.source",
        )
    if (mean := mean_of(places)) is not None:
        places[MEAN] = mean
    read = np.setdiff1d(np.arange(len(targets)), list(task.unread[_SPLIT]))  # others are skipped, as the job wants
    if len(read) < MIN_ROWS:
        raise JobError(
            "InvalidData",
            f"spec.data.train: of {len(targets)} rows that bases are ranked on {len(read)} can be read, and at least {MIN_ROWS} are"
            " needed: correct the files that are named in the log, or name one base in spec.model.source",
        )
    found: dict[str, Scores] = {}
    for name, values in places.items():
        if not np.isfinite(values[read]).all():
            raise JobError(
                "InvalidModel",
                f"{task.library.where}: its {name} gives numbers that are not finite: the weights are broken",
            )
        found[name] = scores(values[read], targets[read], kind, copies[read])
    return Measured(source, found, parameters, time.perf_counter() - began, read, copies[read])


def _batches(task: ComposedTask, device: torch.device) -> Iterator[tuple[Sequence[int], Batch]]:
    """Yield all rows, those of alike length together, on a device."""
    order = np.argsort(-task.lengths(_SPLIT), kind="stable")
    lists = [order[low : low + _BATCH].tolist() for low in range(0, len(order), _BATCH)]
    read = task.batches(_SPLIT, iter(lists))
    for indices, batch in zip(lists, read, strict=True):
        yield indices, {name: tensor.to(device) for name, tensor in batch.items()}
