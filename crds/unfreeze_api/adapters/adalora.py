"""Low-rank updates whose ranks go where they are needed."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from unfreeze_api.adapters.base import AdapterKind, Modules
from unfreeze_api.grammar.model import Model, Rule


class AdaLoraSpec(Model):
    """AdaLoRA: LoRA in the form of singular values, the least important of which are taken away while it trains, so that
    ranks go to the modules that need them (Zhang et al. 2023, arXiv 2303.10512).
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.targetR < self.initR",
            "AdaLoRA takes ranks away, from initR to targetR: set targetR below initR, or choose type LoRA for ranks that"
            " stay",
            ".targetR",
        ),
    )

    init_r: int = Field(default=12, ge=2, le=1024)
    """Rank of each module's update at the start."""
    target_r: int = Field(default=8, ge=1, le=1023)
    """Rank that is left in the end, as a mean over the modules; the paper takes two thirds of initR."""
    tinit: int = Field(default=0, ge=0, le=1000000000)
    """Steps of the phase before ranks are taken away."""
    tfinal: int = Field(default=0, ge=0, le=1000000000)
    """Steps at the end of the phase that train what is left. Between tinit and tfinal the ranks fall by a cubic law."""
    deltaT: int = Field(default=1, ge=1, le=1000000)  # noqa: N815 - PEFT's own name
    """Steps from one allocation to the next; in between, ranks that were taken away may come back."""
    beta1: float = Field(default=0.85, gt=0, lt=1)
    """Share of the old in the running mean of each weight's importance."""
    beta2: float = Field(default=0.85, gt=0, lt=1)
    """Share of the old in the running mean of its uncertainty."""
    orth_reg_weight: float = Field(default=0.5, ge=0, le=1000)
    """Weight, in the loss, of how far the singular vectors are from orthogonal ones."""
    lora_alpha: int = Field(default=32, ge=1, le=4096)
    """Scale: the update is multiplied by loraAlpha / initR."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout before the update, in training."""
    target_modules: Modules = Field(default=["all-linear"])
    """Names of the modules that get an update, or all-linear for every linear layer of the backbone."""


ADAPTER = AdapterKind(
    "AdaLoRA",
    "gives such updates more rank where they need it",
    AdaLoraSpec,
    whole_gradients="weighs each weight by its gradient",
    all_blocks="gives ranks to the modules that need them most, so all of them train at once",
)
