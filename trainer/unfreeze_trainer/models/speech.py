"""Whisper with its decoder, from transformers folders: what it hears, and which tokens stand before a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.models.audio import layer_drops, shorten
from unfreeze_trainer.models.causal_lm import as_published, generation_options, load_language_model, start_token
from unfreeze_trainer.models.loading import keep_fixed, open_config

AUTO = "AutoModelForSpeechSeq2Seq"
_KIND = "whisper"


@dataclass(frozen=True)
class Prompt:
    """What the decoder reads before a text."""

    tokens: tuple[int, ...]
    """Their ids, as transformers generates: start, language, task, no time stamps, in so far as the model has them."""
    language: str | None = None
    """Code of the language, such as es; None where the model has no tokens of languages."""
    task: str | None = None
    """transcribe or translate; None as above."""


def load_speech_config(path: str, where: str) -> Any:
    """Return transformers' configuration of a folder; JobError InvalidModel where it is no Whisper."""
    from unfreeze_trainer.models.ctc import ctc_kinds

    config = open_config(path, where)
    if config.model_type != _KIND:
        raise JobError(
            "InvalidModel",
            f"{where}: a model of model_type {config.model_type} writes no text of what it hears here: name one of {_KIND}, with its decoder,"
            f" or an encoder of {', '.join(ctc_kinds())}",
        )
    return config


def speech_prompt(path: str, where: str, language: str | None, *, field: str) -> Prompt:
    """Return what a decoder reads before each text, as transformers' `generate` has it for this model.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    language, field
        Code or name of the language of the texts, None for what the model's files say; and the field that says so.

    Raises
    ------
    JobError
        InvalidJob: the model has to be told a language, does not know this one, or tells none apart. InvalidModel: nothing says which
        token its decoder reads first.
    """
    options = generation_options(path, where)
    start = start_token(path, where)
    ends = [token for token in [getattr(options, "no_timestamps_token_id", None)] if isinstance(token, int)]
    known: dict[str, int] = getattr(options, "lang_to_id", None) or {}
    forced = _forced(options, open_config(path, where))
    if not known:
        if language is not None:
            raise JobError(
                "InvalidJob",
                f"{field} {quoted(language)}: {where} tells no languages apart (lang_to_id in its generation_config.json): remove it",
            )
        tokens = [start, *forced]
        return Prompt((*tokens, *(token for token in ends if token != tokens[-1])))
    code = _code(language or getattr(options, "language", None), known)
    if language is None and code is None:
        code = next((_bare(name) for name, token in known.items() if token in forced), None)
    if code is None:
        said = (
            f"{field} {quoted(language)} is none of the languages"
            if language
            else f"{field}: none is said for the languages"
        )
        raise JobError(
            "InvalidJob",
            f"{said} that {where} tells apart: choose one of {', '.join(sorted(map(_bare, known)))}",
        )
    tasks: dict[str, int] = getattr(options, "task_to_id", None) or {}
    task = getattr(options, "task", None)
    if task is None:
        task = next((name for name, token in tasks.items() if token in forced), "transcribe")
    of_task = [tasks[task]] if task in tasks else []
    return Prompt((start, known[_token(code)], *of_task, *ends), code, task if of_task else None)


def _forced(options: Any, config: Any) -> list[int]:
    """Return the tokens that older files say by place, those that are none left out."""
    found = getattr(options, "forced_decoder_ids", None) or getattr(config, "forced_decoder_ids", None) or []
    return [token for _, token in found if isinstance(token, int)]


def _code(language: str | None, known: dict[str, int]) -> str | None:
    """Return the code of a language by its code, its name in English, or its token; None where the model has none such."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    if language is None:
        return None
    named = _bare(language.lower())
    code = TO_LANGUAGE_CODE.get(named, named)
    return code if _token(code) in known else None


def _bare(token: str) -> str:
    return token.removeprefix("<|").removesuffix("|>")


def _token(code: str) -> str:
    return f"<|{code}|>"


def load_speech_model(
    path: str, where: str, prompt: Prompt, *, positions: int | None, random: bool, seed: int
) -> nn.Module:
    """Load a Whisper with its decoder in float32, in training mode; the tokens before a text are said in what it generates by.

    What the class itself never trains (sinusoidal positions of the encoder) becomes a buffer, and no layer is left out at random
    (layerdrop), as of audio classifiers.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    prompt
        What its decoder reads before each text.
    positions
        Rows that are kept of the encoder's positions; None for all.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.

    Raises
    ------
    JobError
        InvalidModel: as of `load_language_model`.
    """
    module: Any = load_language_model(path, where, auto=AUTO, random=random, seed=seed)
    for name in layer_drops(module.config):
        setattr(module.config, name, 0.0)
    for part in (module.model.encoder, module.model.decoder):
        part.layerdrop = 0.0
    if positions is not None:
        shorten(module.model.encoder, positions)
        module.config.max_source_positions = positions
    keep_fixed(module)
    module.generation_config = generation_options(path, where)
    module.generation_config.decoder_start_token_id = prompt.tokens[0]
    if prompt.language:  # else what older files say stays
        for name, value in {"language": prompt.language, "task": prompt.task, "forced_decoder_ids": None}.items():
            setattr(module.generation_config, name, value)
    as_published(module.generation_config)
    trained: nn.Module = module
    return trained.train()


def suppressed_tokens(path: str, where: str) -> Sequence[int]:
    """Return the ids of the tokens that a model never says when it generates, by its own files."""
    found = getattr(generation_options(path, where), "suppress_tokens", None) or []
    return [token for token in found if token >= 0]
