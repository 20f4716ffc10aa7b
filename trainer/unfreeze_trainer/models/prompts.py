"""Vectors before a text: PEFT hands these models vectors alone, in which a head cannot tell text from padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unfreeze_trainer.errors import JobError

_PADDING = 3
"""Tokens of padding beside the text that is tried."""
_TOLERANCE = 1e-3
"""Part of the largest output that rounding may change."""


@torch.no_grad()
def require_no_padding(module: Any, tokenizer: Any, *, where: str, field: str, adapter: str) -> None:
    """Raise JobError where a model with a prompt says something else of a text with padding beside it.

    A decoder's own classifier reads the last token that is no padding, and finds it by token ids: without these it reads the
    last position, so that a text's outputs would depend on how long the others of its batch are.

    Parameters
    ----------
    module
        With the adapter.
    tokenizer
        Pads on its own side.
    where, field, adapter
        What messages call the model and the task's options, and the adapter's type.

    Raises
    ------
    JobError
        InvalidAdapter: padding changes the outputs.
    """
    training = module.training
    module.eval()
    try:
        hears = _hears_padding(module, tokenizer) and not _hears_padding(module.get_base_model(), tokenizer)
    except (TypeError, ValueError):  # what cannot be called so says it in the first step
        hears = False
    module.train(training)
    if not hears:
        return
    raise JobError(
        "InvalidAdapter",
        f"{where}: with {adapter} the model's own classifier reads padding: what it says of a text depends on the length of the"
        f" others in its batch. Set {field}.pooling to LastToken (decoders) or Mean, or choose adapter.type LoRA or PrefixTuning",
    )


def _hears_padding(module: nn.Module, tokenizer: Any) -> bool:
    ids = torch.tensor([tokenizer("a b")["input_ids"]])
    padding = torch.full((1, _PADDING), tokenizer.pad_token_id)
    sides = (padding, ids) if tokenizer.padding_side == "left" else (ids, padding)
    masks = torch.cat([torch.full_like(side, int(side is ids)) for side in sides], dim=1)
    alone = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    beside = module(input_ids=torch.cat(sides, dim=1), attention_mask=masks).logits
    return bool((alone - beside).abs().max() > _TOLERANCE * alone.abs().max())
