"""What a decoder reads and learns: dialogues, prompts with completions, or texts, tokenised when they are read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_api.tasks.causal_lm import CausalLMSpec
from unfreeze_trainer.data.dialogue_tokens import TODAY, DialogueTokens, Renderer, padded_length
from unfreeze_trainer.data.dialogues import RowError, read_dialogues, without
from unfreeze_trainer.data.row_packing import ROW, packed
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.modalities.base import Modality, Question, rows_of
from unfreeze_trainer.models.export import Example
from unfreeze_trainer.models.text import Limits, require_embedding, usable_length, without_embedding

log = logging.getLogger(__name__)

_COMPARED_TOKENS = 64
"""Of a sample that an export is compared on: the logits of a whole one may take gigabytes."""


class Decoder(Protocol):
    """What a library tells of a model that goes on with texts."""

    tokenizer: Any

    @property
    def limits(self) -> Limits:
        """What the model takes."""

    @property
    def stops(self) -> list[int]:
        """Tokens at which the model ends what it says."""


@dataclass(frozen=True)
class Names:
    """What a batch calls its parts."""

    targets: str
    """Tokens that are learned."""
    ignored: int
    """What stands there for the others."""
    packed: str
    """Of packed samples the number of the one that each token is of, -1 of padding."""
    samples: str
    """Of packed samples their indices."""
    learned: str
    """Row and column of each token whose next one is learned, int64 of shape (places, 2)."""


class Dialogues(Modality):
    """Rows of a table as tokens, some of which are learned.

    Parameters
    ----------
    job
        Its data, model and adapter count.
    model
        Its tokenizer is there already.
    options
        Of the task.
    names
        What a batch calls its parts.
    """

    needs_model = True

    def __init__(self, job: ResolvedJob, model: Decoder, options: CausalLMSpec, names: Names) -> None:
        super().__init__(job)
        self._model, self._task, self._names = model, options, names
        self._tokens: dict[DataSource, DialogueTokens] = {}
        self.tokenizer = model.tokenizer
        prompt = job.adapter.virtual_tokens if job.adapter else 0
        self.max_length = usable_length(options.max_length, self.tokenizer, model.limits, prompt=prompt)
        self._most = max(self.max_length, min(ROW, model.limits.positions or ROW))
        if self.max_length < options.max_length:
            log.warning(
                "%s takes %d tokens of a sample: longer ones are cut there, not at %s.maxLength %d",
                self.where,
                self.max_length,
                self._options,
                options.max_length,
            )
        if options.annotation == "Messages" and not self.tokenizer.chat_template:
            raise JobError(
                "InvalidModel",
                f"{self.where}: its tokenizer has no chat template, which turns messages into text: choose a model with one"
                f" (chat_template.jinja), or set {self._options}.annotation to Completions or Text",
            )

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table and tokenise it; JobError InvalidData where nothing can be learned of a row, unless such rows are skipped."""
        task, skip = self._task, self._skips
        source = read_dialogues(dataset, where, annotation=task.annotation, kind=target_kind(self.job), skip=skip)
        everything, dialogues = task.loss_on == "AllTokens", task.annotation == "Messages"
        stops = ([] if everything else self._model.stops) if dialogues else None
        ends = self._model.stops if dialogues else ()
        renderer = Renderer(self.tokenizer, task.annotation, everything=everything, stops=ends)
        tokens = DialogueTokens(
            self.tokenizer, source.inputs, renderer, self.max_length, remedy=self._longer, stops=stops
        )
        source, kept = without(source, tokens.wrong, skip=skip)
        tokens.take(kept)
        for what in (*self._lost(tokens, renderer), *self._endless(tokens, stops or ())):
            self.tell(where, what)
        self._require_rows(source, tokens)
        self._tokens[source] = tokens
        return source

    @property
    def _longer(self) -> str:
        """What to do about samples that are too long."""
        if self.max_length < self._task.max_length:
            return f"shorten them, or choose a model that takes more; {self._options}.maxLength changes nothing"
        return f"raise {self._options}.maxLength, or shorten what comes before"

    def _lost(self, tokens: DialogueTokens, renderer: Renderer) -> Iterator[str]:
        """Yield what of a source is not learned as its rows say."""
        cut, beyond, ends = tokens.cut.sum(axis=0).tolist()
        if cut:
            whole = beyond + int(tokens.units.sum())
            yield (
                f"{cut} of {len(tokens.cut)} samples are cut: they are longer than {self.max_length} tokens. {beyond} of {whole} tokens"
                f" that are to be learned lie beyond, and {ends} samples lose the end of what is learned, so that they do not teach"
                f" the model to stop: {self._longer}"
            )
        if renderer.first:
            yield (
                f"{renderer.first} of {renderer.answers} answers begin their dialogue, and nothing asks for them: the model reads them and"
                " does not learn them. To have them learned put a message before each"
            )
        if renderer.rewritten:
            yield (
                f"the chat template writes {renderer.rewritten} of {renderer.answers} answers otherwise once others follow: the model"
                " reads them so and does not learn them. To have them learned give each a row of its own, with the messages before it"
            )
        if renderer.unasked:
            yield (
                f"{renderer.unasked} of {renderer.answers} answers begin otherwise than the chat template has the model begin when it is"
                f" asked ({renderer.begins!r}): what is learned is not what will be asked. Let answers begin with it where the template"
                " keeps it, or choose a model without it"
            )
        if renderer.dated:
            yield (
                f"the chat template writes the date: it is {TODAY:%Y-%m-%d} in all dialogues, so that each start of the run reads the same"
            )

    def _endless(self, tokens: DialogueTokens, stops: Sequence[int]) -> Iterator[str]:
        """Yield what is to be done where no answer ends as the model's do."""
        whole = bool((tokens.cut[:, 2] == 0).any())
        if stops and whole and not tokens.ends(stops):
            names = ", ".join(map(str, self.tokenizer.convert_ids_to_tokens(stops)))
            yield (
                f"the chat template ends no answer by a token at which the model stops ({names}): whoever has it generate, it goes on until"
                " the limit. Add the id of the one that ends an answer to eos_token_id in a generation_config.json beside the model, or"
                " choose a model that was trained on dialogues"
            )

    def _require_rows(self, source: DataSource, tokens: DialogueTokens) -> None:
        rows = self._model.limits.rows
        if rows is None:
            return
        padding = self.tokenizer.pad_token_id
        require_embedding(padding, "the padding token", rows=rows, tokenizer=self.tokenizer, where=self.where)
        if not (found := tokens.first_beyond(rows)):
            return
        what = f"{self.name_of(source, found[0])}: a token"
        raise without_embedding(found[1], what, rows=rows, tokenizer=self.tokenizer, where=self.where)

    def open(self) -> None:
        """Do nothing: the tokenizer was there before the data."""

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        return (
            f"Look whether {self.where} holds a decoder that transformers trains on texts of {self.max_length} tokens"
            f" ({self._options}.maxLength), or choose another model"
        )

    def lengths(self, split: Split) -> np.ndarray:
        """Return how many tokens each sample of a split has, int64 of shape (samples,)."""
        return self._tokens[split.source].lengths[split.rows]

    def units(self, split: Split) -> np.ndarray:
        """Return how many tokens of each sample are learned, int64 of shape (samples,)."""
        return self._tokens[split.source].units[split.rows]

    def batches(
        self,
        split: Split,
        batches: Iterable[Sequence[int]],
        epoch_seed: int | None,  # noqa: ARG002 - texts are not varied
        unread: set[int],  # noqa: ARG002 - all have been read
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with input_ids and targets, int64 of shape (rows, length), and what tells padding from them.

        That is attention_mask; of packed samples position_ids, which begin anew with each of them, and with padding.
        """
        tokens = self._tokens[split.source]
        for indices in batches:
            # Padding has the text of a sample, of which nothing is learned.
            rows = rows_of(split, indices) if len(indices) else split.rows[:1]
            samples = [tokens.of(int(row)) for row in rows]
            if not len(indices):
                samples = [(ids, np.zeros_like(learned)) for ids, learned in samples]
            found = self._packed(samples) if self._task.packing else self._padded(samples)
            if self._task.packing:
                found[self._names.samples] = np.array(list(indices) or [-1])
            found[self._names.learned] = _places(found[self._names.targets] != self._names.ignored)
            yield indices, {name: torch.from_numpy(values) for name, values in found.items()}

    def _padded(self, samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return a batch in which each sample is a row; padding stands at the end, where decoders need no positions for it."""
        shape = len(samples), padded_length([len(ids) for ids, _ in samples], self.max_length)
        inputs, targets = self._filled(shape)
        mask = np.zeros(shape, dtype=np.int64)
        for row, (ids, learned) in enumerate(samples):
            inputs[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
            targets[row, : len(ids)][learned] = ids[learned]
        return {"input_ids": inputs, "attention_mask": mask, self._names.targets: targets}

    def _packed(self, samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return a batch of rows as long as its longest sample or longer, in which several share a row."""
        rows, width = packed([len(ids) for ids, _ in samples], self._most)
        shape = len(rows), width
        inputs, targets = self._filled(shape)
        positions, owners = np.zeros(shape, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        for row, members in enumerate(rows):
            start = 0
            for number in members:
                ids, learned = samples[number]
                place = slice(start, start + len(ids))
                inputs[row, place], positions[row, place], owners[row, place] = ids, np.arange(len(ids)), number
                targets[row, place][learned] = ids[learned]
                start = place.stop
            positions[row, start:] = np.arange(width - start)
        names = self._names
        return {"input_ids": inputs, "position_ids": positions, names.targets: targets, names.packed: owners}

    def _filled(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and targets of nothing but padding."""
        padding, ignored = self.tokenizer.pad_token_id, self._names.ignored
        return np.full(shape, padding, dtype=np.int64), np.full(shape, ignored, dtype=np.int64)

    def remembered(
        self, split: Split, batches: Iterable[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with its inputs, which all lie in memory."""
        return self.batches(split, batches, None, set())

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many tokens that are not padding the rows have that count."""
        kept = inputs[self._names.packed] >= 0 if self._task.packing else inputs["attention_mask"]
        return int(kept[counted].sum())

    def asked(self, split: Split, index: int) -> Question | None:
        """Return what comes before the last answer of a sample, or its prompt, and what follows; None of texts."""
        row = int(split.rows[index])
        try:
            found = self._tokens[split.source].asked(split.source.inputs[row].as_py())
        except RowError:  # a dialogue that begins with its answer, of which all is learned
            found = [], ""
        if found is None:
            return None
        ids, right = found
        if not ids:
            nothing = {"input_ids": [self.tokenizer.pad_token_id], "attention_mask": [1]}
            return Question(nothing, right, 0, self._decode, 1, readable=False)
        positions = self._model.limits.positions
        prompt = self.job.adapter.virtual_tokens if self.job.adapter else 0
        room = None if positions is None else positions - prompt - len(ids)
        inputs = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        return Question(inputs, right, room, self._decode, len(ids), tokenizer=self.tokenizer)

    def _decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> list[list[int]]:  # noqa: ARG002
        """Return the token ids that the first samples begin with."""
        tokens = self._tokens[split.source]
        return [tokens.of(int(row))[0][:_COMPARED_TOKENS].tolist() for row in split.rows[:count]]

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        return Example('"some text"')

    def save(self, folder: Path) -> None:
        """Write the tokenizer, with its chat template."""
        self.tokenizer.save_pretrained(folder)


def _places(learned: np.ndarray) -> np.ndarray:
    """Return row and column of each token before one that is learned, int64 of shape (places, 2); the first token where none is.

    `learned` is bool of shape (rows, length). One place at least is there, so that every rank's output layer computes.
    """
    found = np.argwhere(learned[:, 1:])
    return found if len(found) else np.zeros((1, 2), dtype=np.int64)
