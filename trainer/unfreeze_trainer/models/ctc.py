"""Encoders of sound that spell what they hear (CTC), from transformers folders: what they spell by, and how they are loaded."""

from __future__ import annotations

import copy
import json
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.models.audio import UNTRAINED, audio_kinds, layer_drops
from unfreeze_trainer.models.folders import tokenizer_files
from unfreeze_trainer.models.loading import (
    be_quiet,
    check_complete,
    keep_fixed,
    load_headed,
    open_config,
)
from unfreeze_trainer.models.padding import hide_padding
from unfreeze_trainer.models.text import load_tokenizer

AUTO = "AutoModelForCTC"
_TOKENIZER = "Wav2Vec2CTCTokenizer"
_BLANK, _UNKNOWN, _BETWEEN = "[PAD]", "[UNK]", "|"
"""Tokens of a new vocabulary: nothing is said, what is not in it, the blank between words."""
_SHOWN = 12
"""Characters that a message lists."""


def ctc_kinds() -> list[str]:
    """Return the model types whose heads spell, of those whose clips are heard apart from each other."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

    return [name for name in audio_kinds() if name in MODEL_FOR_CTC_MAPPING_NAMES]


def load_ctc_config(path: str, where: str) -> Any:
    """Return transformers' configuration of a folder, one of `ctc_kinds`; JobError InvalidModel where its weights are of several languages."""
    config = open_config(path, where)
    if getattr(config, "adapter_attn_dim", None) is not None:
        raise JobError(
            "InvalidModel",
            f"{where}: the model has small adapters for each of several languages (adapter_attn_dim), which are not trained here: name a"
            " model without them",
        )
    return config


class Spelling:
    """The characters of a vocabulary: texts become ids, and what a model gives becomes texts.

    Parameters
    ----------
    tokenizer
        transformers' Wav2Vec2CTCTokenizer.
    own
        Whether it is the base's own, and not one that was made of texts.

    Notes
    -----
    Where all letters of a vocabulary are of one case, texts are turned into that case.
    """

    def __init__(self, tokenizer: Any, *, own: bool) -> None:
        self.tokenizer, self.own = tokenizer, own
        self.blank: int = tokenizer.pad_token_id
        self.between: str = tokenizer.word_delimiter_token
        self._known: dict[str, int] = tokenizer.get_vocab()
        self._special = {*tokenizer.all_special_ids} - {tokenizer.word_delimiter_token_id}
        self._unknown: int | None = tokenizer.unk_token_id
        self.case = _case(self._known)
        """Turns a text into the case of the vocabulary."""

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, text_target: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        """Return the ids of texts, as a tokenizer does; -1 for a character that the vocabulary lacks."""
        # Where the vocabulary has tokens of several characters, the tokenizer would lose blanks beside them.
        read = [self.as_read(text).replace(" ", self.between) for text in text_target]
        found = self.tokenizer(read, add_special_tokens=False)["input_ids"]
        return {
            "input_ids": [[-1 if token is None or token == self._unknown else token for token in ids] for ids in found]
        }

    def as_read(self, text: str) -> str:
        """Return a text as it is learned: single blanks between words, and the vocabulary's case."""
        return self.case(" ".join(text.split()))

    def wrong(self, text: str, ids: Sequence[int]) -> str | None:
        """Return why a text with such ids cannot be learned, None where it can."""
        if self.between in text:
            return f"it holds {quoted(self.between)}, which stands for the blank between words: remove it"
        if special := self._special.intersection(ids):
            name = self.tokenizer.convert_ids_to_tokens(min(special))
            return f"it holds {quoted(name)}, which the model's vocabulary has for something else: remove it"
        if -1 in ids:
            strange = self.strange(text) or [self.tokenizer.unk_token]
            whose = "the model's own vocabulary" if self.own else "the training texts, of which the vocabulary is made,"
            remedy = "write it otherwise" if len(strange) == 1 else "write them otherwise"
            forms = (one for one in ("NFC", "NFD") if not self.strange(unicodedata.normalize(one, text)))
            if form := next(forms, ""):
                remedy = f"what is written is in it in another form of Unicode, which unicodedata.normalize({form!r}, text) gives: {remedy}"
            return f"it holds {shown(strange)}, which {whose} {'lacks' if self.own else 'lack'}: {remedy}, or remove the row"
        return None

    def strange(self, text: str) -> list[str]:
        """Return the characters of a text that the vocabulary lacks, each once."""
        return [one for one in dict.fromkeys(self.as_read(text)) if self._id_of(one) is None]

    def _id_of(self, character: str) -> int | None:
        found = self._known.get(self.between if character == " " else character)
        return None if found == self._unknown else found

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of ids that `__call__` gave."""
        found: str = self.tokenizer.decode(ids, group_tokens=False, clean_up_tokenization_spaces=False)
        return found

    def heard(self, ids: Sequence[int]) -> str:
        """Return what a model writes, of the most probable id at each moment: repeated ones count once, blanks not at all."""
        found: str = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return found


def shown(characters: Sequence[str]) -> str:
    """Return characters as a message lists them, the first ones of many; marked as a part of the data."""
    listed = [ascii(one) if unicodedata.combining(one[0]) else repr(one) for one in characters[:_SHOWN]]
    return quoted(" ".join(listed) + (" ..." if len(characters) > _SHOWN else ""))


def _case(known: Iterable[str]) -> Callable[[str], str]:
    letters = [token for token in known if len(token) == 1]
    upper, lower = any(map(str.isupper, letters)), any(map(str.islower, letters))
    if upper == lower:
        return str
    return str.upper if upper else str.lower


def vocabulary_files(path: str, where: str) -> list[str]:
    """Return the names of the files of a folder's vocabulary, none where it has none."""
    return tokenizer_files(path, where, ("vocab.json",))


def own_spelling(path: str, where: str, *, own: bool) -> Spelling | None:
    """Return the vocabulary of a folder; None where it has none. JobError InvalidModel where it is no CTC vocabulary.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    own
        Whether it is the one that the base came with.
    """
    if not vocabulary_files(path, where):
        return None
    tokenizer = load_tokenizer(path, where)
    if type(tokenizer).__name__ != _TOKENIZER:
        raise JobError(
            "InvalidModel",
            f"{where}: the folder's tokenizer is a {type(tokenizer).__name__}, and an encoder that spells needs a {_TOKENIZER}: copy one's"
            " files there, or remove its files, and a vocabulary is made of the characters of the training texts",
        )
    return Spelling(tokenizer, own=own)


def spelling_of(texts: Iterable[str]) -> Spelling:
    """Return a vocabulary of the characters of texts, in the order of their code points."""
    from transformers import Wav2Vec2CTCTokenizer

    found = {character for text in texts for character in text if not character.isspace()}
    known = {token: place for place, token in enumerate([_BLANK, _UNKNOWN, _BETWEEN, *sorted(found - {_BETWEEN})])}
    names: dict[str, Any] = {"pad_token": _BLANK, "unk_token": _UNKNOWN, "word_delimiter_token": _BETWEEN}
    with tempfile.TemporaryDirectory() as scratch:  # the class reads a file alone
        file = Path(scratch, "vocab.json")
        file.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
        return Spelling(Wav2Vec2CTCTokenizer(str(file), bos_token=None, eos_token=None, **names), own=False)


class Moments:
    """Counts the moments of clips for which a model gives outputs."""

    def __init__(self, config: Any) -> None:
        from transformers.models.auto.modeling_auto import AutoModelForCTC

        config = copy.deepcopy(config)
        config.num_hidden_layers, config.vocab_size = 1, config.vocab_size or 1
        with torch.device("meta"):
            self._skeleton: Any = AutoModelForCTC.from_config(config, trust_remote_code=False)

    def __call__(self, lengths: Tensor) -> Tensor:
        """Return how many moments clips have of whose values, or spectra, there are so many; int64 of the same shape."""
        found: Tensor = self._skeleton._get_feat_extract_output_lengths(lengths)  # noqa: SLF001 - what the model's own loss counts by
        return found.to(torch.int64).clamp(min=0)


def load_ctc_model(
    path: str, where: str, spelling: Spelling, *, random: bool, seed: int
) -> tuple[nn.Module, frozenset[str]]:
    """Load an AutoModelForCTC in float32, with a head for a vocabulary.

    The head is new, drawn from `seed`, unless the checkpoint has one for its own vocabulary: then training continues. No layer is
    left out at random (layerdrop), and padding is not heard, as of audio classifiers.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    spelling
        The vocabulary.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.

    Returns
    -------
    tuple
        The model in training mode, and the head's parameters by name.

    Raises
    ------
    JobError
        InvalidModel: it cannot be loaded, or lacks weights.
    """
    from transformers.models.auto.modeling_auto import AutoModelForCTC

    be_quiet()
    config = load_ctc_config(path, where)
    continues = spells(config, spelling)
    if not continues:
        config.vocab_size, config.pad_token_id = len(spelling), spelling.blank
    for name in layer_drops(config):
        setattr(config, name, 0.0)
    module, head, fresh = load_headed(AutoModelForCTC, path, where, config, keep=continues, random=random, seed=seed)
    check_complete(module, head, {name for name in fresh if not name.endswith(UNTRAINED)}, where)
    keep_fixed(module)
    hide_padding(module)
    names = frozenset(name for name, _ in module.named_parameters())
    return module.train(), head | (fresh & names)


def spells(config: Any, spelling: Spelling) -> bool:
    """Return whether a folder's model has a head for its own vocabulary."""
    return spelling.own and str((config.architectures or [""])[0]).endswith("ForCTC")


def require_fitting(config: Any, spelling: Spelling, where: str) -> None:
    """Raise InvalidModel where a folder's head and vocabulary do not belong together."""
    if not spells(config, spelling):
        return
    if config.pad_token_id != spelling.blank:
        raise JobError(
            "InvalidModel",
            f"{where}: config.json says that the head's blank is {config.pad_token_id} (pad_token_id), and the vocabulary that it is"
            f" {spelling.blank} ({quoted(spelling.tokenizer.pad_token)}): they are of two models; copy the tokenizer's files there that"
            " the head was trained with",
        )
    if spelling.blank >= config.vocab_size:
        raise JobError(
            "InvalidModel",
            f"{where}: the head has {config.vocab_size} outputs (vocab_size in config.json), and the vocabulary's blank is number"
            f" {spelling.blank}: they are of two models; copy the tokenizer's files there that the head was trained with",
        )
