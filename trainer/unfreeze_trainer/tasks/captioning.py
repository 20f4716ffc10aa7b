"""Captioning: a table of pictures or clips with texts, a frozen encoder, a projector and a language model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.captioning import CaptioningSpec
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.overlaps import overlaps
from unfreeze_trainer.data.pairings import learned_before
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.libraries.captioner import CaptionerLibrary
from unfreeze_trainer.modalities.audio import Audio
from unfreeze_trainer.modalities.base import Modality
from unfreeze_trainer.modalities.described import Described
from unfreeze_trainer.modalities.image import Image
from unfreeze_trainer.models.captioner import IDS, MASK
from unfreeze_trainer.objectives.base import IGNORED, TARGETS
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.objectives.teacher_forcing import TeacherForcing
from unfreeze_trainer.tasks.base import Batch
from unfreeze_trainer.tasks.composed import VERIFIED_SAMPLES, ComposedTask


class Captioning(ComposedTask):
    """Opens the data and the model folders of a job."""

    wide_outputs = True
    library: CaptionerLibrary

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(CaptioningSpec)
        assert options is not None
        library = CaptionerLibrary(job, options)
        own, tower = job.of_tower(library.of_encoder), library.tower
        seen: Modality
        if tower.modality == "audio":
            seen = Audio(own, tower, options.max_seconds)  # type: ignore[arg-type]
        else:
            still = ImageClassificationSpec(image_size=options.image_size, augmentation="None")
            seen = Image(own, tower, still)  # type: ignore[arg-type]
        seen.where = tower.where
        self._described = Described(
            job, seen, tower.key, writer=library, options=options, targets=TARGETS, ignored=IGNORED
        )
        super().__init__(job, TeacherForcing, self._described, library)

    def read(self) -> tuple[Encoder[Any], dict[str, Split]]:
        """Return what there is to write, and the splits; an encoder of sound is made as short as the training clips are."""
        learned, splits = super().read()
        if isinstance(seen := self._described.seen, Audio):
            self.job = seen.shortened(self.job, self._described.split_of(splits["train"]))
        return learned, splits

    def units(self, split: str) -> np.ndarray:
        """Return how many tokens of each text are learned, int64 of shape (samples,)."""
        return self._described.units(self._splits[split])

    def answers_at(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the token that each place of the outputs is to give: targets stand where the logits do."""
        return inputs[TARGETS]

    @cached_property
    def overlaps(self) -> dict[str, int]:
        """Samples of a held-out split whose picture or clip stands in another one too; equal texts of other pictures are none."""
        return overlaps({name: self._described.split_of(split) for name, split in self._splits.items()})

    def _learned(self, name: str, learned: Split) -> dict[str, int]:
        return learned_before(self._splits, name, learned, [self.library.tower.modality])

    def _pin(self) -> dict[str, Any]:
        # Of pictures and clips alone: their files are pinned, too.
        seen = {name: self._described.split_of(split) for name, split in self._splits.items()}
        return self._pinned(None, self.library.hashes(), seen)

    def first_samples(self) -> tuple[Batch, Any]:
        """Return the first validation samples, what the encoder reads and the tokens of each by number, and as an export reads them."""
        split = self._splits["validation"]
        count = min(VERIFIED_SAMPLES, len(split))
        [found] = self.batches("validation", [range(count)])
        samples, batch = self._described.samples(split, count, found), Batch()
        for number, (_, ids) in enumerate(samples):
            for name, tensor in found.items():
                if name not in (IDS, MASK, TARGETS):
                    batch[f"{number} {name}"] = tensor[number : number + 1]
            batch[f"{number} {IDS}"], batch[f"{number} {MASK}"] = torch.tensor([ids]), torch.ones(1, len(ids)).long()
        return batch, samples

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the last token of each sample of `first_samples`, (samples, tokens of the vocabulary)."""
        numbers = dict.fromkeys(name.partition(" ")[0] for name in batch)
        found = []
        for number in numbers:
            own = {
                name.removeprefix(f"{number} "): tensor
                for name, tensor in batch.items()
                if name.startswith(f"{number} ")
            }
            found.append(self.library.forward(module, own)[0, -1].clone())
        return torch.stack(found)
