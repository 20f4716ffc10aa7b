"""Tokenised dialogues, completions and texts, with which of their tokens are learned.

What is learned of a dialogue is found by prefixes: the chat template turns what comes before an answer into text, with the beginning
of the answer that it puts there when the model is asked, and then the same with the answer. What is there beside is the answer. So no
template has to say which tokens are the model's; those that do not say it give a mask of zeros without an error.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_trainer.data.dialogues import ANSWERING, WEIGHT, RowError, shown
from unfreeze_trainer.data.tokens import PAD_MULTIPLE
from unfreeze_trainer.errors import one_line, quoted

if TYPE_CHECKING:
    import pyarrow as pa

TODAY = datetime(2025, 1, 1, tzinfo=UTC)
"""What templates take for now, so that each start reads what the first one read."""
_CODES = ("%-d", "%-m", *(f"%{code}" for code in "aAbBcdDeFHIjmMpRSTuwxXyY"))
_STILL = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f".replace({code!r}, {TODAY.strftime(code)!r})" for code in _CODES)
    + " }}{% endmacro +%}"
)
"""Before a template, in place of the function of this name: transformers turns what a template is given into plain data."""
_CHUNK_ROWS = 1024
_PROBE = "Xq7vK2"
"""An answer that nobody gives."""
Piece = tuple[str, bool]
"""A part of a sample's text, and whether it is learned."""


class Renderer:
    """Turns rows into texts, and counts what of the answers in them is worth a word.

    Parameters
    ----------
    tokenizer
        Its chat template counts where rows are dialogues.
    annotation
        What a row is, in the API's word.
    everything
        Whether what comes before completions is learned too.
    stops
        Tokens at which an answer ends.
    """

    def __init__(self, tokenizer: Any, annotation: str, *, everything: bool, stops: Sequence[int] = ()) -> None:
        self._tokenizer, self._annotation, self._everything = tokenizer, annotation, everything
        special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        ends = [tokenizer.decode([token]) for token in stops]
        every = dict.fromkeys([*tokenizer.all_special_tokens, *special, *ends])
        self._special = [token for token in every if token.strip()]
        self._ends = [token for token in ends if token.strip()]
        self.answers = 0
        """Of dialogues that something is learned of."""
        self.first = 0
        """Of these answers, how many nothing comes before: nobody asks for them, and they are not learned."""
        self.rewritten = 0
        """Of these answers, how many are not learned, since the template writes them otherwise once others follow."""
        self.unasked = 0
        """Of these answers, how many begin otherwise than the template has the model begin when it is asked."""
        self.begins = ""
        """What it has the model begin with in the last of these."""
        template = ""
        if annotation == "Messages":
            with suppress(ValueError):  # it has several, and none by default: each row will say so
                template = tokenizer.get_chat_template()
        self.dated = "strftime_now" in template
        """Whether the template looks at the date."""
        self._template = _STILL + template if self.dated else None

    def asked(self, row: Any) -> tuple[str, str] | None:
        """Return the text that a model is asked with of a row, and what it should say; None where a row asks nothing."""
        if self._annotation == "Text":
            return None
        if self._annotation == "Completions":
            prompt, completion = row
            return prompt, completion.rstrip().removesuffix(self._tokenizer.eos_token or "")
        messages, unweighed = _weighed(row)
        last = max(number for number in _answers(messages) if number not in unweighed)
        asked, answered = self._render(messages[:last], asks=True), self._render(messages[: last + 1])
        return asked, self._answered(asked, answered, messages[last]["content"])

    def _answered(self, asked: str, answered: str, content: str) -> str:
        """Return an answer as the template writes it after what is asked, and as it is learned: with an empty thought, or without its beginning."""
        if not answered.startswith(asked):
            return content
        written = answered[len(asked) :]
        for token in self._ends:
            written = written.partition(token)[0]
        for token in self._special:
            written = written.replace(token, "")
        return written

    def pieces(self, row: Any) -> list[Piece]:
        """Return a row's text in pieces. RowError: nothing can be learned of it."""
        if self._annotation == "Text":
            return [(row, True)]
        if self._annotation == "Completions":
            prompt, completion = row
            return [(prompt, self._everything), (completion, True)]
        return self._dialogue(*_weighed(row))

    def _dialogue(self, messages: list[dict[str, str]], unweighed: Collection[int]) -> list[Piece]:
        whole = self._written(messages)
        if self._everything:
            if unweighed:
                said = f": message {min(unweighed) + 1} has the weight 0, and all tokens are to be learned (lossOn)"
                raise RowError(f"{said}: choose Completions, or remove the weight")
            return [(whole, True)]
        edges = [0]
        answers = [number for number in _answers(messages) if number not in unweighed]
        asked = [number for number in answers if number]
        for number in asked:
            begin, end = self._answer(messages, number, whole)
            edges += [begin, end] if edges[-1] <= begin < end else []
        if len(edges) == 1:
            raise _untold(answers[-1] + 1, len(messages))
        self.answers += len(answers)
        self.first += len(answers) - len(asked)
        self.rewritten += len(asked) - len(edges) // 2
        return [(whole[low:high], bool(place % 2)) for place, (low, high) in enumerate(pairwise([*edges, len(whole)]))]

    def _written(self, messages: list[dict[str, str]]) -> str:
        """Return a dialogue as the template writes it. RowError: it holds a special token, or a message is left out."""
        for number, message in enumerate(messages, 1):
            for token in self._special:
                if token in message["content"]:
                    raise RowError(
                        f": message {number} holds {quoted(repr(token))}, a special token of the tokenizer, which the chat template"
                        " puts where it belongs: remove it"
                    )
        whole = self._render(messages)
        bare = _bare(whole)
        answers = _answers(messages)
        for number, message in enumerate(messages):
            quoted_once = json.dumps(message["content"], ensure_ascii=False)[1:-1]  # as Llama 3.1 writes what tools say
            if number not in answers[:-1] and all(_bare(one) not in bare for one in (message["content"], quoted_once)):
                what, remedy = "", "give it another role, or remove it"
                if number in answers:
                    what, remedy = ", or a part of it", "leave out what the template does not write, like <think>"
                raise RowError(
                    f": the chat template leaves out message {number + 1}, of role {message['role']}{what}:"
                    f" {shown(message['content'])}; {remedy}"
                )
        return whole

    def _answer(self, messages: list[dict[str, str]], number: int, whole: str) -> tuple[int, int]:
        """Return where an answer begins in a dialogue's text, and where what ends it is over; twice the same if it does not stand there."""
        try:
            asked = self._render(messages[:number], asks=True)
        except RowError as error:
            what = (
                f"what comes before message {number + 1}, of role {ANSWERING}, is none that a model could be asked with"
            )
            raise RowError(f": {what}{error}") from error
        answered = whole if number + 1 == len(messages) else self._render(messages[: number + 1])
        begin, content = _shared(asked, answered), _bare(messages[number]["content"])
        # Some templates put an end of text at the end of a whole dialogue, wherever it ends.
        ends = (answered, answered.removesuffix(self._tokenizer.eos_token or ""))
        end = next((len(text) for text in ends if whole.startswith(text)), 0)
        if not end:
            return 0, 0
        if begin == len(asked) and content in _bare(whole[begin:end]):
            return begin, end
        least = _shared(self._render(messages[:number]), asked)
        if begin < least or content not in _bare(whole[least:end]):
            return 0, 0
        if begin < len(asked):
            begin = max(least, min(begin, self._content_begins(messages[:number], answered)))
            self.unasked += 1
            self.begins = asked[begin:]
        return begin, end

    def _content_begins(self, before: list[dict[str, str]], answered: str) -> int:
        """Return where the content of an answer can begin at the earliest, by that of another one in its place."""
        probe = self._render([*before, {"role": ANSWERING, "content": _PROBE}])
        start = probe.rfind(_PROBE)
        return start if start >= 0 and answered.startswith(probe[:start]) else len(answered)

    def _render(self, messages: list[dict[str, str]], *, asks: bool = False) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=asks, chat_template=self._template
            )
        except Exception as error:  # each template has its own
            raise RowError(f": the chat template refuses it: {quoted(one_line(error))}") from error
        return text


class DialogueTokens:
    """Token ids of many samples, int32, one after the other, and which of them are learned.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer.
    rows
        Inputs of `read_dialogues`.
    renderer
        Turns them into texts.
    max_length
        Tokens kept of each sample.
    remedy
        What to do about a sample that is too long.
    stops
        Tokens at which an answer ends; what a template puts after them is not learned, since nobody generates it. None where rows are
        no dialogues: these get the tokenizer's own special tokens around them, where they do not have them, and its end of text.
    """

    def __init__(
        self,
        tokenizer: Any,
        rows: pa.ChunkedArray,
        renderer: Renderer,
        max_length: int,
        *,
        remedy: str,
        stops: Sequence[int] | None,
    ) -> None:
        self._tokenizer, self._renderer, self._stops = tokenizer, renderer, stops
        self._before, self._after = _around(tokenizer) if stops is None else ([], [])
        self._said: dict[int, str] = {}
        cut: list[tuple[bool, int, bool]] = []
        ids: list[np.ndarray] = [np.empty(0, np.int32)]
        learned: list[np.ndarray] = [np.empty(0, np.bool_)]
        for index, (whole, counts) in enumerate(self._tokenized(rows)):
            kept = counts[:max_length].copy()
            kept[:1] = False  # nothing stands before it
            beyond = counts[max_length:]
            cut.append((len(whole) > max_length, int(beyond.sum()), bool(kept[-1:].any() and beyond[:1].any())))
            if not kept.any():
                self._said.setdefault(index, _nothing_left(len(whole), max_length, remedy))
            ids.append(whole[:max_length])
            learned.append(kept)
        self.wrong = sorted(self._said.items())
        """Samples of which nothing can be learned, by index, each with the rest of a message that begins with its row."""
        self.lengths = np.array([len(own) for own in ids[1:]], dtype=np.int64)
        """Tokens of each sample, int64 of shape (samples,)."""
        self.units = np.array([own.sum() for own in learned[1:]], dtype=np.int64)
        """Tokens of each sample that are learned, int64 of shape (samples,)."""
        self.cut = np.array(cut, dtype=np.int64).reshape(-1, 3)
        """Of each sample, whether it is longer than what is kept of it, how many tokens beyond would be learned, and whether what
        is learned goes on there, so that its end is lost; int64 of shape (samples, 3)."""
        self._ids, self._learned = np.concatenate(ids), np.concatenate(learned)
        self._ends = np.cumsum(self.lengths)

    def _tokenized(self, rows: pa.ChunkedArray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the ids of each row, whole, and which are learned; none of rows that are wrong."""
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = rows.slice(start, _CHUNK_ROWS)
            cells = (
                zip(*(one.to_pylist() for one in part.flatten()), strict=True)
                if part.type.num_fields
                else part.to_pylist()
            )
            rendered: list[list[Piece]] = []
            for number, cell in enumerate(cells, start):
                try:
                    rendered.append([piece for piece in self._renderer.pieces(cell) if piece[0]])
                except RowError as error:
                    self._said[number] = str(error)
                    rendered.append([])
            wholes = self._ids_of(["".join(text for text, _ in pieces) for pieces in rendered])
            parts = iter(self._ids_of([text for pieces in rendered for text, _ in pieces]))
            for pieces, whole in zip(rendered, wholes, strict=True):
                yield self._put_together(pieces, whole, [next(parts) for _ in pieces])

    def _ids_of(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        options = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
        found: list[list[int]] = self._tokenizer(texts, **options, verbose=False)["input_ids"]
        return found

    def _put_together(
        self, pieces: list[Piece], whole: list[int], parts: list[list[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        if list(chain.from_iterable(parts)) != whole:
            parts = self._prefixed(pieces, whole) or parts
        ids = np.fromiter(chain.from_iterable(parts), np.int32)
        # Answers may follow each other with nothing between them: what is after an end is so within each.
        of_parts = [
            _up_to_stop(part, self._stops or ()) & learns for (_, learns), part in zip(pieces, parts, strict=True)
        ]
        learned = np.concatenate([np.empty(0, np.bool_), *of_parts])
        if not len(ids) or self._stops is not None:
            return ids, learned
        before = [] if whole[: len(self._before)] == self._before else self._before
        after = [] if ids[-1] in self._after else self._after
        return (
            np.concatenate([before, ids, after]).astype(np.int32),
            np.concatenate([np.full(len(before), learned[0]), learned, np.full(len(after), learned[-1])]).astype(
                np.bool_
            ),
        )

    def _prefixed(self, pieces: list[Piece], whole: list[int]) -> list[list[int]]:
        """Return a text's tokens in pieces, if each piece begins where the tokens of what is before it end; else nothing.

        Where a token would be of two pieces, each is tokenised by itself: so is the prompt, too, when the model is asked.
        """
        ends, text = [0], ""
        for piece, _ in pieces[:-1]:
            text += piece
            [before] = self._ids_of([text])
            if whole[: len(before)] != before:
                return []
            ends.append(len(before))
        return [whole[low:high] for low, high in pairwise([*ends, len(whole)])]

    def take(self, rows: np.ndarray) -> None:
        """Keep some samples alone, by their sorted indices."""
        within = np.zeros(len(self.lengths), dtype=np.bool_)
        within[rows] = True
        tokens = np.repeat(within, self.lengths)
        self._ids, self._learned = self._ids[tokens], self._learned[tokens]
        self.lengths, self.units, self.cut = self.lengths[rows], self.units[rows], self.cut[rows]
        self._ends = np.cumsum(self.lengths)

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of a sample, and which of them are learned."""
        place = slice(int(self._ends[row] - self.lengths[row]), int(self._ends[row]))
        return self._ids[place], self._learned[place]

    def asked(self, cell: Any) -> tuple[list[int], str] | None:
        """Return the ids that a model is asked with of an input of `read_dialogues`, and what it should say; None where it asks nothing."""
        if (found := self._renderer.asked(tuple(cell.values()) if isinstance(cell, dict) else cell)) is None:
            return None
        [ids] = self._ids_of([found[0]])
        return ids if ids[: len(self._before)] == self._before else [*self._before, *ids], found[1]

    def ends(self, stops: Sequence[int]) -> bool:
        """Return whether any token that is learned is a stop."""
        return bool(np.isin(self._ids[self._learned], stops).any())

    def first_beyond(self, rows: int) -> tuple[int, int] | None:
        """Return index and token id of the first sample with an id that has no row in a table of so many; None without."""
        beyond = np.flatnonzero(self._ids >= rows)
        if not beyond.size:
            return None
        return int(np.searchsorted(self._ends, beyond[0], side="right")), int(self._ids[beyond[0]])


def _weighed(row: str) -> tuple[list[dict[str, str]], list[int]]:
    """Return the messages of a dialogue, and which of them have the weight 0."""
    messages = json.loads(row)
    return messages, [number for number, message in enumerate(messages) if message.pop(WEIGHT, 1) == 0]


def _answers(messages: list[dict[str, str]]) -> list[int]:
    """Return which messages are answers."""
    return [number for number, message in enumerate(messages) if message["role"] == ANSWERING]


def _bare(text: str) -> str:
    """Return a text without blanks: templates put them, and take them away, around what is thought and what is said."""
    return "".join(text.split())


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    if other.startswith(one):
        return len(one)
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def _untold(number: int, messages: int) -> RowError:
    if number == 1:
        return RowError(
            f": nothing comes before message 1, of role {ANSWERING}, the only one that could be learned: put what is asked before it, or"
            " remove the row"
        )
    if number < messages:
        return RowError(
            f": the chat template writes message {number}, of role {ANSWERING}, otherwise once others follow, so what is learned of it"
            " cannot be told: remove what follows it"
        )
    return RowError(
        f": the chat template writes what comes before message {number}, of role {ANSWERING}, otherwise once it is there, so what is"
        " learned of it cannot be told: join it with the one before, or remove it"
    )


def padded_length(lengths: Sequence[int], most: int) -> int:
    """Return how long a batch of such samples is: the longest one, up to the next multiple of 8, at most `most`."""
    longest = max(lengths)
    return max(longest, min(-(-longest // PAD_MULTIPLE) * PAD_MULTIPLE, most))


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return what stands before and after a text: what the tokenizer puts there, and its end of text."""
    bare, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    start = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
    before = whole[:start] if whole[start : start + len(bare)] == bare else []
    return before, [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []


def _up_to_stop(ids: Sequence[int], stops: Sequence[int]) -> np.ndarray:
    """Return which tokens are the first stop or stand before it, all where there is none; bool of shape (tokens,)."""
    found = np.isin(np.asarray(ids, np.int64), stops)
    return np.asarray(np.cumsum(found) - found == 0)


def _nothing_left(tokens: int, kept: int, remedy: str) -> str:
    if tokens <= kept:
        return f": its {tokens} tokens hold none that could be learned; fill it in, or remove it"
    return (
        f" has {tokens} tokens, and what is to be learned of it lies beyond the first {kept}, which are kept: {remedy}"
    )
