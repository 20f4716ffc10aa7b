"""Pictures or clips with what is said of them: the one as its own modality reads it, the other tokenised when it is read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_api.tasks.captioning import CaptioningSpec
from unfreeze_trainer.data.caption_tokens import CaptionTokens, prompt_column, prompt_ids
from unfreeze_trainer.data.dialogue_tokens import padded_length
from unfreeze_trainer.data.dialogues import without
from unfreeze_trainer.data.pairings import part_of, read_pairings
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.modalities.audio import Audio
from unfreeze_trainer.modalities.base import Modality, Question, rows_of
from unfreeze_trainer.models.captioner import IDS, MASK
from unfreeze_trainer.models.export import Example
from unfreeze_trainer.models.text import Limits, without_embedding

log = logging.getLogger(__name__)

_COMPARED_TOKENS = 64
"""Of a text that an export is compared on."""


class Writer(Protocol):
    """What a library tells of a model that writes of what it sees or hears."""

    language: Any
    end: int

    @property
    def lead(self) -> list[int]:
        """Tokens that stand before everything."""

    @property
    def most_prefix(self) -> int:
        """Embeddings that stand before a text, at most."""


class Described(Modality):
    """Rows of a picture or clip, and a text of it.

    Parameters
    ----------
    job
        Its data counts.
    seen
        What reads the pictures or clips.
    key
        The column's field, and what names of the encoder's inputs begin with: image or audio.
    writer
        Its tokenizer is there already.
    options
        Of the task.
    targets, ignored
        What a batch calls the tokens that are learned, and what stands where none is.
    """

    needs_model = True

    def __init__(
        self,
        job: ResolvedJob,
        seen: Modality,
        key: str,
        *,
        writer: Writer,
        options: CaptioningSpec,
        targets: str,
        ignored: int,
    ) -> None:
        super().__init__(job)
        self.seen, self._key, self._writer, self._given = seen, key, writer, options
        seen.warnings = self.warnings
        self._targets, self._ignored = targets, ignored
        self.tokenizer = writer.language.tokenizer
        self._tokens: dict[DataSource, CaptionTokens] = {}
        self._parts: dict[DataSource, DataSource] = {}
        self._texts: dict[DataSource, Any] = {}
        self.max_length = self._usable(options.max_length)
        """Tokens kept of prompt and text."""

    def _usable(self, wanted: int) -> int:
        limits: Limits = self._writer.language.limits
        if limits.positions is None:
            return wanted
        before = len(self._writer.lead) + self._writer.most_prefix
        room = limits.positions - before
        if room < 2:  # noqa: PLR2004 - a token, and the one that ends the text
            raise JobError(
                "InvalidJob",
                f"{self._options}.prefixLength: {before} embeddings before the text leave no room for it in the {limits.positions} positions"
                f" of {self._writer.language.where}: lower it",
            )
        if room < wanted:
            log.warning(
                "%s has %d positions, of which %d stand before the text: prompts and texts are cut at %d tokens, not at %s.maxLength %d",
                self._writer.language.where,
                limits.positions,
                before,
                room,
                self._options,
                wanted,
            )
        return min(room, wanted)

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table and tokenise its texts; JobError InvalidData where nothing of one is left, unless such rows are skipped."""
        kind, columns = target_kind(self.job), dataset.columns
        source = read_pairings(dataset, where, modalities=[self._key, "text"], kind=kind, skip=self._skips)
        _ = kind.read(source.targets, ", ".join(kind.columns(columns)), where)
        texts = part_of(source, "text").inputs
        tokens = CaptionTokens(
            self.tokenizer,
            self._prompts_of(source),
            texts,
            self.max_length,
            end=self._writer.end,
            remedy=self._remedy,
        )
        asks = (
            f", column {columns.prompt!r}: it" if self._given.annotation == "Answers" else f": {self._options}.prompt"
        )
        blamed = {True: asks, False: f", column {columns.text!r}: it"}
        said = [(row, f"{blamed[prompt]} {why}") for row, prompt, why in tokens.wrong]
        source, kept = without(source, said, skip=self._skips)
        tokens.take(kept)
        if (rows := self._writer.language.limits.rows) and (found := tokens.first_beyond(rows)):
            what = f"{where}: row {source.number(found[0])}: a token"
            options = {"rows": rows, "tokenizer": self.tokenizer, "where": self._writer.language.where}
            raise without_embedding(found[1], what, **options)
        self._tell_of(where, tokens)
        self._tokens[source], self._texts[source] = tokens, part_of(source, "text").inputs
        return source

    def _tell_of(self, where: str, tokens: CaptionTokens) -> None:
        """Say what of a source's texts is not learned, or learned and never written."""
        if tokens.ended:
            name = self.tokenizer.convert_ids_to_tokens(self._writer.end)
            self.tell(
                where,
                f"{tokens.ended} of {len(tokens.beyond)} texts hold {name}, which ends a text and is put behind each: what follows the first"
                " is learned and never written. Remove it from them",
            )
        if cut := int((tokens.beyond > 0).sum()):
            lost, learned = int(tokens.beyond.sum()), int(tokens.learned.sum())
            message = (
                f"{cut} of {len(tokens.beyond)} texts are cut: with their prompts they are longer than {self.max_length} tokens. {lost} of"
                f" {lost + learned} tokens that are to be learned lie beyond, and these texts do not teach the model to stop: {self._remedy}"
            )
            self.tell(where, message)

    @property
    def _remedy(self) -> str:
        if self.max_length < self._given.max_length:
            return f"shorten them, lower {self._options}.prefixLength, or name a language model that takes more"
        return f"raise {self._options}.maxLength, or shorten them"

    def _prompts_of(self, source: DataSource) -> Any:
        """Return what stands before each text of a source: a column of texts, one for all, or None."""
        if self._given.annotation != "Answers":
            return self._given.prompt
        return prompt_column(source)

    def open(self) -> None:
        """Prepare what reads the pictures or clips."""
        self.seen.open()

    def check(self, splits: Mapping[str, Split], rank: int, world_size: int) -> None:
        """Read this rank's share of the files, for some seconds at most."""
        self.seen.check({name: self.split_of(split) for name, split in splits.items()}, rank, world_size)

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        return (
            f"{self.seen.remedy.rstrip('.')}. Or look whether {self._writer.language.where} holds a decoder that transformers runs on"
            " embeddings (inputs_embeds)"
        )

    def split_of(self, split: Split) -> Split:
        """Return a split with its pictures or clips alone."""
        import pyarrow as pa

        source = split.source
        if source not in self._parts:
            kind = source.inputs.type
            both = pa.types.is_struct(kind) and kind.get_field_index("text") >= 0
            self._parts[source] = part_of(source, self._key) if both else source
        return replace(split, source=self._parts[source])

    def heard_in_part(self, split: Split) -> str:
        """Return how many clips are longer than what the encoder hears, for people; empty where none is."""
        return self.seen.heard_in_part(self.split_of(split))

    def lengths(self, split: Split) -> np.ndarray:
        """Return how many tokens prompt and text of each sample have, int64 of shape (samples,)."""
        if split.source not in self._tokens:
            return super().lengths(split)
        return self._tokens[split.source].lengths[split.rows]

    @property
    def made_to_hear(self) -> int | None:  # type: ignore[override]
        """Seconds of each clip that the encoder was made to hear."""
        return self.seen.made_to_hear

    def extents(self, split: Split) -> np.ndarray:
        """Return the place of each sample in the order of texts or of clips, whichever is higher; int64 of shape (samples,).

        The longest text and the longest clip are both among the first, of encoders that hear clips as long as they are.
        """
        texts, clips = self.lengths(split), self.seen.lengths(self.split_of(split))
        return np.maximum(*(each.argsort(kind="stable").argsort() for each in (texts, clips))) if clips.any() else texts

    def units(self, split: Split) -> np.ndarray:
        """Return how many tokens of each text are learned, int64 of shape (samples,)."""
        return self._tokens[split.source].learned[split.rows]

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with the encoder's inputs, named like image.images, and input_ids, attention_mask and targets.

        The latter are int64 of shape (samples, length of the longest, up to the next multiple of 8).
        """
        for indices, seen in self.seen.batches(self.split_of(split), batches, epoch_seed, unread):
            yield indices, self._named(seen) | self._written(split, indices, unread)

    def _named(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{self._key}.{name}": tensor for name, tensor in seen.items()}

    def remembered(
        self, split: Split, batches: Iterable[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with what lies in memory: all but pictures and clips."""
        yield from ((indices, self._written(split, indices, set())) for indices in batches)

    def _written(self, split: Split, indices: Sequence[int], unread: set[int]) -> dict[str, Tensor]:
        """Return what is read of some samples' prompts and texts, and what is learned of them."""
        tokens = self._tokens[split.source]
        # Padding has the text of a sample, of which nothing is learned.
        rows = [tokens.of(int(row)) for row in (rows_of(split, indices) if len(indices) else split.rows[:1])]
        shape = len(rows), padded_length([len(ids) for ids, _ in rows], self.max_length)
        read = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        learned = np.full(shape, self._ignored, dtype=np.int64)
        for place, (ids, count) in enumerate(rows):
            read[place, : len(ids)] = ids
            mask[place, : len(ids)] = 1
            if len(indices) and indices[place] not in unread:
                learned[place, len(ids) - count : len(ids)] = ids[len(ids) - count :]
        found = {IDS: read, MASK: mask, self._targets: learned}
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many tokens of prompts and texts the rows have that count."""
        return int(inputs[MASK][counted].sum())

    def asked(self, split: Split, index: int) -> Question:
        """Return a sample's picture or clip with its prompt, and its text where there is one."""
        unread: set[int] = set()
        [(_, seen)] = self.seen.batches(self.split_of(split), [[index]], None, unread)
        row, source = int(split.rows[index]), split.source
        if tokens := self._tokens.get(source):
            ids, count = tokens.of(row)
            asks, right = ids[: len(ids) - count].tolist(), self._texts[source][row].as_py()
        else:
            prompts, right = self._prompts_of(source), ""
            prompt = prompts if prompts is None or isinstance(prompts, str) else prompts[row].as_py()
            asks = prompt_ids(self.tokenizer, prompt) if prompt else []
        inputs = {name: tensor[0] for name, tensor in self._named(seen).items()}
        inputs |= {IDS: torch.tensor(asks, dtype=torch.int64), MASK: torch.ones(len(asks), dtype=torch.int64)}
        positions = self._writer.language.limits.positions
        before = len(self._writer.lead) + self._writer.most_prefix + len(asks)
        room = None if positions is None else positions - before
        return Question(inputs, right, room, self._decode, readable=index not in unread, tokenizer=self.tokenizer)

    def _decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip()

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> list[tuple[Tensor, list[int]]]:
        """Return the first samples: pictures as uint8 of shape (height, width, channels) or clips of (values,), each with ids of tokens."""
        own, tokens = self.split_of(split), self._tokens[split.source]
        if isinstance(self.seen, Audio):
            shown = self.seen.samples(own, count, inputs)
        else:
            pictures = (self.seen.raw(own.source, int(row)) for row in split.rows[:count])
            shown = [torch.from_numpy(np.atleast_3d(np.array(one))) for one in pictures]
        texts = [tokens.of(int(row))[0][:_COMPARED_TOKENS].tolist() for row in split.rows[:count]]
        return list(zip(shown, texts, strict=True))

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        if isinstance(self.seen, Audio):
            return self.seen.example
        return Example('Image.open("picture.png")', "from PIL import Image")

    def save(self, folder: Path) -> None:
        """Write what turns pictures or clips into tensors, beside their encoder."""
        self.seen.save(folder / self._key)
