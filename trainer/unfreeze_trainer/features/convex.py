"""The linear layer with the lowest loss on vectors of samples: L-BFGS in float64 on the CPU, the strength by cross-validation.

The objective is the mean loss and strength / 2 times the squared weights of standardised inputs; biases are free. It is
minimised along the principal axes of the inputs, each scaled by the curvature that it has there: the minimum is the same, and a
few dozen iterations lead to it where hundreds would be needed (Nocedal and Wright 2006, sections 5.1 and 7.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FOLDS = 5
STRENGTHS = tuple(10 ** (1 - half / 2) for half in range(15))
"""What is tried, from the strongest."""
_ROUGH, _FINE = 1e-4, 1e-6
"""Largest number in the scaled gradient at the end, of folds and of the result: the loss is above its minimum by about half the square
of the gradient's norm."""
_ITERATIONS = 500
_SMALL = 2**26
"""Products of a pass over the rows below which several threads would wait for one another longer than they compute."""
_AXES = 4096
"""Inputs of which axes are sought at most; that takes time with their third power."""
_NUMBERS = 2**22
"""Outputs that are computed at a time."""
_FLAT = 1e-6
"""Share of an input's size, or of the largest spread of any input, below which its spread is rounding, and the input a constant: MiniLM has one of 1e-31,
whose weight would be 1e30 and the gradients below it infinite."""

Loss = Callable[[Tensor, slice], Tensor]
"""Takes outputs of a slice of the rows, (rows, outputs), float64, and returns the loss of each."""


def folds_of(rows: int, groups: np.ndarray | None, seed: int) -> list[np.ndarray]:
    """Deal rows out into folds of equal size, by lot.

    Parameters
    ----------
    rows
        How many there are.
    groups
        Number of the group of each row; each group is dealt out evenly. None without groups.
    seed
        Of the lot.

    Returns
    -------
    list
        The rows of each fold; as many folds as there are rows if these are fewer than FOLDS.
    """
    order = np.random.default_rng(seed).permutation(rows)
    if groups is not None:
        order = order[np.argsort(groups[order], kind="stable")]
    return [order[fold::FOLDS] for fold in range(min(FOLDS, rows))]


@dataclass
class Head:
    """A linear layer along the axes of a problem."""

    weight: Tensor
    """Of shape (axes, outputs)."""
    bias: Tensor
    loss: float = math.inf
    """Mean loss on the rows that it was found on."""
    iterations: int = 0
    gradient: float = math.inf
    """Largest number in the scaled gradient that is left."""


@contextmanager
def few_threads(products: int) -> Iterator[None]:
    """Have passes over rows of so many products be computed by one thread, if that is faster."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if products < _SMALL else threads)
        yield
    finally:
        torch.set_num_threads(threads)


class Problem:
    """Rows along their principal axes, and the loss of their outputs.

    Parameters
    ----------
    vectors
        Of shape (rows, inputs).
    loss
        Of outputs.
    weights
        How much each row counts, float64 of shape (rows,).
    outputs
        Of a row.
    bias
        Whether there are biases; without them inputs keep their mean.
    """

    def __init__(self, vectors: Tensor, loss: Loss, weights: Tensor, *, outputs: int, bias: bool) -> None:
        inputs = vectors.double()
        share = weights / weights.sum()
        self._mean = share @ inputs if bias else inputs.new_zeros(inputs.shape[1])
        size = (share @ inputs.square()).sqrt()
        inputs -= self._mean
        spread = (share @ inputs.square()).sqrt()
        self._scale = torch.where(spread > _FLAT * size.clamp(min=float(spread.max())), spread, torch.inf)
        inputs /= self._scale
        if inputs.shape[1] <= _AXES:
            self._variances, self._axes = torch.linalg.eigh(inputs.T @ (inputs * share[:, None]))
            self._rows = inputs @ self._axes
        else:
            self._variances, self._axes = inputs.new_ones(inputs.shape[1]), None
            self._rows = inputs
        self._loss, self._weights, self._outputs, self._bias = loss, weights, outputs, bias
        self._curvature = self._measured_curvature()

    def blank(self) -> Head:
        """Return a head of zeros."""
        rows = self._rows
        return Head(rows.new_zeros(rows.shape[1], self._outputs), rows.new_zeros(self._outputs))

    def _measured_curvature(self) -> float:
        """Return the mean second derivative of a row's loss by one of its outputs, at 0, along random signs."""
        lot = torch.Generator().manual_seed(0)
        step, found = 1e-3, 0.0
        for rows in self._parts([slice(0, len(self._rows))]):
            length = rows.stop - rows.start
            signs = torch.randint(0, 2, (length, self._outputs), generator=lot).double() * 2 - 1
            change = self._slope(signs * step, rows)[1] - self._slope(signs * -step, rows)[1]
            found += float((self._weights[rows, None] * change * signs).sum()) / (2 * step)
        total = float(self._weights.sum()) * self._outputs
        return max(found / total, 1e-12)

    def _slope(self, outputs: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Return the losses of rows, and the derivative of each by its outputs."""
        outputs = outputs.detach().requires_grad_()
        with torch.enable_grad():
            losses = self._loss(outputs, rows)
            [slope] = torch.autograd.grad(losses.sum(), outputs)
        return losses.detach(), slope

    def _parts(self, ranges: Sequence[slice]) -> list[slice]:
        step = max(1, _NUMBERS // self._outputs)
        return [slice(low, min(low + step, rows.stop)) for rows in ranges for low in range(rows.start, rows.stop, step)]

    def solve(self, strength: float, start: Head, ranges: Sequence[slice], *, fine: bool = False) -> Head:
        """Return the head with the lowest objective on ranges of the rows.

        Parameters
        ----------
        strength
            Of the regularisation.
        start
            Where the search begins.
        ranges
            Of rows.
        fine
            Whether the minimum is wanted to the last digits of float32.
        """
        parts = self._parts(ranges)
        total = sum(float(self._weights[rows].sum()) for rows in parts)
        scale = (self._curvature * self._variances.clamp(min=0) + strength).rsqrt()[:, None]
        free = float(self._curvature**-0.5)
        weight = (start.weight / scale).requires_grad_()
        bias = (start.bias / free).requires_grad_(self._bias)
        found = [weight, *([bias] if self._bias else [])]
        last = [math.inf, 0]

        def objective() -> float:
            with torch.no_grad():
                true = weight * scale
                value, slope, tilt = 0.0, torch.zeros_like(true), torch.zeros_like(bias)
                for rows in parts:
                    outputs = self._rows[rows] @ true
                    losses, gradient = self._slope(outputs.add_(bias * free), rows)
                    counts = self._weights[rows] / total
                    gradient *= counts[:, None]
                    value += float(counts @ losses)
                    slope += self._rows[rows].T @ gradient
                    tilt += gradient.sum(dim=0)
                weight.grad = (slope + strength * true) * scale
                bias.grad = tilt * free if self._bias else None
                last[0], last[1] = value, last[1] + 1
                return value + strength / 2 * float(true.square().sum())

        search = torch.optim.LBFGS(
            found,
            max_iter=_ITERATIONS,
            max_eval=2 * _ITERATIONS,
            history_size=20,
            tolerance_grad=_FINE if fine else _ROUGH,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )
        search.step(objective)  # type: ignore[no-untyped-call]
        objective()
        gradient = max(float(tensor.grad.abs().max()) for tensor in found if tensor.grad is not None)
        steps = search.state[weight].get("n_iter", 0)
        return Head(weight.detach() * scale, bias.detach() * free, last[0], steps, gradient)

    def losses(self, head: Head, rows: slice) -> float:
        """Return the sum of the losses of some rows, each as often as it counts."""
        return sum(
            float(self._weights[part] @ self._loss(self._rows[part] @ head.weight + head.bias, part))
            for part in self._parts([rows])
        )

    def layer(self, head: Head) -> tuple[Tensor, Tensor]:
        """Return weights, of shape (outputs, inputs), and biases for vectors as they are, float32."""
        along = head.weight if self._axes is None else self._axes @ head.weight
        weight = (along / self._scale[:, None]).T
        return weight.float().contiguous(), (head.bias - weight @ self._mean).float()
