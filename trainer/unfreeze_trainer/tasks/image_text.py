"""Image and text: a table of pictures with their captions, a model of transformers that sees and reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.image_text import PROMPT, ImageTextSpec
from unfreeze_trainer.data.pairings import learned_before, overlaps
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.dual_encoder import DualEncoder
from unfreeze_trainer.modalities.captioned import Captioned
from unfreeze_trainer.objectives.answers import OneOf
from unfreeze_trainer.objectives.base import SAMPLES
from unfreeze_trainer.objectives.captions import CaptionContrast, brought, chance_of, prompts_of
from unfreeze_trainer.tasks.base import Batch
from unfreeze_trainer.tasks.composed import ComposedTask

_BEST = (1, 5, 10)
_AT_ONCE = 64
"""Prompts that are read at a time."""


class ImageText(ComposedTask):
    """Opens the data and the model folder of a job."""

    joins = heads_of_base = True
    library: DualEncoder
    modality: Captioned

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(ImageTextSpec)
        assert options is not None
        library = DualEncoder(job, frozen=options.image_tower == "Frozen")
        templates = options.prompts or [PROMPT]

        def objective(learned: Any) -> CaptionContrast:
            self.told, self._templates = tuple(learned.classes), len(templates)
            self._prompts = prompts_of(learned.classes, templates)
            return CaptionContrast(learned, sigmoid=library.sigmoid, width=library.width, prompts=len(templates))

        super().__init__(job, objective, Captioned(job, library, options.max_length), library)
        kind = self._splits["train"].source.inputs.type
        self._tells = "text" not in {kind.field(place).name for place in range(kind.num_fields)}
        """Whether the data are pictures alone, of which a finished model is to tell the classes."""
        self._classes: Tensor | None = None
        if self._tells:
            self.answers = OneOf(self.told)
            return
        self._require_others()
        self._require_metric_of_test()
        self.modality.look(self._splits)
        self.modality.warnings.extend(self._chances())

    def _require_metric_of_test(self) -> None:
        """Raise JobError where what the test data are measured by has no value: there would be nothing to report."""
        test = self._splits.get("test")
        if test and (why := self.metrics.undefined(test.targets).get(self.job.metric.name)):
            raise JobError("InvalidData", f"spec.data.test: {self.job.metric.name} has no value for it: {why}")

    def _chances(self) -> Iterator[str]:
        """Yield what guessing reaches on each split that is measured on."""
        for name, split in self._splits.items():
            if name == "train":
                continue
            cells = split.targets.values[:, :2]
            ways = {"image to text": cells, "text to image": cells[:, ::-1]}
            told = "; ".join(
                f"{way} {', '.join(f'{chance_of(pairs, best):.3g}' for best in _BEST)}" for way, pairs in ways.items()
            )
            count = len(self.told)
            more = f"; zero-shot accuracy of {count} classes {1 / count:.3g}" if count else ""
            yield f"{name}, by guessing: recall at {', '.join(map(str, _BEST))} {told}{more}"

    def batches(
        self, split: str, batches: Iterable[Sequence[int]], *, epoch_seed: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batch of each list of sample indices, on the CPU; where it is measured, prompts stand behind the texts.

        Each sample brings as many along as it takes until all samples together bring them all.
        """
        if self._tells:
            yield from self._pictures(split, batches)
            return
        for batch in super().batches(split, batches, epoch_seed=epoch_seed):
            yield self._prompted(split, batch)

    def remembered(self, split: str, batches: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], Batch]]:
        """Yield each list of sample indices with its batch as `batches` does, without pictures."""
        for indices, batch in super().remembered(split, batches):
            yield indices, self._prompted(split, batch)

    def _prompted(self, split: str, batch: Batch) -> Batch:
        """Return a batch with the prompts behind its texts that its samples bring along; in training there are none."""
        if split == "train" or not self._prompts:
            return batch
        each = -(-len(self._prompts) // self.splits[split])
        which = brought(batch[SAMPLES].tolist(), each, len(self._prompts))
        return self.modality.beside(batch, [self._prompts[number] for number in which])

    def _pictures(self, split: str, batches: Iterable[Sequence[int]]) -> Iterator[Batch]:
        part, unread = self._splits[split], self.unread[split]
        for indices, inputs in self.modality.parts["image"].batches(part, batches, None, unread):
            yield {"image.images": inputs["images"]} | self.objective.collate(part.targets, indices, unread)

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of each sample's picture and texts, or where there are no texts the logits of the classes."""
        if not self._tells:
            return super().forward(module, batch)
        if self._classes is None:
            each = [
                self.modality.collated(self._prompts[n : n + _AT_ONCE]) for n in range(0, len(self._prompts), _AT_ONCE)
            ]
            place = batch["image.images"].device
            texts = [{name: tensor.to(place) for name, tensor in some.items()} for some in each]
            vectors = functional.normalize(torch.cat([self.library.of_texts(module, some) for some in texts]), dim=-1)
            means = vectors.view(len(self.told), self._templates, -1).mean(dim=1)
            self._classes = functional.normalize(means, dim=-1)
        pictures = functional.normalize(self.library.of_pictures(module, batch), dim=-1)
        return self.library.scale(module) * pictures @ self._classes.T

    @cached_property
    def overlaps(self) -> dict[str, int]:
        """Samples of a held-out split that have a picture or text of another one, like {"test in train": 12}."""
        return overlaps(self._splits)

    def _learned(self, name: str, learned: Split) -> dict[str, int]:
        return learned_before(self._splits, name, learned)

    def of_towers(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the vectors of pictures and of texts that are compared, whose heads are the base's own. Parameters as of Task."""
        outputs = self.library.forward(module, inputs)[..., : self.library.width]
        return {"image": outputs[:, 0], "text": outputs[:, 1]}

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of a batch's pictures and of its texts, each as long as 1, and each picture's logits for all texts."""
        outputs = self.forward(module, batch)[:, :2]
        vectors = functional.normalize(outputs[..., : self.library.width], dim=-1).flatten(1)
        return torch.cat([vectors, outputs[:, 0] @ outputs[:, 1].T], dim=1)
