"""Samples that share a row of a batch, told apart by positions that begin anew: whether a model keeps them apart."""

from __future__ import annotations

from typing import Any

import torch

from unfreeze_trainer.errors import JobError

_LENGTHS = 7, 5
"""Tokens of the two samples that are tried."""
_TOLERANCE = 1e-3
"""Part of the largest logit that rounding may change."""


@torch.no_grad()
def require_apart(module: Any, *, where: str, field: str) -> None:
    """Raise JobError InvalidModel where a decoder reads what stands before a sample in its row.

    transformers tells samples by their positions where it gets neither a mask of padding nor a cache, in models that mask by them;
    state space models and others carry over what they have read.

    Parameters
    ----------
    module
        Bare.
    where, field
        What messages call the model and the option.
    """
    rows = module.get_input_embeddings().num_embeddings
    ids = torch.arange(sum(_LENGTHS)) * 7 % rows
    parts = ids.split(_LENGTHS)
    positions = torch.cat([torch.arange(length) for length in _LENGTHS])
    training = module.training
    module.eval()
    try:
        alone = torch.cat([module(input_ids=part[None], use_cache=False).logits[0] for part in parts])
        together = module(input_ids=ids[None], position_ids=positions[None], use_cache=False).logits[0]
        apart = bool((alone - together).abs().max() <= _TOLERANCE * alone.abs().max())
    except (TypeError, ValueError):  # what takes no positions cannot be told
        apart = False
    module.train(training)
    if not apart:
        raise JobError(
            "InvalidModel",
            f"{where}: {type(module).__name__} does not keep samples apart that stand in a row one after the other: what it says of one"
            f" depends on those before it. Set {field} to false",
        )
