"""The search for a cut: the model is run and compared, never known by its name.

What is computed before anything that trains autograd shows: it needs no gradient. Whether that is all that the rest needs
is shown by putting NaN in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unfreeze_trainer.features.cut import Batch, Cut, Output, Shape, Start, length_of, padded, rows_of

_ATTEMPTS = 4
_TOLERANCE = 1e-3
"""Of the largest number, between a row that is computed with some neighbours and with others."""


@dataclass(frozen=True)
class Probe:
    """A model as it stands, in the mode of a phase and with what trains there, and what it is tried on."""

    module: nn.Module
    """Bare and whole, on one device, within `traceless`."""
    batches: Sequence[Batch]
    """Two, of other numbers of samples, which have a sample in common as the last of both; of other lengths where the samples
    differ in length."""
    forward: Callable[[Batch], Tensor]
    """Runs the module on a batch."""
    inputs: Sequence[str] = ()
    """Names of those inputs in a batch that are not there when its samples are cached."""
    exact: Callable[[Batch], Tensor] | None = None
    """The same in float32: half precision rounds a row otherwise beside others. None where `forward` is that."""


@dataclass
class _Call:
    """A call of a module, in the order in which they end."""

    path: str
    parents: tuple[int, ...]
    """Numbers of the calls that it is in, by their begin."""
    number: int
    leaves: list[Any] = field(default_factory=list)
    spec: Any = None

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    @property
    def fixed(self) -> bool:
        """Whether nothing that trains has a part in it."""
        return not any(tensor.requires_grad for tensor in self.tensors)


def find_cut(probe: Probe) -> Cut | str:
    """Return the topmost cut of a model, or why there is none."""
    module, batches = probe.module, probe.batches
    try:
        first, again, other = _records(probe)
    except Exception as error:  # noqa: BLE001 - two small batches are no reason to end a job
        return f"the model fails at two small batches: {error!r}"
    if not [call.path for call in first] == [call.path for call in again] == [call.path for call in other]:
        return "the model chooses at random, or by its input, which of its modules compute"
    end = next((place for place, call in enumerate(first) if not call.fixed), 0)
    times = Counter(call.path for call in first)
    modes = [(part, part.training) for part in module.modules()]
    attempts = 0
    try:
        for place in reversed(range(end)):
            call = first[place]
            if not call.path or times[call.path] > 1 or not _repeats(call, again[place]):
                continue
            if (attempts := attempts + 1) > _ATTEMPTS:
                break
            if outputs := _outputs_until(place, first, other, batches):
                module.eval()
                if cut := _proven(probe, call.path, outputs) or _proven_beside_places(probe, call.path, outputs):
                    return cut
            for part, training in modes:
                part.training = training
    finally:
        for part, training in modes:
            part.training = training
    return "no module of it gives all that the blocks that train read"


def _records(probe: Probe) -> list[list[_Call]]:
    """Run the first batch twice with other random numbers, then the second."""
    (first, other), forward = probe.batches, probe.forward
    return [
        _record(probe.module, partial(forward, batch), seed) for batch, seed in ((first, 0), (first, 1), (other, 0))
    ]


def _record(module: nn.Module, run: Callable[[], Tensor], seed: int) -> list[_Call]:
    """Run a forward pass and return the calls of all modules, in the order in which they end."""
    ended: list[_Call] = []
    running: list[_Call] = []
    handles = []
    begun = 0
    for path, part in module.named_modules():

        def begin(_: nn.Module, __: Any, path: str = path) -> None:
            nonlocal begun
            running.append(_Call(path, tuple(call.number for call in running), begun))
            begun += 1

        def end(_: nn.Module, __: Any, output: Any) -> None:
            call = running.pop()
            call.leaves, call.spec = pytree.tree_flatten(output)
            ended.append(call)

        handles += [part.register_forward_pre_hook(begin), part.register_forward_hook(end)]
    try:
        torch.manual_seed(seed)
        with torch.enable_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return ended


def _repeats(call: _Call, again: _Call) -> bool:
    """Return whether a call gives numbers, and the same ones each time."""
    pairs = list(zip(call.tensors, again.tensors, strict=True))
    return any(one.is_floating_point() for one, _ in pairs) and all(torch.equal(one, two) for one, two in pairs)


def _outputs_until(
    place: int, calls: Sequence[_Call], other: Sequence[_Call], batches: Sequence[Batch]
) -> dict[str, Sequence[Output]] | None:
    """Return what the calls up to one return, the outermost ones of modules that are not called later too.

    None where the shape of one follows from neither samples nor length.
    """
    over = {call.number for call in calls[: place + 1]}
    later = {call.path for call in calls[place + 1 :]}
    found: dict[str, list[Output]] = {}
    for call, same in zip(calls[: place + 1], other[: place + 1], strict=True):
        if call.path in later or any(parent in over for parent in call.parents):
            continue
        leaves: list[Any] = []
        for one, two in zip(call.leaves, same.leaves, strict=True):
            shape = Shape.of(one, two, batches) if isinstance(one, Tensor) else _plain(one)
            if isinstance(one, Tensor) and shape is None:
                return None
            leaves.append(shape)
        found.setdefault(call.path, []).append(Output(leaves, call.spec))
    return dict(found)


def _plain(value: Any) -> Any:
    """Return a value that holds nothing of a batch; None for others, as caches are."""
    return value if isinstance(value, bool | int | float | str) else None


@torch.no_grad()
def _proven(probe: Probe, path: str, outputs: Mapping[str, Sequence[Output]]) -> Cut | None:
    """Return a cut, if a forward pass that starts there gives what a whole one gives, and a row its own whatever stands beside it."""
    [output] = outputs[path]
    count = sum(isinstance(leaf, Shape) for leaf in output.leaves)
    module, forward, (batch, neighbours) = probe.module, probe.forward, probe.batches
    exact = probe.exact or forward
    shapes = {name: Shape.of(batch[name], neighbours[name], probe.batches) for name in probe.inputs}
    if None in shapes.values():
        return None
    every = Cut(path, tuple(range(count)), outputs, {name: shape for name, shape in shapes.items() if shape})
    try:
        values = every.capture(module, lambda: forward(batch), stop=True)
        expected = forward(batch)
        every.capture(module, lambda: forward(neighbours), stop=True)  # what modules remember is of another batch
        needed = tuple(
            number
            for number, value in enumerate(values)
            if not (value.is_floating_point() and _same(_replayed(probe, every, _without(number, values)), expected))
        )
        cut = Cut(path, needed, outputs, every.inputs)
        if not needed or not all(shape.of_samples for shape in cut.shapes):
            return None
        kept = rows_of([values[number] for number in needed], cut.shapes, batch)
        known = {name: tensor for name, tensor in batch.items() if name not in probe.inputs}
        if not _same(_replayed(probe, cut, padded(kept, cut.shapes, known)), expected):
            return None
        alone, beside = (
            rows_of(cut.capture(module, partial(exact, each), stop=True), cut.shapes, each) for each in probe.batches
        )
    except Exception:  # noqa: BLE001 - whatever a model makes of stand-ins: it cannot start here
        return None
    return cut if all(map(_close, alone[-1], beside[-1])) else None


def _proven_beside_places(probe: Probe, path: str, outputs: Mapping[str, Sequence[Output]]) -> Cut | None:
    """Return a cut above which what says where tokens stand goes on computing: it costs little, and later layers read it too.

    Rotary positions (Llama) have no weights, biases of relative positions (MPNet) and what makes them nothing of a sample.
    """

    def costs(path: str, calls: Sequence[Output]) -> bool:
        shapes = [leaf for call in calls for leaf in call.leaves if isinstance(leaf, Shape)]
        weights = next(probe.module.get_submodule(path).parameters(), None)
        return weights is not None and any(shape.sizes[:1] == (None,) for shape in shapes)

    found = {other: calls for other, calls in outputs.items() if other == path or costs(other, calls)}
    return _proven(probe, path, found) if len(found) < len(outputs) else None


def _without(lost: int, values: Sequence[Tensor]) -> list[Tensor]:
    return [torch.full_like(value, torch.nan) if number == lost else value for number, value in enumerate(values)]


def _replayed(probe: Probe, cut: Cut, values: Sequence[Tensor]) -> Tensor:
    """Return the outputs of a forward pass of the first batch that starts at a cut, with NaN in the place of all else."""
    batch = probe.batches[0]
    known = {name: tensor for name, tensor in batch.items() if name not in probe.inputs}
    with Start(probe.module, cut).at(values, length_of(known), fill=torch.nan):
        return probe.forward(cut.complete(known, values, fill=torch.nan))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and _close(one, other)


def _close(one: Tensor, other: Tensor) -> bool:
    limit = _TOLERANCE * max(float(other.abs().max()), 1e-6) if other.numel() else 0.0
    return one.shape == other.shape and bool(torch.isfinite(one).all()) and bool(((one - other).abs() <= limit).all())
