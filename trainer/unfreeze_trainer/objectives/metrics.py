"""Metrics as sums: every worker adds up its own samples, the sum of the workers is exact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.report import Usefulness


class Metrics(ABC):
    """Metrics of one split, from a state that is summed over samples and workers.

    Their names stand in the class, a few words that no label of a task goes into: they go to /progress, the job's status
    and Prometheus, which have no room for figures of each class. These belong into the report.
    """

    names: ClassVar[tuple[str, ...]]
    """What compute() may return, in camelCase."""

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

    def compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics of a summed state; none when it has no samples.

        Raises
        ------
        ValueError
            A metric is not among `names`.
        """
        values = self._compute(state)
        if unknown := sorted(set(values) - set(self.names)):
            raise ValueError(
                f"{type(self).__name__} does not name {', '.join(unknown)}: figures of each class are no metrics"
            )
        return values

    def usefulness(self, state: Tensor, labels: Sequence[str], metric: str) -> Usefulness | None:  # noqa: ARG002
        """Return whether a model with this summed state is better than guessing, None where that has no meaning."""
        return None

    @abstractmethod
    def _compute(self, state: Tensor) -> dict[str, float]: ...
