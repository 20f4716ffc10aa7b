"""Encoders of texts from transformers folders: the body alone, whose tokens' vectors are pooled outside of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import pooled_layers as layers
from unfreeze_trainer.models.loading import be_quiet, check_complete, failed, from_folder, open_config, seeded


def encoder_width(path: str, where: str) -> int:
    """Return how wide the vectors of a folder's tokens are. JobError InvalidModel: it is no encoder of texts."""
    config = open_config(path, where, use="built")
    try:
        return layers.encoder_width(config)
    except ValueError as error:
        raise JobError("InvalidModel", f"{where}: {error}. Choose an encoder of texts") from error


def load_encoder(path: str, where: str, *, tokenizer: Any, random: bool, seed: int) -> nn.Module:
    """Load an encoder of transformers in float32, in training mode.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    tokenizer
        Its padding is the model's.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.

    Raises
    ------
    JobError
        InvalidModel: it cannot be loaded, or lacks weights.
    """
    be_quiet()
    config = open_config(path, where, use="built")
    config.pad_token_id = tokenizer.pad_token_id
    module: Any
    try:
        loader = layers.encoder_class(config)
        with seeded(seed):
            if random:
                module = loader._from_config(config, dtype=torch.float32)  # noqa: SLF001 - what Auto calls
                return module.train()
            module, fresh = from_folder(loader, path, config, own="All")
    except Exception as error:  # a broken folder is broken in many ways
        raise failed(f"{where}: the model cannot be loaded", error, path) from error
    check_complete(module, frozenset(), fresh, where)
    return module.train()
