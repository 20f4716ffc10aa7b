"""The batches that a model is tried on before it trains: they stand for all others, and what fails there is named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_trainer.errors import JobError, one_line_told
from unfreeze_trainer.seeds import seed_everything
from unfreeze_trainer.training.dry_run import Lots, gradients

if TYPE_CHECKING:
    from unfreeze_trainer.tasks import Task

_COMPARED = 3
"""Samples that a culprit is compared with."""


def trial_batches(lengths: np.ndarray, sizes: Collection[int]) -> list[list[int]]:
    """Return a batch of each size: the largest of the longest samples, the others of the shortest.

    As far as there are enough samples, no two batches have one in common.

    Parameters
    ----------
    lengths
        Of each sample, int64 of shape (samples,): a batch is as large as its longest sample makes it.
    sizes
        Samples of a batch.
    """
    ascending = np.argsort(lengths, kind="stable")
    largest, *others = sorted(sizes, reverse=True)
    found = [np.argsort(-lengths, kind="stable").take(range(largest), mode="wrap").tolist()]
    rest = ascending[~np.isin(ascending, found[0])]
    rest = rest if rest.size else ascending
    start = 0
    for size in others:
        found.append(rest.take(range(start, start + size), mode="wrap").tolist())
        start += size
    return found


class Trials:
    """Runs batches of training samples forward and backward through a model, in the mode that it is in.

    Parameters
    ----------
    task
        With the samples.
    module
        Whole, on one device, within `traceless`.
    autocast
        Returns the context of a forward pass.
    """

    def __init__(self, task: Task, module: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        self._task, self._module, self._autocast = task, module, autocast
        self._device = next(module.parameters()).device
        self.lots = Lots()
        """Whether the model has drawn lots, in batches of several samples: of one, the mask of a sample is a single number."""

    def run(self, samples: Sequence[int], *, seed: int = 0) -> frozenset[str]:
        """Return the names of the parameters that a batch gives a gradient.

        Raises
        ------
        JobError
            InvalidData: a sample cannot be read, or the model fails at this one alone. InvalidModel: it fails at others
            too.
        """
        try:
            return self._run(samples, seed)
        except JobError:
            raise
        except Exception as error:
            if not _is_of_input(error):
                raise
            raise self._blame(samples, error) from error

    def _run(self, samples: Sequence[int], seed: int) -> frozenset[str]:
        [batch] = self._task.batches("train", [samples], epoch_seed=0)
        batch = {name: tensor.to(self._device) for name, tensor in batch.items()}

        def loss() -> Tensor:
            with self._autocast():
                return self._task.loss(self._task.forward(self._module, batch), batch).sum()

        def watched() -> Tensor:
            with self.lots:
                return loss()

        seed_everything(seed)
        return gradients(self._module, watched if len(samples) > 1 else loss)

    def _fails(self, samples: Sequence[int]) -> bool:
        try:
            self._run(samples, 0)
        except JobError:
            raise
        except Exception:  # noqa: BLE001 - what the first failure was is known
            return True
        return False

    def _blame(self, samples: Sequence[int], error: Exception) -> JobError:
        """Return what a failed batch means: that of its samples which fails alone is to blame, if others do not."""
        text = one_line_told(error)
        culprit = self._culprit(samples)
        if culprit is not None:
            others = [sample for sample in range(self._task.splits["train"]) if sample != culprit][:_COMPARED]
            if not all(self._fails([sample]) for sample in others):
                name = self._task.name_of("train", culprit)
                return JobError(
                    "InvalidData",
                    f"{name}: the model fails at this sample, not at others: {text}. Correct or remove it",
                )
            if len(samples) == 1 and not self._fails(([*others, culprit] * 2)[:2]):
                return JobError(
                    "InvalidModel",
                    f"the model takes no batch of one sample, and the job makes one, of a worker's share or of an epoch's last"
                    f" batch ({self._task.splits['train']} training samples): {text}. Choose another spec.training.batchSize or"
                    " gradientAccumulationSteps, or fewer workers",
                )
        what = f"{len(samples)} training samples" if len(samples) > 1 else "one training sample"
        return JobError(
            "InvalidModel",
            f"the model fails at a batch of {what}, the first of which is {self._task.name_of('train', samples[0])}: {text}."
            f" {self._task.remedy}",
        )

    def _culprit(self, samples: Sequence[int]) -> int | None:
        """Return a sample of a batch that fails which fails alone; None where they fail only together."""
        while len(samples) > 1:
            halves = samples[: len(samples) // 2], samples[len(samples) // 2 :]
            failed = next((half for half in halves if self._fails(half)), None)
            if failed is None:
                return None
            samples = failed
        return samples[0]


def _is_of_input(error: Exception) -> bool:
    """Return whether the same batch would fail again on another machine."""
    return not (out_of_memory(error) or isinstance(error, OSError | torch.AcceleratorError))


def out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, the accelerator's or the host's."""
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )
