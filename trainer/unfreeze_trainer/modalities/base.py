"""What all modalities have in common: reading a source, and batches of a split's inputs."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.rows import input_columns
from unfreeze_trainer.data.samples import DataSource, Split
from unfreeze_trainer.models.export import Example

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Question:
    """What a model that makes texts is asked of a sample, and what it should say."""

    inputs: Mapping[str, list[int] | Tensor]
    """Of its function generate, by name, without an axis for samples: ids of tokens, or what is heard."""
    right: str
    room: int | None
    """Tokens that the model can say at most; None where nothing in it limits them."""
    decode: Callable[[list[int]], str]
    """Turns what it says into text."""
    echoed: int = 0
    """Tokens that it repeats before what it says: those that it was asked."""
    readable: bool = True
    """Whether the sample can be read; else silence stands in its place."""
    tokenizer: Any = None
    """Of transformers, where `decode` uses one: texts at which a model stops are looked for in its tokens."""


class Modality(ABC):
    """What goes into the model.

    Parameters
    ----------
    job
        Its data count.
    """

    needs_model: ClassVar[bool] = False
    """Whether the model's own files tell which rows can be read."""

    def __init__(self, job: ResolvedJob) -> None:
        self.job = job
        self.where = f"spec.model.source {job.model.source}"
        self._skips = job.data.on_error == "Skip"
        self._options = f"spec.task.{job.task.kind.member}"
        self.warnings: list[str] = []
        """What of the data that were read the model does not see or learn, for people, without what rows hold."""

    def tell(self, where: str, said: str) -> None:
        """Log something of the data, and keep it among the warnings; `where` is what it is about."""
        logging.getLogger(type(self).__module__).warning("%s: %s", where, said)
        self.warnings.append(f"{where}: {said}")

    @abstractmethod
    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a source; `where` is what messages start with. JobError InvalidData where it cannot be read."""

    @abstractmethod
    def open(self) -> None:
        """Prepare for batches, once the data is read and the model's library is open. JobError InvalidModel."""

    def check(self, splits: Mapping[str, Split], rank: int, world_size: int) -> None:  # noqa: B027 - what lies in memory has been read
        """Read this rank's share of the samples, for some seconds at most. JobError InvalidData."""

    def name_of(self, source: DataSource, row: int) -> str:
        """Return what a JobError's message calls a sample: source, and row or file."""
        return f"{source.where}: row {source.number(row)}"

    def shown(self, source: DataSource, rows: np.ndarray, count: np.ndarray) -> dict[str, pa.Array]:  # noqa: ARG002 - one each
        """Return what some samples read, as columns of predictions.

        Parameters
        ----------
        source, rows
            Indices of samples into a source.
        count
            How many rows of predictions each has, int64 of shape (samples,).
        """
        return input_columns(source, rows)

    def raw(self, source: DataSource, row: int) -> Any:
        """Return a sample as the data has it: a tuple of texts, or a picture. JobError InvalidData where it cannot be read."""
        raise NotImplementedError

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do about a model that fails at the samples, in a sentence."""

    def heard_in_part(self, split: Split) -> str:  # noqa: ARG002 - of what is as long as it likes
        """Return how many samples of a split the model reads the beginning of alone, for people; empty where there are none."""
        return ""

    def lengths(self, split: Split) -> np.ndarray:
        """Return the length of each sample of a split, which a batch's size follows; int64 of shape (samples,)."""
        return np.zeros(len(split), dtype=np.int64)

    def extents(self, split: Split) -> np.ndarray:
        """Return how large each sample of a split is, for whoever tries the largest; int64 of shape (samples,): of any unit."""
        return self.lengths(split)

    @abstractmethod
    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with the batch's inputs, on the CPU; an empty list with one row of padding.

        Parameters
        ----------
        split, batches
            Samples, and indices into them; read lazily, a little ahead.
        epoch_seed
            Given in training: what varies at random depends on it and on the sample's index alone.
        unread
            Takes the indices of those that cannot be read and are to be skipped.
        """

    def asked(self, split: Split, index: int) -> Question | None:  # noqa: ARG002 - of those whose models make texts
        """Return what the model is asked of a sample; None where there is nothing to ask."""
        return None

    made_to_hear: int | None = None
    """Seconds of each clip that the model was made to hear, as long as the longest training clip lasts; None where it is as it was."""
    varies: bool = False
    """Whether training inputs vary at random."""

    def remembered(
        self,
        split: Split,  # noqa: ARG002 - of what holds its samples in memory
        batches: Iterable[Sequence[int]],
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with those inputs that lie in memory. Parameters as of `batches`."""
        yield from ((indices, {}) for indices in batches)

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:  # noqa: ARG002 - of what has some
        """Return how many tokens that are not padding the rows have that count, bool of shape (samples,)."""
        return 0

    @abstractmethod
    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> Any:
        """Return what `Plain.outputs` takes for the first samples of a split, whose inputs are given."""

    def as_samples(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a batch of samples as `Plain.outputs` makes it of them."""
        return batch

    @property
    @abstractmethod
    def example(self) -> Example:
        """An input that people are shown."""

    def save(self, folder: Path) -> None:  # noqa: B027 - not all have a file of their own
        """Write what turns inputs into tensors, in so far as it is kept beside the weights."""


def rows_of(split: Split, indices: Sequence[int]) -> np.ndarray:
    """Return the rows of samples in their source, int64 of shape (samples,)."""
    return split.rows[np.asarray(indices, dtype=np.int64)]
