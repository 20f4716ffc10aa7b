"""Logits of some tokens alone: where nothing is learned none need be computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from unfreeze_trainer.models.tied import output_layer


def at_places(outputs: Tensor, places: Tensor, length: int) -> Tensor:
    """Return what there is at some places, (places, width).

    Parameters
    ----------
    outputs
        (rows, length, width); a prompt may stand before the text of each row.
    places
        Row and column of each in the text, int64 of shape (places, 2).
    length
        Tokens of the text.
    """
    rows, columns = places.to(outputs.device).unbind(1)
    return outputs[:, -length:].flatten(0, 1).index_select(0, rows * length + columns)


@contextmanager
def only_at(module: nn.Module, places: Tensor, length: int) -> Iterator[None]:
    """Have a decoder's output layer read some places alone: its logits are (places, tokens of the vocabulary) then.

    The logits of all tokens are most of what a step of a small decoder holds, and the layer a good part of what it computes.
    Parameters as of `at_places`; `module` is the decoder, in whatever wraps it.
    """

    def chosen(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden, *more = given
        return (at_places(hidden, places, length), *more)

    layer = next(found for part in module.modules() if (found := output_layer(part)) is not None)
    handle = layer.register_forward_pre_hook(chosen, prepend=True)
    try:
        yield
    finally:
        handle.remove()
