"""Decoders, alone or beside an encoder, from transformers folders, with their own output layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.loading import (
    be_quiet,
    check_complete,
    failed,
    from_folder,
    keep_fixed,
    open_config,
    seeded,
)

GENERATION = "generation_config.json"
"""Says, beside a model, at which tokens it stops."""
_TRIED, _TOLERANCE = 8, 1e-4
"""Tokens by which a model is tried, and the part of the largest logit that rounding may change."""


_KINDS = {
    "AutoModelForCausalLM": (
        "MODEL_FOR_CAUSAL_LM_MAPPING",
        "decoder",
        "which would give the next token of a text: choose a model such as Llama, Qwen or GPT-2",
    ),
    "AutoModelForSeq2SeqLM": (
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
        "encoder-decoder",
        "which would make a text of another one: choose a model such as T5, BART or mT5",
    ),
    "AutoModelForSpeechSeq2Seq": (
        "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
        "speech recogniser",
        "which would write what it hears: choose a Whisper",
    ),
}
"""Of transformers' classes that choose a model: where it says which they are, what they are called, and what for."""


def load_language_model(path: str, where: str, *, auto: str, random: bool, seed: int) -> nn.Module:
    """Load a model of transformers with its own output layer, in float32, in training mode.

    What its class never trains (the sinusoidal positions of Marian and Pegasus) becomes buffers of the same names.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    auto
        transformers' class that chooses the model.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.

    Raises
    ------
    JobError
        InvalidModel: it cannot be loaded, is of another kind, or lacks weights, those of the output layer too.
    """
    from transformers.models.auto import modeling_auto

    be_quiet()
    config = open_config(path, where)
    mapping, called, purpose = _KINDS[auto]
    if type(config) not in getattr(modeling_auto, mapping):
        raise JobError(
            "InvalidModel", f"{where}: transformers has no {called} of the kind {config.model_type!r}, {purpose}"
        )
    loader: Any = getattr(modeling_auto, auto)
    fresh: set[str] = set()
    module: Any
    try:
        with seeded(seed):
            if random:
                module = loader.from_config(config, dtype=torch.float32, trust_remote_code=False)
            else:
                module, fresh = from_folder(loader, path, config, own="All")
    except Exception as error:  # a broken folder is broken in many ways, and none of them goes away on a retry
        raise failed(f"{where}: the model cannot be loaded", error, path) from error
    check_complete(module, frozenset(), fresh, where)
    if lost := sorted(fresh & {name for name, _ in module.named_parameters()}):
        raise JobError(
            "InvalidModel",
            f"{where}: the weights lack {', '.join(lost[:3])}, and what gives the next token is not drawn anew: choose a model that was"
            f" saved as {'an' if called[0] in 'aeiou' else 'a'} {called}",
        )
    keep_fixed(module)
    return module.train()


@torch.no_grad()
def require_causal(module: Any, where: str) -> None:
    """Raise JobError InvalidModel where a model reads what follows a token: an encoder would be shown what it is to give.

    Only kinds are tried that there are encoders of: a large decoder is not run for it.

    Parameters
    ----------
    module
        Bare.
    where
        What messages call it.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    if type(module.config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return
    training = module.training
    module.eval()
    try:
        rows = module.get_input_embeddings().num_embeddings
        ids = torch.arange(_TRIED) * 7 % rows
        other = torch.cat([ids[: _TRIED // 2], (ids[_TRIED // 2 :] + 1) % rows])
        said, again = (module(input_ids=one[None]).logits[0, : _TRIED // 2] for one in (ids, other))
        ahead = bool((said - again).abs().max() > _TOLERANCE * said.abs().max())
    except Exception:  # noqa: BLE001 - what cannot be called so says it in the first step
        ahead = False
    module.train(training)
    if ahead:
        raise JobError(
            "InvalidModel",
            f"{where}: {type(module).__name__} reads what follows a token, too, and would be shown what it is to give: name a decoder such"
            " as Llama, Qwen or GPT-2. A BERT that was trained as a decoder says is_decoder: true in its config.json",
        )


def generation_options(path: str, where: str) -> Any:
    """Return how a model generates: by its generation_config.json or, where there is none, by its config.json."""
    from transformers.generation.configuration_utils import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return GenerationConfig.from_model_config(open_config(path, where))
    vars(found).pop("trust_remote_code", None)  # it takes this for an option of its own, and would write it
    return found


def as_published(options: Any) -> None:
    """Have options of generation that were changed be saved as those are that nobody changed.

    Of changed ones transformers refuses what it passes over otherwise, as a temperature without do_sample.
    """
    options._original_object_hash = hash(options)  # noqa: SLF001 - it has no other way


def start_token(path: str, where: str, *, language: int | None = None) -> int:
    """Return the id of the token that a decoder beside an encoder reads first, as transformers generates.

    Where its files say none it is the one of the language that targets end with (mBART): so was it pretrained.

    Raises
    ------
    JobError
        InvalidModel: neither generation_config.json nor config.json says it.
    """
    config, options = open_config(path, where), generation_options(path, where)
    said = (options.decoder_start_token_id, getattr(config, "decoder_start_token_id", None))
    given = (*said, language, options.bos_token_id)
    found = next((token for token in given if isinstance(token, int)), None)
    if found is None:
        raise JobError(
            "InvalidModel",
            f"{where}: nothing says which token its decoder reads first: set decoder_start_token_id in its config.json",
        )
    return found


def stop_tokens(path: str, where: str, tokenizer: Any) -> list[int]:
    """Return the ids of the tokens at which a model ends what it says: the tokenizer's, and those that it generates by.

    These stand in generation_config.json and, where there is none, in its configuration, as transformers has it.
    """
    from transformers.generation.configuration_utils import GenerationConfig

    own: int | Sequence[int] | None = None
    with suppress(ValueError):
        try:
            options = GenerationConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except OSError:
            options = GenerationConfig.from_model_config(open_config(path, where))
        own = options.eos_token_id
    found = [*([own] if isinstance(own, int) else own or []), tokenizer.eos_token_id]
    return sorted({token for token in found if token is not None and token >= 0})
