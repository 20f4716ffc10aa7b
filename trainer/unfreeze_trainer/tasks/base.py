"""What a run asks of a task: samples, model, loss, metrics, exports. Whoever answers can be trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor, nn

from unfreeze_api.contracts.report import Usefulness
from unfreeze_trainer.libraries.base import ExportKind
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.own_head import OwnHead
from unfreeze_trainer.objectives.answers import Answers
from unfreeze_trainer.objectives.base import IGNORED, TARGETS, Objective
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.texts import Scores, TextScores

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_trainer.modalities.base import Question

Batch = dict[str, Tensor]


class Task(ABC):
    """A task with its data, opened and checked."""

    labels: Sequence[str]
    """What there is to tell apart, in the order of class ids; empty where nothing is."""
    splits: Mapping[str, int]
    """Number of samples of each split: train, validation and, if the job has one, test."""
    metrics: Metrics
    answers: Answers | None = None
    """What the outputs say of each row, for predictions; None where they are no answers."""
    told: Sequence[str] = ()
    """What a finished model tells apart, where the outputs of training are no answers."""
    not_convex: str = Objective.not_convex
    blank_loss: float = 0.0
    """As of Objective, both."""
    pads: bool = True
    """Whether a batch is as long as its longest sample, and others are padded."""
    wide_outputs: bool = False
    """Whether outputs are so many that an evaluation takes no more samples at a time than a step does."""
    heavy_samples: bool = False
    """Whether one sample takes so much that an evaluation takes no more than two steps' samples at a time."""
    joins: ClassVar[bool] = False
    """Whether several encoders stand side by side, of which each is looked at by itself."""
    heads_of_base: ClassVar[bool] = False
    """Whether the base has brought the heads along, so that they can lose something too."""
    couples: bool = False
    """Whether the loss of a sample depends on the others of its step, on whatever rank."""
    unread: Mapping[str, set[int]] = MappingProxyType({})
    """Samples of each split that could not be read when it was their turn, where such are skipped (data.onError)."""

    @cached_property
    def pins(self) -> dict[str, Any]:
        """What the run starts from, by hash; computed when it is first asked for."""
        return {"base": {}, "data": {}}

    def pin_beside(self) -> None:  # noqa: B027 - a task may have nothing to hash
        """Begin to compute `pins` beside what comes next."""

    @cached_property
    def overlaps(self) -> dict[str, int]:
        """Samples of a held-out split whose input stands in another split too, like {"test in train": 12}."""
        return {}

    def learned_before(self, name: str, stage: Task) -> dict[str, int]:  # noqa: ARG002
        """Return how many samples of held-out splits have an input that a stage trains on, like {"test in stage domain": 12}."""
        return {}

    @property
    def made_to_hear(self) -> int | None:
        """Seconds of each clip that the model was made to hear, by the training clips; None where it is as it was."""
        return None

    @cached_property
    def left_out(self) -> dict[str, int]:
        """Rows of each source that could not be read and are in no split, by the first split that it gives."""
        return {}

    @cached_property
    def unseen_words(self) -> dict[str, int]:
        """Words of each split that have a target and that the model does not see, since texts are cut; none without."""
        return {}

    @property
    def warnings(self) -> Sequence[str]:
        """What of the data the model does not see or learn, in sentences for log and report; they have been logged."""
        return ()

    @cached_property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples, in a sentence."""
        return "Choose another model"

    # The samples

    def units(self, split: str) -> np.ndarray:
        """Return how many units of the loss each sample has, int64 of shape (samples,): a step's loss is their mean."""
        return np.ones(self.splits[split], dtype=np.int64)

    def chances(self, split: str) -> np.ndarray | None:  # noqa: ARG002 - of what draws them
        """Return the probability with which each sample of a split is drawn, float64 of shape (samples,).

        None where each comes once in an epoch.
        """
        return None

    def groups(self, split: str) -> np.ndarray:
        """Return which group each sample is of, int64 of shape (samples,): of what joins modalities samples with something in common."""
        return np.arange(self.splits[split])

    def lengths(self, split: str) -> np.ndarray:
        """Return the length of each sample of a split, which a batch's size follows; int64 of shape (samples,)."""
        return np.zeros(self.splits[split], dtype=np.int64)

    def extents(self, split: str) -> np.ndarray:
        """Return how large each sample of a split is, for whoever tries the largest; int64 of shape (samples,): of any unit."""
        return self.lengths(split)

    def check_samples(self, rank: int, world_size: int) -> None:  # noqa: B027 - what lies in memory has been read
        """Read this rank's share of the samples, for some seconds at most; the others are read when it is their turn.

        Raises
        ------
        JobError
            InvalidData: one cannot be read.
        """

    def name_of(self, split: str, index: int) -> str:
        """Return what a JobError's message calls a sample: source, and row or file."""
        return f"{split}, sample {index + 1}"

    @abstractmethod
    def batches(
        self, split: str, batches: Iterable[Sequence[int]], *, epoch_seed: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batch of each list of sample indices, on the CPU.

        An empty list (a worker without a part of a short batch) yields one row of padding: it runs through the model like
        any other, its loss and its gradients are 0, and metrics and tokens do not count it. So every worker takes part in
        every collective operation.

        Parameters
        ----------
        split
            train, validation or test.
        batches
            Indices into the split, below `splits[split]`; read lazily, a little ahead.
        epoch_seed
            Given in training: what varies at random (augmentation) depends on it and on the sample's index alone,
            so neither on rank nor on world size nor on where a run resumed.

        Notes
        -----
        A sample that cannot be read and is to be skipped keeps its place, and is a row of padding.
        """

    def repeats(self, split: str) -> bool:  # noqa: ARG002 - of what says so
        """Return whether the inputs of a split's samples are the same each time: then a model's frozen blocks need them once."""
        return False

    def remembered(self, split: str, batches: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], Batch]]:
        """Yield each list of sample indices with its batch, of a split that repeats, without inputs that would be read from files.

        Parameters as of `batches`.
        """
        raise NotImplementedError

    def tokens(self, batch: Mapping[str, Tensor]) -> int:  # noqa: ARG002 - of what has some
        """Return how many tokens that are not padding a batch has; 0 for what has none."""
        return 0

    # What of the base is looked at

    def looked_at(self) -> tuple[str, int]:
        """Return where the base is looked at, anchor or validation, and how many samples there are.

        Raises
        ------
        JobError
            InvalidData: the anchor cannot be read.
        """
        return "validation", self.splits["validation"]

    def unlabelled(
        self,
        split: str,
        batches: Iterable[Sequence[int]],
        unread: set[int],  # noqa: ARG002 - all can be read
    ) -> Iterator[Batch]:
        """Yield the inputs of each list of sample indices, on the CPU; an empty list gives a row of padding.

        Parameters
        ----------
        split, batches
            validation or anchor, and indices into it.
        unread
            Takes the indices of those that cannot be read and are to be skipped.
        """
        yield from self.batches(split, batches)

    def answers_at(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the token that each place of `outputs` is to give, of a task whose outputs are wide.

        Int64 of shape (samples, length), IGNORED where nothing is learned: the next one of those in the inputs.
        """
        found = inputs[TARGETS].roll(-1, dims=1)
        found[:, -1] = IGNORED
        return found

    def outputs(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return what a model makes of what `unlabelled` yields."""
        return self.forward(module, inputs)

    scores: type[Scores] = TextScores
    """What measures texts that a model of the task makes."""

    def asked(self, split: str, index: int) -> Question | None:  # noqa: ARG002 - of those whose models make texts
        """Return what a model that makes texts is asked of a sample; None where there is nothing to ask."""
        return None

    def of_towers(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - of what joins them
        """Return what each of several encoders makes of inputs, (samples, width) by its name; 0 throughout of what a sample lacks."""
        return {}

    def own_head(self) -> OwnHead | None:
        """Return the head that the base brings along, once the model is built; None where it has none that can be put back."""
        return None

    def words(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, int] | None:  # noqa: ARG002 - of what has some
        """Return which tokens of a batch are words, bool of shape (samples, tokens), and the token that masks one; None without."""
        return None

    # Predictions, where there are answers

    def rows_of(self, split: str) -> np.ndarray:
        """Return how many rows of predictions each sample has, int64 of shape (samples,)."""
        return np.ones(self.splits[split], dtype=np.int64)

    def known(self, split: str, samples: np.ndarray, *, inputs: bool) -> dict[str, pa.Array]:
        """Return what is known of the rows of some samples, as columns of predictions: where they stand, and their labels.

        Parameters
        ----------
        split, samples
            Indices into the split.
        inputs
            Whether texts, or paths of files, are among it.
        """
        raise NotImplementedError

    def raw(self, split: str, samples: np.ndarray) -> tuple[Iterator[Any], np.ndarray]:
        """Return some samples as the data has them, for models that are not trained here.

        Parameters
        ----------
        split, samples
            Indices into the split, of samples that can be read.

        Returns
        -------
        tuple
            Inputs, tuples of one or two texts or pictures of Pillow, read one by one, and targets as `Targets.values` has them.
        """
        raise NotImplementedError

    def source_of(self, split: str) -> str | None:  # noqa: ARG002 - what has none
        """Return where the rows of a split lie, as in the manifest."""
        return None

    def keep(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what `answers` takes of each row of a batch, (samples, rows, outputs), and the rows' states, (samples, rows)."""
        raise NotImplementedError

    # The model

    @abstractmethod
    def build_model(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""

    @abstractmethod
    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the model's outputs, of shape (samples, outputs)."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the losses of each sample's units, as of Objective."""

    def coupled(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what the other samples of a step have to know of a batch, where the loss couples them.

        Returns
        -------
        tuple
            Which rows are samples and no padding, bool of shape (samples,), and the targets of all rows.
        """
        raise NotImplementedError

    def coupled_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample among all of a step, float32 of shape (samples,), where it couples them.

        Parameters
        ----------
        outputs, targets
            Of the samples of all workers, none of them padding: outputs are float32.
        """
        raise NotImplementedError

    # What is written

    def exportable(self, module: nn.Module, kind: ExportKind) -> nn.Module:  # noqa: ARG002 - the same for each kind
        """Return the module that an export of a kind is written from."""
        return module

    @abstractmethod
    def export(
        self,
        module: nn.Module,
        folder: Path,
        kind: ExportKind,
        *,
        metrics: Mapping[str, float] | None = None,
        usefulness: Usefulness | None = None,
    ) -> None:
        """Write the bare module, on the CPU, as a folder that the plain library loads, with a model card.

        Parameters
        ----------
        module
            As build_model() made it, unwrapped; it is not changed.
        folder
            Created if need be.
        kind
            Of the export.
        metrics, usefulness
            For the model card.
        """

    @abstractmethod
    def verify_export(self, folder: Path, kind: ExportKind, module: nn.Module) -> None:
        """Load an export with the plain library in a fresh process and compare outputs on a few samples.

        Raises
        ------
        RuntimeError
            It does not load, gives other outputs or has other names for them.
        """

    @abstractmethod
    def usage(self, kind: ExportKind, folder: str, base: str) -> str:
        """Return the lines of Python that load an export with the plain library and predict: what people are shown.

        Parameters
        ----------
        kind
            Of the export.
        folder, base
            Where the export and its base model lie, as the lines shall have it.
        """
