"""Images: decoded in threads as they are needed, varied at random in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.image_loader import ImageLoader
from unfreeze_trainer.data.images import read_images, sample_name
from unfreeze_trainer.data.samples import Source, Split, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.modalities.base import rows_of
from unfreeze_trainer.modalities.files import Files
from unfreeze_trainer.models.export import Example

_MODES = {1: "L", 3: "RGB"}


class ImageModel(Protocol):
    """What a library tells of a model that reads images."""

    @property
    def data_config(self) -> dict[str, Any]:
        """How the model wants its images, in timm's words: input_size (channels, height, width), interpolation, mean, std, crop."""

    @property
    def own_size(self) -> tuple[int, int]:
        """Height and width in pixels that it was pretrained with."""


class Image(Files):
    """Images of a folder or a table.

    Parameters
    ----------
    job
        Its data counts.
    model
        Asked once it is open.
    augment
        Whether training images are varied at random.
    """

    def __init__(self, job: ResolvedJob, model: ImageModel, *, augment: bool) -> None:
        super().__init__(job)
        self._model, self._augment = model, augment

    def read(self, dataset: Dataset, where: str) -> Source:
        """Read a folder with one sub-folder per label, or a table."""
        return read_images(dataset, where, kind=target_kind(self.job), skip=self._skips)

    def open(self) -> None:
        """Find out how the model wants its images."""
        try:
            self._data_config = self._model.data_config
            self.loader = ImageLoader(
                self._data_config, augment=self._augment, as_shown=self.job.semantics.pictures == "AsShown"
            )
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            message = f"{self.where}: config.json does not say how images are prepared: {error!r}"
            raise JobError("InvalidModel", message) from error

    def name_of(self, source: Source, row: int) -> str:
        """Return what a JobError's message calls a sample: source, and file or row."""
        return sample_name(source, row)

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        _, height, width = self._data_config["input_size"]
        own = self._model.own_size
        known = f" ({own[0]} x {own[1]} is the folder's own)" if own != (height, width) else ""
        return (
            f"Pictures reach it with {height} x {width} pixels: set {self._options}.imageSize to a size that"
            f" {self.where} takes{known}, or choose another model"
        )

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with images, float32 of shape (samples, channels, height, width)."""
        rows = ((indices, rows_of(split, indices)) for indices in batches)
        skipped = unread if self._skips else None
        for indices, images in self.loader.batches(split.source, rows, epoch_seed, skipped):
            yield indices, {"images": images}

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002 - they are tensors
        """Return the images of the first samples."""
        return inputs["images"]

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        mode = _MODES[self._data_config["input_size"][0]]
        return Example(f'Image.open("picture.png").convert("{mode}")', "from PIL import Image")
