"""Passes through a model before it trains, which leave nothing behind but what they tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle


@contextmanager
def traceless(module: nn.Module) -> Iterator[None]:
    """Put back what passes through a module change beside its weights: buffers, attributes, requires_grad, generators.

    Weights are changed by optimizers alone, and `gradients` leaves none there. Attributes matter too: a BigBird that meets
    a short text turns to full attention for good.

    Parameters
    ----------
    module
        On one device.
    """
    parts = [(part, {key: (value, _inside(value)) for key, value in vars(part).items()}) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    required = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    devices = {parameter.device for parameter, _ in required if parameter.device.type == "cuda"}
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - models draw from the global generator
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for part, attributes in parts:
            _put_back(part, attributes)
        for parameter, requires in required:
            parameter.requires_grad_(requires)
        for buffer, value in buffers:
            buffer.copy_(value)


def _inside(value: Any) -> Any:
    """Return a copy of a container, which keeps what is in it: submodules, parameters and buffers lie in such."""
    return value.copy() if isinstance(value, dict | list | set) else None


def _put_back(part: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    own = vars(part)
    for key in own.keys() - attributes.keys():
        del own[key]
    for key, (value, inside) in attributes.items():
        own[key] = value
        if inside is not None:
            value.clear()
            value.extend(inside) if isinstance(value, list) else value.update(inside)


def gradients(module: nn.Module, loss: Callable[[], Tensor]) -> frozenset[str]:
    """Compute a loss and go backward, return the names of the parameters that get a gradient.

    Each gradient is let go as soon as it is there: no more than one is held at a time.

    Parameters
    ----------
    module
        Its parameters have no gradients yet.
    loss
        Computed by the module, without dimensions.
    """
    found: set[str] = set()
    handles = [
        on_gradient(parameter, partial(_note, found, name))
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ]
    try:
        if (value := loss()).requires_grad:
            torch.autograd.backward(value)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(found)


def on_gradient(parameter: Tensor, then: Callable[[Tensor], None]) -> RemovableHandle:
    """Have something called with a parameter each time that a backward pass has given it a gradient."""
    handle: RemovableHandle = parameter.register_post_accumulate_grad_hook(then)  # type: ignore[no-untyped-call]
    return handle


def _note(found: set[str], name: str, parameter: Tensor) -> None:
    found.add(name)
    parameter.grad = None


class Lots(TorchFunctionMode):
    """Watches whether a model draws lots: a single random number is for a choice, as of the layers that are left out.

    Those who mask activations or make noise draw as many numbers as there are of those.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn = False

    def __enter__(self) -> Self:
        self._before = _plain_generators()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.drawn |= func in _DRAWS and isinstance(result, Tensor) and result.numel() == 1
        return result

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.drawn |= _plain_generators() != self._before


_DRAWS = frozenset(
    {torch.rand, torch.rand_like, torch.randint, torch.randn, torch.randperm, torch.bernoulli, torch.normal}
    | {Tensor.uniform_, Tensor.bernoulli_, Tensor.bernoulli, Tensor.random_, Tensor.normal_}
)


def _plain_generators() -> tuple[Any, ...]:
    """Return the states of Python's and numpy's generators, which nobody draws many numbers from."""
    _, keys, *rest = np.random.get_state()  # noqa: NPY002 - as above
    return random.getstate(), np.asarray(keys).tobytes(), *rest
