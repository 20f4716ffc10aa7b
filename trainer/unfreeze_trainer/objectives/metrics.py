"""Metrics as sums: every worker adds up its own samples, the sum of the workers is exact.

What no sum has, such as ranks, is computed of rows, one for each sample, that are gathered from all workers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.report import Usefulness
from unfreeze_trainer.objectives.targets import Targets

MAX_GATHERED = 2**25
"""Numbers of the samples of a split that are gathered, 128 MiB that a few seconds sort: of more, metrics that need them are
left out."""


class Metrics(ABC):
    """Metrics of one split, from a state that is summed over samples and workers.

    Their names stand in the class, a few words that no label of a task goes into: they go to /progress, the job's status
    and Prometheus, which have no room for figures of each class. These belong into the report.
    """

    names: ClassVar[tuple[str, ...]]
    """What compute() may return, in camelCase."""
    of_rows: ClassVar[tuple[str, ...]] = ()
    """Those of them that need the rows of all samples."""
    row_width: int = 0
    """How many numbers a row has; 0 where sums are enough."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        kept = budget.metrics(dict.fromkeys(cls.names, 0.0))
        if over := [name for name in cls.names if name not in kept]:
            raise TypeError(
                f"{cls.__name__}.names has no place for {', '.join(over)}: a task has at most {budget.MAX_METRICS} metrics,"
                f" each named by one word of at most {budget.MAX_NAME_LENGTH} characters"
            )

    @abstractmethod
    def new_state(self) -> Tensor:
        """Return the state of no samples, on the CPU; states are added."""

    def state_of(self, samples: int) -> Tensor:  # noqa: ARG002 - sums have one size
        """Return the state before the samples of a split of so many, on the CPU; where a metric is no sum it has their room."""
        return self.new_state()

    @abstractmethod
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place."""

    def rows(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return a row for each sample of a batch, none for padding: float32 of shape (samples, row_width)."""
        raise NotImplementedError

    def gathers(self, samples: int) -> bool:
        """Return whether the rows of so many samples are gathered."""
        return 0 < self.row_width * samples <= MAX_GATHERED

    def undefined(self, targets: Targets) -> dict[str, str]:
        """Return the metrics that samples with such targets do not have, each with the reason."""
        if not self.row_width or self.gathers(len(targets)):
            return {}
        why = (
            f"it compares the outputs of all samples with each other, and {len(targets):,} samples x {self.row_width:,} numbers are"
            f" more than the {MAX_GATHERED:,} that are kept; hold out fewer samples"
        )
        return dict.fromkeys(self.of_rows, why)

    def compute(self, state: Tensor, rows: Tensor | None = None) -> dict[str, float]:
        """Return the metrics of a summed state; none when it has no samples.

        Parameters
        ----------
        state
            Of all samples.
        rows
            Of all samples, in any order; without them the metrics that need them are left out, as are those that the
            samples do not have.

        Raises
        ------
        ValueError
            A metric is not among `names`.
        """
        values = self._compute(state)
        if rows is not None and len(rows):
            values |= self._compute_of_rows(rows)
        if unknown := sorted(set(values) - set(self.names)):
            raise ValueError(
                f"{type(self).__name__} does not name {', '.join(unknown)}: figures of each class are no metrics"
            )
        return {name: values[name] for name in self.names if name in values}

    def usefulness(self, state: Tensor, labels: Sequence[str], metric: str) -> Usefulness | None:  # noqa: ARG002
        """Return whether a model with this summed state is better than guessing, None where that has no meaning."""
        return None

    @abstractmethod
    def _compute(self, state: Tensor) -> dict[str, float]: ...

    def _compute_of_rows(self, rows: Tensor) -> dict[str, float]:  # noqa: ARG002 - of those that have some
        return {}
