"""Features of many rows, some thousand at a time: what one place of a model makes of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.padding import frames_of
from unfreeze_trainer.ranking.layers import pooled_rows, watched
from unfreeze_trainer.ranking.order import READ

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.tasks.composed import ComposedTask

CHUNK = 16_384
"""Samples among which those of alike length are put together; as many vectors are in memory."""


@dataclass(frozen=True)
class Extracted:
    """A model and the rows that it is asked about.

    Parameters
    ----------
    task
        Opened with the rows as one of its splits; its model has no adapter.
    split
        Its name.
    device
        Where it computes.
    labelled
        Whether the rows have labels.
    """

    task: ComposedTask
    split: str
    device: torch.device
    labelled: bool

    @property
    def samples(self) -> int:
        """How many rows there are."""
        return self.task.splits[self.split]

    @property
    def left_out(self) -> int:
        """Rows that could not be read, as far as they have been looked at."""
        return self.task.left_out.get(self.split, 0) + len(self.task.unread[self.split])

    def columns(self, place: str | None, batch_size: int, *, inputs: bool) -> Iterator[dict[str, pa.Array]]:
        """Yield columns of rows in the order of the data: where they stand, label where there is one, input if asked for, features.

        Parameters
        ----------
        place
            Name of a block; None for what the head reads.
        batch_size
            Samples that go through the model at once.
        inputs
            Whether the texts, or the paths of files, are among the columns.

        Raises
        ------
        JobError
            InvalidJob: there is no such place, or it gives no vector for each row. InvalidModel: numbers that are not finite.
        """
        import pyarrow as pa

        loaded = self.task.build_model()
        loaded.module.eval().to(self.device)
        for start in range(0, self.samples, CHUNK):
            samples = np.arange(start, min(self.samples, start + CHUNK))
            values = self._values(loaded, samples, place or READ, batch_size)
            read = ~np.isin(samples, list(self.task.unread[self.split]))
            if not np.isfinite(values[read]).all():
                raise JobError(
                    "InvalidModel",
                    f"{self.task.library.where}: its {place or READ} gives numbers that are not finite: the weights are broken",
                )
            known = self.task.known(self.split, samples[read], inputs=inputs)
            if not self.labelled:
                known.pop("label")
            flat = pa.array(values[read].ravel())
            yield known | {"features": pa.FixedSizeListArray.from_arrays(flat, values.shape[1])}

    @torch.inference_mode()
    def _values(self, loaded: LoadedModel, samples: np.ndarray, place: str, batch_size: int) -> np.ndarray:
        """Return the vectors of some samples, float32 of shape (samples, width)."""
        order = samples[np.argsort(-self.task.lengths(self.split)[samples], kind="stable")]
        lists = [order[low : low + batch_size].tolist() for low in range(0, len(order), batch_size)]
        found: np.ndarray | None = None
        frames = frames_of(loaded.module)
        with watched(loaded.module, loaded.blocks) as kept:
            for indices, here in zip(lists, self.task.batches(self.split, iter(lists)), strict=True):
                batch = {name: tensor.to(self.device) for name, tensor in here.items()}
                kept.clear()
                self.task.forward(loaded.module, batch)
                value = kept.get(place)
                pooled = None if value is None else pooled_rows(value, batch, len(indices), frames, further=True)
                if pooled is None:
                    raise self._no_place(place, [name for name in kept if name != READ])
                if found is None:
                    found = np.zeros((len(samples), pooled.shape[1]), dtype=np.float32)
                found[np.asarray(indices) - samples[0]] = pooled.float().cpu().numpy()
        assert found is not None
        return found

    def _no_place(self, place: str, names: list[str]) -> JobError:
        where = self.task.library.where
        if place == READ:
            said = f"{where}: its head is not given one vector for each row: choose a --layer ({', '.join(names)})"
        elif place in names:
            said = f"--layer {place}: {where} gives no vector for each row there: choose another one"
        else:
            said = f"--layer {place}: {where} has no such layer: choose one of {', '.join(names)}, or leave it out for what the head reads"
        return JobError("InvalidJob", said)
