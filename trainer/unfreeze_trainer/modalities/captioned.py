"""Pictures with their captions, and the prompts by which classes are told in evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.pairings import PICTURE_AND_TEXT
from unfreeze_trainer.data.samples import DataSource, Split
from unfreeze_trainer.data.tokens import Tokens, TokensOnDemand
from unfreeze_trainer.modalities.aligned import Aligned
from unfreeze_trainer.modalities.image import Image, ImageModel
from unfreeze_trainer.modalities.sentences import Sentences
from unfreeze_trainer.modalities.text import TextModel
from unfreeze_trainer.models.export import Example

IDS, MASK = "text.input_ids", "text.attention_mask"
_UNCUT = 1 << 20
"""More tokens than any caption has."""


class DualModel(ImageModel, TextModel, Protocol):
    """What a library tells of a model that sees and reads."""

    sigmoid: bool
    """Whether it was trained by a sigmoid of each pair, and reads padding."""

    def save_processor(self, folder: Path) -> None:
        """Write what turns pictures and texts into tensors."""


class _Texts(Sentences):
    """Texts that are padded as the model was pretrained with them; how many are cut is counted."""

    def __init__(self, job: ResolvedJob, model: DualModel, max_length: int | None) -> None:
        super().__init__(job, model, max_length or model.limits.positions or 0, annotation="Labels")
        self._whole = model.sigmoid

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with input_ids and attention_mask; where padding is read too, all as long as texts may be."""
        for indices, inputs in super().batches(split, batches, epoch_seed, unread):
            yield indices, self.padded(inputs, self.max_length) if self._whole else inputs

    def padded(self, inputs: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
        """Return texts with padding behind them up to a length; those that are longer as they are."""
        fill = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0}
        return {
            name: torch.nn.functional.pad(tensor, (0, max(0, length - tensor.shape[1])), value=fill[name])
            for name, tensor in inputs.items()
            if name in fill
        }

    def collated(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return other texts than those of the data, as a batch has them."""
        import pyarrow as pa

        tokens = Tokens(self.tokenizer, pa.chunked_array([pa.array(texts, pa.string())]), self.max_length)
        return self.padded(tokens.collate(range(len(texts))), self.max_length if self._whole else 0)

    def cut(self, source: DataSource) -> tuple[int, int]:
        """Return how many of a source's texts are cut, and how many tokens the longest of them has."""
        import pyarrow as pa

        tokens = self._tokenized(source)
        if isinstance(tokens, TokensOnDemand):
            return 0, 0
        full = np.flatnonzero(tokens.lengths >= self.max_length)
        if not len(full):
            return 0, 0
        whole = Tokens(self.tokenizer, source.inputs.take(pa.array(full)), _UNCUT).lengths
        return int((whole > self.max_length).sum()), int(whole.max())


class Captioned(Aligned):
    """Rows of a picture and a text.

    Parameters
    ----------
    job
        Its data counts.
    library
        Asked once it is open.
    max_length
        Tokens kept of each text; None for as many as the model takes.
    """

    def __init__(self, job: ResolvedJob, library: DualModel, max_length: int | None) -> None:
        still = ImageClassificationSpec(augmentation="None")
        self._texts, self._library = _Texts(job, library, max_length), library
        parts = {"image": Image(job, library, still), "text": self._texts}
        super().__init__(job, parts, dict(zip(PICTURE_AND_TEXT, PICTURE_AND_TEXT, strict=True)))

    def open(self) -> None:
        """Find out how pictures are seen, and how long texts may be; the tokenizer puts padding behind them."""
        super().open()
        tokenizer = self._texts.tokenizer
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "right"  # which the export's says, too

    def beside(self, inputs: Mapping[str, Tensor], texts: Sequence[str]) -> dict[str, Tensor]:
        """Return a batch's inputs with more texts behind those of its samples."""
        more = self._texts.collated(texts)
        own = {"input_ids": inputs[IDS], "attention_mask": inputs[MASK]}
        length = max(more["input_ids"].shape[1], own["input_ids"].shape[1])
        both = [self._texts.padded(each, length) for each in (own, more)]
        return dict(inputs) | {f"text.{name}": torch.cat([each[name] for each in both]) for name in own}

    def collated(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return texts alone, as a batch has them."""
        return {f"text.{name}": tensor for name, tensor in self._texts.collated(texts).items()}

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many tokens that are no padding the rows have that count, without prompts."""
        return int(inputs[MASK][: len(counted)][counted].sum())

    def look(self, splits: Mapping[str, Split]) -> None:
        """Say what the model does not see, and what is no negative, with numbers. JobError where a text has no tokens."""
        column = self.job.data.train.columns.text
        for source in dict.fromkeys(split.source for split in splits.values()):
            texts, _ = self._part(source, "text")
            count, longest = self._texts.cut(texts)
            if count:
                self.warnings.append(
                    f"{source.where}: {count:,} of {len(texts.inputs):,} texts in column {column!r} have more than the"
                    f" {self._texts.max_length} tokens that are read of each, the longest {longest}: they are cut there"
                )
        for what, place in (("a picture", 0), ("a text", 1)):
            cells = splits["train"].targets.values[:, place]
            _, which, counts = np.unique(cells, return_inverse=True, return_counts=True)
            if repeated := int((counts[which] > 1).sum()):
                self.warnings.append(
                    f"{repeated:,} of {len(cells):,} training rows share {what} with another row: such rows are no negatives for"
                    " each other. Texts that say the same in other words cannot be told, and are"
                )

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        picture = self.parts["image"].example.value
        return Example(f'text=["some text", "another text"], images=[{picture}]')

    def save(self, folder: Path) -> None:
        """Write the processor: who truncates with it cuts where the training did."""
        tokenizer = self._texts.tokenizer
        before, tokenizer.model_max_length = tokenizer.model_max_length, self._texts.max_length
        try:
            self._library.save_processor(folder)
        finally:
            tokenizer.model_max_length = before
