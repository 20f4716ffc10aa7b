"""Images: decoded in threads as they are needed, varied at random in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.augmentation import Variation
from unfreeze_trainer.data.image_loader import ImageLoader
from unfreeze_trainer.data.images import read_images, sample_name
from unfreeze_trainer.data.mixing import PARTNERS, SHARES, Mix, Mixing, mixed_batch
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.modalities.base import rows_of
from unfreeze_trainer.modalities.files import Files
from unfreeze_trainer.models.export import Example
from unfreeze_trainer.models.image_input import ImageInput

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


class ImageModel(Protocol):
    """What a library tells of a model that reads images."""

    @property
    def sees(self) -> ImageInput:
        """What it sees of a picture; JobError InvalidModel where the folder does not say."""


class Image(Files):
    """Images of a folder or a table.

    Parameters
    ----------
    job
        Its data counts.
    model
        Asked once it is open.
    options
        Of the task: how training images are varied and mixed.
    """

    chances: np.ndarray | None = None
    """Probability of each training sample to be drawn; None where each comes once in an epoch."""

    def __init__(self, job: ResolvedJob, model: ImageModel, options: ImageClassificationSpec) -> None:
        super().__init__(job)
        self._model, self._varied = model, options
        self._mixing = Mixing(options) if options.mix_up or options.cut_mix else None
        policies = (options.rand_augment, options.auto_augment, options.aug_mix, options.random_erasing)
        self.varies = self._mixing is not None or options.augmentation != "None" or any(policies)

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a folder with one sub-folder per label, or a table."""
        return read_images(dataset, where, kind=target_kind(self.job), skip=self._skips)

    def open(self) -> None:
        """Find out how the model wants its images."""
        self._sees = self._model.sees
        as_shown = self.job.semantics.pictures == "AsShown"
        self.loader = ImageLoader(self._sees, Variation(self._varied, self._sees), as_shown=as_shown)

    def name_of(self, source: DataSource, row: int) -> str:
        """Return what a JobError's message calls a sample: source, and file or row."""
        return sample_name(source, row)

    def raw(self, source: DataSource, row: int) -> Picture:
        """Return the picture of a sample. JobError InvalidData."""
        return self._opened(source, row)

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        height, width, own = self._sees.height, self._sees.width, self._sees.own_size
        known = f" ({own[0]} x {own[1]} is the folder's own)" if own != (height, width) else ""
        return (
            f"Pictures reach it with {height} x {width} pixels: set {self._options}.imageSize to a size that"
            f" {self.where} takes{known}, or choose another model"
        )

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with images, float32 of shape (samples, channels, height, width).

        Mixed ones come with the index of each one's partner, and the share of the first in it.
        """
        if self._mixing and epoch_seed is not None:
            yield from self._mixed(split, batches, epoch_seed, unread)
            return
        rows = ((indices, rows_of(split, indices)) for indices in batches)
        skipped = unread if self._skips else None
        for indices, images in self.loader.batches(split.source, rows, epoch_seed, skipped):
            yield indices, {"images": images}

    def _mixed(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        assert self._mixing is not None
        chances = None if self.chances is None else np.cumsum(self.chances)

        def mix_of(index: int) -> Mix:
            assert self._mixing is not None
            return self._mixing.of(index, epoch_seed, len(split), chances)

        both = ([*indices, *(mix_of(index).partner for index in indices)] for indices in batches)
        rows = ((indices, rows_of(split, indices)) for indices in both)
        for all_indices, images in self.loader.batches(split.source, rows, epoch_seed, unread if self._skips else None):
            half = len(all_indices) // 2
            indices, partners = all_indices[:half], all_indices[half:]
            mixes = [
                None if index == partner or not unread.isdisjoint((index, partner)) else mix_of(index)
                for index, partner in zip(indices, partners, strict=True)
            ]
            inputs, shares = mixed_batch(images, mixes or [None])
            yield indices, {"images": inputs, PARTNERS: torch.tensor(partners, dtype=torch.int64), SHARES: shares}

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> Any:
        """Return the images of the first samples, or pictures, uint8 of (channels, height, width), where a processor makes images of them."""
        if self._sees.processor is None:
            return inputs["images"]
        pictures = (np.array(self._opened(split.source, int(row))) for row in split.rows[:count])
        return [torch.from_numpy(np.atleast_3d(picture)).permute(2, 0, 1) for picture in pictures]

    def _opened(self, source: DataSource, row: int) -> Picture:
        from PIL import Image as Pictures

        try:
            return self.loader.open(source, row)
        except JobError:
            if not self._skips:
                raise
            return Pictures.new(self._sees.mode, (self._sees.width, self._sees.height))

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        return Example(f'Image.open("picture.png").convert("{self._sees.mode}")', "from PIL import Image")

    def save(self, folder: Path) -> None:
        """Write the image processor, where the library has one."""
        if self._sees.processor is not None:
            self._sees.processor.save_pretrained(folder)
