"""Decoders from transformers folders, with their own output layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.loading import be_quiet, check_complete, failed, from_folder, open_config, seeded

GENERATION = "generation_config.json"
"""Says, beside a model, at which tokens it stops."""


def load_causal_lm(path: str, where: str, *, random: bool, seed: int) -> nn.Module:
    """Load a decoder of transformers in float32, in training mode.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.

    Raises
    ------
    JobError
        InvalidModel: it cannot be loaded, is no decoder, or lacks weights, those of the output layer too.
    """
    from transformers.models.auto import modeling_auto

    be_quiet()
    config = open_config(path, where)
    if type(config) not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise JobError(
            "InvalidModel",
            f"{where}: transformers has no decoder of the kind {config.model_type!r}, which would give the next token of a text:"
            " choose a model such as Llama, Qwen or GPT-2",
        )
    loader: Any = modeling_auto.AutoModelForCausalLM
    fresh: set[str] = set()
    module: Any
    try:
        with seeded(seed):
            if random:
                module = loader.from_config(config, dtype=torch.float32, trust_remote_code=False)
            else:
                module, fresh = from_folder(loader, path, config)
    except Exception as error:  # a broken folder is broken in many ways, and none of them goes away on a retry
        raise failed(f"{where}: the model cannot be loaded", error, path) from error
    check_complete(module, frozenset(), fresh, where)
    if lost := sorted(fresh & {name for name, _ in module.named_parameters()}):
        raise JobError(
            "InvalidModel",
            f"{where}: the weights lack {', '.join(lost[:3])}, and what gives the next token is not drawn anew: choose a model that was"
            " saved as a decoder",
        )
    return module.train()


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
