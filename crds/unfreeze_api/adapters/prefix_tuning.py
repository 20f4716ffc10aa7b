"""Vectors before keys and values of each layer."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.adapters.base import AdapterKind
from unfreeze_api.grammar.model import Model


class PrefixTuningSpec(Model):
    """Prefix tuning: vectors before keys and values of every layer (Li and Liang 2021, arXiv 2101.00190)."""

    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """How many vectors in each layer."""
    prefix_projection: bool = False
    """Whether they come out of a two-layer network, which steadies training and is dropped when it is over."""
    encoder_hidden_size: int | None = Field(default=None, ge=1, le=65536)
    """Width of that network. Default: that of the model."""


ADAPTER = AdapterKind(
    "PrefixTuning",
    "puts vectors before keys and values of each layer",
    PrefixTuningSpec,
    mergeable=False,
    before_input=True,
    all_blocks="belongs to no block that could be trained alone",
)
