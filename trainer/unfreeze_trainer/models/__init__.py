"""Models from folders: check them, load them with a new head, add adapters, write them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unfreeze_trainer.models.hook import StepHook

if TYPE_CHECKING:  # folders are looked at where torch is not loaded
    from torch import nn

    from unfreeze_trainer.models.blocks import Block


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be trained."""

    module: nn.Module
    """On the CPU, float32 but for weights that are quantised, in training mode; its class is the library's own (PEFT's with an adapter)."""
    blocks: list[Block]
    """From input to output; every parameter of the module is in exactly one."""
    adapter_parameters: frozenset[str]
    """Parameters of the adapter, and the head's that train with it; empty without an adapter."""
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    """What the learning rates of parameters are multiplied by, where it is not 1 (LoRA+)."""
    hook: StepHook = field(default_factory=StepHook)
    """What the adapter does in a step beside its gradients (AdaLoRA)."""
    locked: frozenset[str] = frozenset()
    """Parameters that stay as they are whatever a strategy says."""

    @property
    def headless(self) -> bool:
        """Whether the head has no parameters."""
        return not self.blocks[-1].parameters
