"""What each kind of adapter declares: a file of its own in this folder, with its options and an `ADAPTER`.

What a kind cannot be combined with follows from what it can do and needs, see spec/combinations.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from unfreeze_api.grammar.one_of import Variant

Modules = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(min_length=1, max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"}),
]


@dataclass(frozen=True, slots=True)
class AdapterKind(Variant):
    """A kind of adapter, and what it can do and needs. What is a text says why, as a part of a message; empty: it is not so."""

    mergeable: bool = True
    """It can be folded into the base's weights."""
    beside_own_weights: bool = False
    """It can be folded into weights that changed too."""
    reads_base: str = ""
    """It needs the base's weights as they are, and not quantised."""
    before_input: bool = False
    """It stands before the words of a text and changes no module of the model."""
    whole_gradients: str = ""
    """It needs the gradient of each weight whole, on each worker."""
    all_blocks: str = ""
    """It trains in all blocks at once, or in none."""
    order: int = 1
    """Place among the others in descriptions and messages; the most usual one comes first."""
