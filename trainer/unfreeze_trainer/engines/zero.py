"""How ZeRO divides what it trains: the share of each parameter that one rank's optimizer changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override


@dataclass(frozen=True)
class Share:
    """Where a rank's share of one parameter lies."""

    low: int
    """First element, in ZeRO's flat tensor of this rank."""
    high: int
    """Behind the last one."""
    first: int
    """Element of the whole parameter, flattened, that the share begins with."""

    def of(self, whole: Tensor) -> Tensor:
        """Return a copy of this share of a whole tensor; what lies behind the tensor's end is padding."""
        share = whole.new_zeros(self.high - self.low)
        mine = whole.detach().flatten()[self.first :][: len(share)]
        share[: len(mine)] = mine
        return share


def shares_of_all(sizes: Mapping[str, int], flat: int, rank: int) -> dict[str, Share]:
    """Return a rank's shares at stages 1 and 2: all parameters lie in a row, which is divided into equal flat tensors.

    Parameters
    ----------
    sizes
        Elements of each parameter by name, in ZeRO's order.
    flat
        Elements of each rank's flat tensor; the last ones end with padding.
    rank
        Whose shares. A parameter that lies with other ranks altogether is left out.
    """
    shares, begin = {}, -rank * flat
    for name, size in sizes.items():
        low, high = max(begin, 0), min(begin + size, flat)
        if low < high:
            shares[name] = Share(low, high, low - begin)
        begin += size
    return shares


def shares_of_each(sizes: Mapping[str, int], rank: int, world_size: int) -> dict[str, Share]:
    """Return a rank's shares at stage 3: each parameter is divided by itself, equally, with padding at its end."""
    shares, low = {}, 0
    for name, size in sizes.items():
        share = -(-size // world_size)
        shares[name] = Share(low, low + share, rank * share)
        low += share
    return shares


@dataclass(frozen=True)
class Held:
    """The optimizer's state as one rank holds it."""

    names: Sequence[str]
    """Of all parameters that train, in ZeRO's order; the same on every rank."""
    states: Mapping[str, Mapping[str, Tensor]]
    """Of this rank's shares, as far as a step was taken."""
    shares: Mapping[str, Share]
    """Where those lie."""
    flat: int
    """Elements of ZeRO's flat tensor; there is one at stages 1 and 2."""

    def steps(self) -> Tensor:
        """Return for each name the steps that its share here has taken, float32; -1 without a state."""
        states = [self.states.get(name) for name in self.names]
        return torch.tensor([float(state.get("step", 0)) if state else -1.0 for state in states])

    def row(self, key: str) -> Tensor:
        """Return an entry of all states, in their places in the flat tensor; 0 where there is none."""
        row = torch.zeros(self.flat, device=next((state[key].device for state in self.states.values()), None))
        for name, state in self.states.items():
            row[self.shares[name].low : self.shares[name].high] = state[key]
        return row


class OneGroup(torch.optim.Optimizer):
    """What ZeRO takes for the optimizer: a single group of all parameters; its step is a call of somebody else's.

    ZeRO looks for overflows, sums up, steps and gathers group by group, and a group has one learning rate. In a single
    group each message is as long as can be, however many learning rates there are.

    Parameters
    ----------
    parameters
        All that trains.
    step
        Called with the flat tensors that ZeRO has just put in their place, with gradients.
    """

    def __init__(self, parameters: Iterable[Tensor], step: Callable[[Sequence[Tensor]], None]) -> None:
        super().__init__(parameters, {"lr": 0.0})
        self._step = step

    @override
    def step(self, closure: Any = None) -> Any:
        """Have the step taken."""
        self._step(self.param_groups[0]["params"])
