"""What pictures or clips show, told from words by an exported bridge: the class whose texts lie closest, without any training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_api.tasks.alignment import AlignmentSpec
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.samples import DataSource, Split
from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.libraries.bridge import TEMPERATURE, BridgeLibrary
from unfreeze_trainer.libraries.towers import AudioTower, Tower
from unfreeze_trainer.modalities.aligned import Aligned
from unfreeze_trainer.modalities.audio import Audio
from unfreeze_trainer.modalities.base import Modality
from unfreeze_trainer.modalities.image import Image
from unfreeze_trainer.models import LoadedModel, bridge_layers
from unfreeze_trainer.models.bridge import Encoders
from unfreeze_trainer.objectives.labelled import labelled
from unfreeze_trainer.tasks.composed import ComposedTask

PROMPT = "a picture of a {}."
"""What a class is called where nobody says how."""
HEARD = "{}"
"""The same of what is said in clips."""
AT_ONCE = 64
"""Texts of classes that are read at a time: thousands together take gigabytes."""
_SAME = 1e-10
"""What a cosine lacks to 1 at most where two texts are the same, but for rounding."""


class Telling(nn.Module):
    """Encoders of one modality with their head; outputs are cosines with each class times a factor, (samples, classes).

    Parameters
    ----------
    encoders, head
        Of a bridge.
    classes
        A vector of each class, (classes, width), each as long as 1.
    factor
        Of the cosines.
    """

    classes: Tensor

    def __init__(self, encoders: Encoders, head: nn.Module, classes: Tensor, factor: float) -> None:
        super().__init__()
        self.encoders, self.head, self.factor = encoders, head, factor
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits."""
        read = torch.cat([each.float() for each in self.encoders(inputs)], dim=1)
        logits: Tensor = self.factor * functional.normalize(self.head(read), dim=-1) @ self.classes.T
        return logits


class _Words(BridgeLibrary):
    """The encoders of one modality of an export, and its texts.

    Parameters
    ----------
    job
        Its towers are these encoders, as they lie in the export.
    folder
        The export.
    classes, prompts
        Names, and texts in which {} stands for one: of several the mean of their vectors counts.
    max_seconds
        That the export hears of a clip, as of the job that made it.
    """

    def __init__(
        self,
        job: ResolvedJob,
        folder: Path,
        classes: Sequence[str],
        prompts: Sequence[str],
        max_seconds: float | None,
    ) -> None:
        self._folder, self._classes, self._prompts = folder, classes, prompts
        self._described: dict[str, Any] = json.loads((folder / bridge_layers.CONFIG).read_text())
        super().__init__(job, AlignmentSpec(max_seconds=max_seconds))

    def build(self) -> LoadedModel:
        """Load encoders and head, and make the vectors of the classes."""
        encoders, _ = self.encoders()
        embed = bridge_layers.load(str(self._folder)).embed_text
        texts = [prompt.replace("{}", name) for name in self._classes for prompt in self._prompts]
        parts = [embed(texts[start : start + AT_ONCE]) for start in range(0, len(texts), AT_ONCE)]
        vectors = torch.cat(parts).view(len(self._classes), len(self._prompts), -1).mean(dim=1)
        require_apart(self._classes, vectors)
        head = bridge_layers.load_head(str(self._folder), self._described, self.towers[0].modality)
        factor = float(self._described.get("factor", 1 / TEMPERATURE))
        return LoadedModel(Telling(encoders, head, functional.normalize(vectors, dim=-1), factor), [], frozenset())


def require_apart(classes: Sequence[str], vectors: Tensor) -> None:
    """Raise JobError InvalidJob where two classes have the same vector, (classes, width): always the first of them would be told."""
    same = functional.normalize(vectors.double(), dim=-1)
    for start in range(0, len(same), AT_ONCE):
        some = same[start : start + AT_ONCE]
        near = (some @ same.T > 1 - _SAME).nonzero().tolist()
        if pair := next(((start + row, other) for row, other in near if start + row < other), None):
            one, other = (quoted(repr(classes[place])) for place in pair)
            raise JobError(
                "InvalidJob",
                f"the classes {one} and {other} cannot be told apart: the encoder of texts reads the same in both, as where its tokenizer"
                " knows none of their words (another script), or no capitals. Call them otherwise by --class",
            )


class _Alike(Aligned):
    """The same pictures or clips, as each of several encoders reads them."""

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a folder or a table as the first does."""
        return self._one.read(dataset, where)

    def name_of(self, source: DataSource, row: int) -> str:
        """Return what a JobError's message calls a sample."""
        return self._one.name_of(source, row)

    def heard_in_part(self, split: Split) -> str:
        """Return how many clips are longer than what is heard of them, for people; empty where none is."""
        return self._one.heard_in_part(split)

    def lengths(self, split: Split) -> np.ndarray:
        """Return the length of each sample of a split, int64 of shape (samples,)."""
        return self._one.lengths(split)

    @property
    def _one(self) -> Modality:
        return next(iter(self.parts.values()))

    def _part(self, source: DataSource, tower: str) -> tuple[DataSource, np.ndarray | None]:  # noqa: ARG002 - all read all
        return source, None


class ByWords(ComposedTask):
    """Tells the classes of pictures or clips.

    Parameters
    ----------
    job
        Of the task ImageClassification or AudioClassification; its towers lie in the export.
    folder, classes, prompts
        As of the library.
    options
        Of the job that made the export.
    """

    library: _Words

    def __init__(
        self, job: ResolvedJob, folder: Path, classes: Sequence[str], prompts: Sequence[str], options: AlignmentSpec
    ) -> None:
        library = _Words(job, folder, classes, prompts, options.max_seconds)
        parts = {tower.key: _reader(job, index, tower, options) for index, tower in enumerate(library.towers)}
        modalities = {tower.key: tower.modality for tower in library.towers}
        super().__init__(job, labelled(job.task), _Alike(job, parts, modalities), library)


def _reader(job: ResolvedJob, index: int, tower: Tower, options: AlignmentSpec) -> Modality:
    own = job.of_tower(index)
    if isinstance(tower, AudioTower):
        return Audio(own, tower, options.max_seconds)
    return Image(own, tower, ImageClassificationSpec(augmentation="None"))  # type: ignore[arg-type]
