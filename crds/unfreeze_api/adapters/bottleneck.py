"""Narrow networks on the outputs of layers, which PEFT lacks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unfreeze_api.adapters.base import AdapterKind, Modules
from unfreeze_api.grammar.model import Model


class BottleneckSpec(Model):
    """Bottleneck modules: a narrow network beside a skip connection, on the outputs of a layer's parts."""

    placement: Literal["Pfeiffer", "Houlsby"] = "Pfeiffer"
    """Pfeiffer: on the output of each layer's feed-forward network (Pfeiffer et al. 2020, arXiv 2005.00247). Houlsby: on
    that of the attention too (Houlsby et al. 2019, arXiv 1902.00751). A layer without either (ResNet's) has one on its
    last convolution."""
    reduction_factor: int = Field(default=16, ge=1, le=1024)
    """How many times narrower than the layer the network is."""
    non_linearity: Literal["ReLU", "GELU", "SiLU", "Tanh"] = "ReLU"
    """What stands in its middle."""
    target_modules: Modules | None = None
    """Names of the modules whose outputs are adapted. Default: as placement says."""


ADAPTER = AdapterKind("Bottleneck", "is a narrow network on the outputs of layers", BottleneckSpec, mergeable=False)
