"""Text, and pairs of texts: tokenised when a split is first used."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.few import few
from unfreeze_trainer.data.samples import DataSource, Split, read_texts, target_kind
from unfreeze_trainer.data.tokens import (
    CHUNK_TEXTS,
    TextError,
    Tokens,
    TokensOnDemand,
    has_types,
    runs_together,
    trimmed,
)
from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.modalities.base import Modality, rows_of
from unfreeze_trainer.models.export import Example
from unfreeze_trainer.models.text import Limits, guessed_length, require_embedding, usable_length

log = logging.getLogger(__name__)

KEPT_BYTES = 64 << 20
"""Of texts whose tokens are all made at once and kept; of more they are made of each batch."""
_AHEAD = 2
"""Batches that are tokenised while the model works on another."""
_UNKNOWN = 0.1
"""Share of tokens that stand for what a tokenizer does not know, from which on it is said: a few are usual, as of emojis."""


class TextModel(Protocol):
    """What a library tells of a model that reads text."""

    config: dict[str, Any]
    tokenizer: Any

    @property
    def limits(self) -> Limits:
        """What the model takes."""

    @property
    def mark(self) -> int | None:
        """Token that its head looks for at the end of each text, which each has to hold as often; None where it looks for none."""


class Text(Modality):
    """Texts of a table's column, or pairs of texts of two.

    Parameters
    ----------
    job
        Its data, model and adapter count.
    model
        Asked once it is open.
    max_length
        Tokens kept of each text, of a pair of both together, special ones included; fewer where the model takes fewer.
    """

    def __init__(self, job: ResolvedJob, model: TextModel, max_length: int) -> None:
        super().__init__(job)
        self._pairs = job.data.train.columns.text_pair is not None
        self._model, self._wanted = model, max_length
        self._tokens: dict[DataSource, Tokens] = {}

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table.

        Raises
        ------
        JobError
            InvalidData: a text is missing or empty, unless such rows are skipped. InvalidJob: it has pairs, and the training
            data has none.
        """
        if dataset.columns.text_pair and not self._pairs:
            raise JobError(
                "InvalidJob",
                f"{where}: its columns.textPair names {dataset.columns.text_pair!r}, and spec.data.train.columns has no textPair:"
                " set it there too, or remove it here",
            )
        return read_texts(dataset, where, kind=target_kind(self.job), skip=self._skips)

    def open(self) -> None:
        """Find out how long texts may be."""
        self.tokenizer, self._limits = self._model.tokenizer, self._model.limits
        prompt = self.job.adapter.virtual_tokens if self.job.adapter else 0
        if self.job.semantics.positions == "Guessed":
            self.max_length = guessed_length(self._wanted, self.tokenizer, self._model.config, prompt=prompt)
        else:
            self.max_length = usable_length(self._wanted, self.tokenizer, self._limits, prompt=prompt)
            if (
                self._limits.from_start
            ):  # padding before a text would shift its positions by the length of its neighbours
                self.tokenizer.padding_side = "right"
        if self.max_length < self._wanted:
            log.warning(
                "%s takes %d tokens of a text: longer ones are cut there, not at %s.maxLength %d",
                self.where,
                self.max_length,
                self._options,
                self._wanted,
            )
        self._require_row(self.tokenizer.pad_token_id, "the padding token")
        if self._pairs:
            self._open_pairs()

    def _open_pairs(self) -> None:
        """Look how the tokenizer makes one sequence of two texts, and whether the model takes what it makes.

        Raises
        ------
        JobError
            InvalidJob: there is no room for a token of each text.
        """
        tokenizer, marks = self.tokenizer, int(self.tokenizer.num_special_tokens_to_add(pair=True))
        if self.max_length < marks + 2:
            raise JobError(
                "InvalidJob",
                f"{self._options}.maxLength: {self.max_length} tokens have no room for a pair of texts, of which each needs one"
                f" beside the {marks} special ones: raise it to {marks + 2} at least",
            )
        if has_types(tokenizer, pairs=True) and self._limits.segments < 2:  # noqa: PLR2004
            # So the plain library's tokenizer does not give them either, which the model would fail at.
            tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
            tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
        if not has_types(tokenizer, pairs=True) and runs_together(tokenizer):
            log.warning(
                "%s: its tokenizer puts nothing between the texts of a pair, so the model reads them as one: let each text of"
                " column %r begin with a word that tells where it begins",
                self.where,
                self.job.data.train.columns.text_pair,
            )

    def raw(self, source: DataSource, row: int) -> tuple[str, ...]:
        """Return the texts of a sample, one or two."""
        found = source.content(row)
        return tuple(found.values()) if isinstance(found, dict) else (found,)

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        return (
            f"Look whether {self.where} holds a classifier that transformers trains on texts of {self.max_length} tokens"
            f" ({self._options}.maxLength), or choose another model"
        )

    def lengths(self, split: Split) -> np.ndarray:
        """Return how many tokens each sample of a split has, int64 of shape (samples,)."""
        return self._tokenized(split.source).lengths[split.rows]

    def batches(
        self,
        split: Split,
        batches: Iterable[Sequence[int]],
        epoch_seed: int | None,  # noqa: ARG002 - texts are not varied
        unread: set[int],  # noqa: ARG002 - all have been read
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with input_ids, attention_mask and, where the model has them, token_type_ids."""
        tokens = self._tokenized(split.source)
        # Padding has the text of a sample, since a row without any token may give NaN.
        rows = ((indices, rows_of(split, indices) if len(indices) else split.rows[:1]) for indices in batches)
        if not isinstance(tokens, TokensOnDemand):
            yield from ((indices, tokens.collate(places)) for indices, places in rows)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="tokens") as pool:
            waiting: deque[tuple[Sequence[int], Future[dict[str, Tensor]]]] = deque()
            try:
                for indices, places in rows:
                    waiting.append((indices, pool.submit(self._collated, tokens, split.source, places)))
                    if len(waiting) > _AHEAD:
                        yield waiting[0][0], waiting.popleft()[1].result()
                while waiting:
                    yield waiting[0][0], waiting.popleft()[1].result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _collated(self, tokens: Tokens, source: DataSource, rows: np.ndarray) -> dict[str, Tensor]:
        try:
            return tokens.collate(rows)
        except TextError as error:
            raise self._failed(source, error) from error

    def _failed(self, source: DataSource, error: TextError) -> JobError:
        message = f"{self.name_of(source, error.row)}: the tokenizer fails at this text: {quoted(error)}. Correct or remove it"
        return JobError("InvalidData", message)

    def remembered(
        self, split: Split, batches: Iterable[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with its inputs, which all lie in memory."""
        return self.batches(split, batches, None, set())

    def _tokenized(self, source: DataSource) -> Tokens:
        if source not in self._tokens:
            try:
                tokens = self._tokenize(source)
            except TextError as error:
                raise self._failed(source, error) from error
            if not isinstance(tokens, TokensOnDemand):
                self._check(source, tokens, range(len(tokens.lengths)))
            self._tell_unknown(source, tokens)
            self._tokens[source] = tokens
        return self._tokens[source]

    def _tell_unknown(self, source: DataSource, tokens: Tokens) -> None:
        """Say how much of what the tokenizer makes of a source's texts is its token for what it does not know."""
        if isinstance(tokens, TokensOnDemand):
            tokens = Tokens(self.tokenizer, source.inputs.slice(0, CHUNK_TEXTS), self.max_length)
        share = tokens.unknown()
        if share < _UNKNOWN:
            return
        said = (
            f"of what the model's tokenizer makes of the texts {share:.0%} is {self.tokenizer.unk_token}: it does not know what is"
            " written there, as in a script that it has no letters of, and the model reads the same in each place. Choose a model that"
            " was made for such texts"
        )
        self.tell(source.where, said)

    def _tokenize(self, source: DataSource) -> Tokens:
        if source.inputs.nbytes > KEPT_BYTES:
            return TokensOnDemand(self.tokenizer, source.inputs, self.max_length, partial(self._check, source))
        return Tokens(self.tokenizer, source.inputs, self.max_length)

    def _check(self, source: DataSource, tokens: Tokens, rows: Sequence[int]) -> None:
        """Raise JobError where the model does not take the tokens of some texts, which are those of these rows of a source."""
        if self._limits.rows is not None and (found := tokens.first_beyond(self._limits.rows)):
            self._require_row(found[1], f"{self.name_of(source, rows[found[0]])}: a token")
        if not self._marks or (uneven := tokens.first_uneven(*self._marks)) is None:
            return
        mark = quoted(repr(self.tokenizer.convert_ids_to_tokens(self._marks[0])))
        raise JobError(
            "InvalidData",
            f"{self.name_of(source, rows[uneven])}: the text holds {mark}, by which the model finds the end of a text, and would find"
            " several: remove it, or write it otherwise",
        )

    @cached_property
    def _marks(self) -> tuple[int, int] | None:
        """The token that the model looks for, and how often the tokenizer writes it; None where there is none."""
        given = ("a", "b") if self._pairs else ("a",)
        mark = self._model.mark
        times = self.tokenizer(*given)["input_ids"].count(mark)
        return (mark, times) if mark is not None and times else None

    def _require_row(self, token: int, what: str) -> None:
        require_embedding(token, what, rows=self._limits.rows, tokenizer=self.tokenizer, where=self.where)

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many tokens that are not padding the rows have that count."""
        return int(inputs["attention_mask"][counted].sum())

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> list[str] | dict[str, list[str]]:  # noqa: ARG002 - its own tokenizer makes them
        """Return the texts of the first samples; of pairs both, as the tokenizer's arguments."""
        texts = few(split.source.inputs, split.rows[:count])
        if self._pairs:
            first, second = texts.flatten()
            return {"text": first.to_pylist(), "text_pair": second.to_pylist()}
        found: list[str] = texts.to_pylist()
        return found

    def as_samples(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a batch as long as its longest text: outputs of some models (FNet, CANINE) depend on the padding beside a text."""
        return trimmed(batch, batch["attention_mask"])

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        if self._pairs:
            value = '{"text": "some text", "text_pair": "another text"}'
            return Example(value, arguments='"some text", "another text"', batch="**inputs")
        return Example('"some text"')

    def save(self, folder: Path) -> None:
        """Write the tokenizer: who truncates with it cuts where the training did."""
        before, self.tokenizer.model_max_length = self.tokenizer.model_max_length, self.max_length
        try:
            self.tokenizer.save_pretrained(folder)
        finally:
            self.tokenizer.model_max_length = before
