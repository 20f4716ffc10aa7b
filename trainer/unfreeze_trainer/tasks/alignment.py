"""Alignment: a table of what belongs together across modalities, an encoder of each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.alignment import AlignmentSpec
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.pairings import learned_before, overlaps
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.libraries.bridge import BridgeLibrary, unit
from unfreeze_trainer.libraries.towers import AudioTower, Tower
from unfreeze_trainer.modalities.aligned import Aligned
from unfreeze_trainer.modalities.audio import Audio
from unfreeze_trainer.modalities.base import Modality
from unfreeze_trainer.modalities.image import Image
from unfreeze_trainer.modalities.sentences import Sentences
from unfreeze_trainer.models.bridge import PRESENT, Encoders
from unfreeze_trainer.objectives.agreement import Agreement
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.tasks.composed import ComposedTask


class Alignment(ComposedTask):
    """Opens the data and the model folders of a job."""

    joins = True
    library: BridgeLibrary

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(AlignmentSpec)
        assert options is not None
        library = BridgeLibrary(job, options)
        parts = {tower.key: _modality(job, index, tower, options) for index, tower in enumerate(library.towers)}
        for tower in library.towers:
            parts[tower.key].where = tower.where
        modalities = {tower.key: tower.modality for tower in library.towers}
        self._towers = {tower.key: tower for tower in library.towers}

        def objective(learned: Any) -> Agreement:
            return Agreement(learned, [*dict.fromkeys(modalities.values())], options.width)

        self._aligned = Aligned(job, parts, modalities)
        super().__init__(job, objective, self._aligned, library)
        self._require_others()

    def read(self) -> tuple[Encoder[Any], dict[str, Split]]:
        """Return what there is to predict, and the splits; encoders of sound are made as short as clips are, as AudioClassification does."""
        learned, splits = super().read()
        for name, part in self._aligned.parts.items():
            tower = self._towers[name]
            if isinstance(part, Audio) and isinstance(tower, AudioTower) and tower.pads_all:
                longest = part.longest(self._aligned.split_of(splits["train"], name))
                if seconds := tower.shortened(longest):
                    part.keep(seconds)
        return learned, splits

    @cached_property
    def overlaps(self) -> dict[str, int]:
        """Samples of a held-out split that have a picture or text of another one, like {"test in train": 12}."""
        return overlaps(self._splits)

    def _learned(self, name: str, learned: Split) -> dict[str, int]:
        return learned_before(self._splits, name, learned)

    def of_towers(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what each encoder makes of inputs, below its head. Parameters as of Task."""
        encoders = next(part for part in module.modules() if isinstance(part, Encoders))
        found: list[tuple[Tensor, ...]] = []
        handle = encoders.register_forward_hook(lambda _module, _inputs, outputs: found.append(outputs))
        try:
            self.forward(module, inputs)
        finally:
            handle.remove()
        return dict(zip(self._towers, found[-1], strict=True))

    def _pin(self) -> dict[str, Any]:
        return self._pinned(None, self.library.hashes(), self._splits)

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of a batch's samples, each as long as 1, (samples, modalities, width); of what stands in an absent one's
        place too.
        """
        return unit(
            self.forward(module, {name: part for name, part in batch.items() if not name.endswith(f".{PRESENT}")})
        )


def _modality(job: ResolvedJob, index: int, tower: Any, options: AlignmentSpec) -> Modality:
    """Return what reads the column of a tower."""
    own = job.of_tower(index)
    assert isinstance(tower, Tower)
    if tower.modality == "text":
        return Sentences(own, tower, options.max_length, annotation="Labels")  # type: ignore[arg-type]
    if tower.modality == "audio":
        return Audio(own, tower, options.max_seconds)  # type: ignore[arg-type]
    still = ImageClassificationSpec(image_size=options.image_size, augmentation="None")
    return Image(own, tower, still)  # type: ignore[arg-type]
