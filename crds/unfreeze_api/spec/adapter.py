"""Adapters: small new weights inside a model, in PEFT's own words.

The usual methods have a member each; its fields are PEFT's, in camelCase. `peft` takes the other methods of PEFT by
PEFT's own names. Bottleneck modules, which PEFT lacks, are ours.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from unfreeze_api.adapters import ADAPTERS
from unfreeze_api.grammar.model import Rule
from unfreeze_api.grammar.one_of import OneOf

UNMERGEABLE = tuple(kind.name for kind in ADAPTERS if not kind.mergeable)
"""Types that cannot be folded into the base's weights."""
PROMPTS = tuple(kind.name for kind in ADAPTERS if kind.before_input)
"""Types that stand before the input and change no module of the model."""
_BESIDE_OWN_WEIGHTS = [kind.name for kind in ADAPTERS if kind.beside_own_weights]


class AdapterSpec(OneOf, kinds=ADAPTERS, noun="adapter"):
    """Small new weights inside the model. Composes with strategy, see baseWeights."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.baseWeights == 'Frozen' || self.type in {_BESIDE_OWN_WEIGHTS}",
            "baseWeights ByStrategy needs an adapter that can be folded into weights that changed too:"
            f" {' or '.join(_BESIDE_OWN_WEIGHTS)}",
            ".baseWeights",
        ),
    )

    base_weights: Literal["Frozen", "ByStrategy"] = "Frozen"
    """Frozen: the model's own weights stay as they are; within the blocks that a phase trains, the adapter trains in
    place of them. ByStrategy: the adapter trains in every block from the first phase on, and beside it the own weights of
    the blocks that the strategy opens: LoRA below and the top blocks whole, or LoRA first, then the top."""

    @property
    def virtual_tokens(self) -> int:
        """How many tokens the adapter puts before each text."""
        count: int = getattr(self.options, "num_virtual_tokens", 0)
        return count
