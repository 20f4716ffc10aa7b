"""Vectors before a text, out of a small network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unfreeze_api.adapters.base import AdapterKind
from unfreeze_api.grammar.model import Model


class PTuningSpec(Model):
    """P-tuning: vectors before the text's own embeddings that come out of a small network (Liu et al. 2021, arXiv
    2103.10385).
    """

    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """How many vectors stand before the input."""
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    """The network that makes the vectors."""
    encoder_hidden_size: int | None = Field(default=None, ge=1, le=65536)
    """Its width. Default: that of the model."""


ADAPTER = AdapterKind(
    "PTuning",
    "puts vectors before a text, out of a small network",
    PTuningSpec,
    mergeable=False,
    before_input=True,
    all_blocks="belongs to no block that could be trained alone",
)
