"""Vectors that scale what modules give or take."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.adapters.base import AdapterKind, Modules
from unfreeze_api.grammar.model import Model


class Ia3Spec(Model):
    """IA3: vectors that scale what modules give or take (Liu et al. 2022, arXiv 2205.05638)."""

    target_modules: Modules = Field(default=["all-linear"])
    """Names of the modules that get a vector, or all-linear for every linear layer of the backbone. The paper has keys,
    values and the second layer of the feed-forward network."""
    feedforward_modules: Modules | None = None
    """Those of targetModules whose input is scaled instead of their output. Default: linear layers that have more
    inputs than outputs, as the second layer of a feed-forward network has."""


ADAPTER = AdapterKind("IA3", "scales what modules give or take", Ia3Spec, beside_own_weights=True)
