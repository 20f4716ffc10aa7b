"""A cut: where a model's forward pass can start, and what it needs there of each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from unfreeze_trainer.models.blocks import Block

MASK = "attention_mask"
"""What transformers calls the input that tells tokens from padding, (samples, length)."""

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Of a tensor, as it follows from a batch: None stands for the number of samples, 0 for the padded length."""

    sizes: tuple[int | None, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, first: Tensor, second: Tensor, batches: Sequence[Batch]) -> Shape | None:
        """Derive it from the same tensor of two batches; None where it follows from neither samples nor length."""
        if first.ndim != second.ndim or first.dtype != second.dtype:
            return None
        known = [(len(next(iter(batch.values()))), length_of(batch)) for batch in batches]
        sizes: list[int | None] = []
        for place, pair in enumerate(zip(first.shape, second.shape, strict=True)):
            if place == 0 and pair == tuple(samples for samples, _ in known):
                sizes.append(None)
            elif pair[0] == pair[1]:
                sizes.append(pair[0])
            elif pair == tuple(length for _, length in known):
                sizes.append(0)
            else:
                return None
        return cls(tuple(sizes), first.dtype)

    def __call__(self, samples: int, length: int) -> tuple[int, ...]:
        """Return the shape in a batch."""
        return tuple(samples if size is None else size or length for size in self.sizes)

    @property
    def padded(self) -> bool:
        """Whether a sample's value is as long as the sample, in its first dimension."""
        return len(self.sizes) > 1 and self.sizes[1] == 0

    @property
    def of_samples(self) -> bool:
        """Whether each sample has a part of its own, no longer than the sample."""
        return self.sizes[:1] == (None,) and 0 not in self.sizes[2:]


def length_of(batch: Batch) -> int:
    """Return how long the samples of a batch are with their padding; 0 where they have no lengths."""
    return batch[MASK].shape[1] if MASK in batch else 0


class _Stub(nn.Module):
    """Stands in a module's place for a forward pass: returns something of the shape of its output; other attributes are that module's."""

    def __init__(self, place: nn.Module) -> None:
        super().__init__()
        vars(self)["_place"] = place  # no child: whoever goes through the model meets no weights here

    def begin(self, outputs: Iterable[Callable[[], Any]]) -> None:
        """Take what the calls of the next forward pass return."""
        # To set an attribute would look for weights.
        vars(self).update(training=self._place.training, _outputs=[*outputs])

    def __getattr__(self, name: str) -> Any:
        """Return what the module has: some parents read their layers' attributes (ModernBERT: which mask a layer takes)."""
        return getattr(vars(self)["_place"], name)

    def forward(self, *_: Any, **__: Any) -> Any:
        """Return the output of the next call."""
        return self._outputs.pop(0)()


@dataclass(frozen=True)
class Output:
    """What a call returns, without its numbers."""

    leaves: Sequence[Any]
    """Shapes of tensors, and what else there is."""
    spec: Any

    def filled(self, samples: int, length: int, device: torch.device, values: Mapping[int, Tensor], fill: float) -> Any:
        """Return it with some tensors, by number, and with others that have one number all over and no memory."""
        found: list[Any] = []
        tensors = 0
        for leaf in self.leaves:
            if not isinstance(leaf, Shape):
                found.append(leaf)
                continue
            value = values.get(tensors)
            if value is None:
                number = fill if leaf.dtype.is_floating_point else 0
                value = torch.full((), number, dtype=leaf.dtype, device=device).expand(leaf(samples, length))
            found.append(value)
            tensors += 1
        return pytree.tree_unflatten(found, self.spec)


class StopForward(Exception):  # noqa: N818 - no error
    """Ends a forward pass that has given what was wanted of it."""


@dataclass(frozen=True)
class Cut:
    """A place in a model from which its forward pass can start."""

    path: str
    """The module whose output is cached, by its name."""
    needed: tuple[int, ...]
    """Which of the tensors in it the rest needs, by number."""
    outputs: Mapping[str, Sequence[Output]]
    """What each call returns of the modules that need not compute, the outermost ones, that of the cut among them."""
    inputs: Mapping[str, Shape]
    """Of what the model is called with, and neither what computes nor a batch of cached samples has."""

    @property
    def shapes(self) -> list[Shape]:
        """Of the tensors that are cached."""
        [output] = self.outputs[self.path]
        shapes = [leaf for leaf in output.leaves if isinstance(leaf, Shape)]
        return [shapes[number] for number in self.needed]

    def complete(self, batch: Batch, values: Sequence[Tensor], *, fill: float = 0.0) -> Batch:
        """Return a batch of cached samples, whose values are given, with something in the place of the inputs that it lacks."""
        found = dict(batch)
        for name, shape in self.inputs.items():
            number = torch.full(
                (), fill if shape.dtype.is_floating_point else 0, dtype=shape.dtype, device=values[0].device
            )
            found[name] = number.expand(shape(len(values[0]), length_of(batch)))
        return found

    def row_bytes(self, length: int) -> int:
        """Return how much a sample takes that has so many tokens."""
        total = 0
        for shape in self.shapes:
            total += torch.empty((), dtype=shape.dtype).element_size() * torch.Size(shape(1, length)).numel()
        return total

    def blocks(self, module: nn.Module, blocks: Sequence[Block]) -> list[str]:
        """Return the names of the blocks that the rest does without, from input to output."""
        skipped = self.parameters(module)
        return [block.name for block in blocks if skipped.issuperset(block.parameters)]

    def parameters(self, module: nn.Module) -> set[str]:
        """Return the names of the parameters that the rest does without."""
        return {name for path in self.outputs for name, _ in module.get_submodule(path).named_parameters(prefix=path)}

    def capture(self, module: nn.Module, run: Callable[[], Any], *, stop: bool) -> list[Tensor]:
        """Run a forward pass and return the tensors that are cached, padded; `stop` ends it at the cut."""
        found: list[Tensor] = []

        def note(_: nn.Module, __: Any, output: Any) -> None:
            leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
            found.extend(leaves[number].detach() for number in self.needed)
            if stop:
                raise StopForward

        handle = module.get_submodule(self.path).register_forward_hook(note)
        try:
            run()
        except StopForward:
            pass
        finally:
            handle.remove()
        return found


def rows_of(values: Sequence[Tensor], shapes: Sequence[Shape], batch: Batch) -> list[tuple[Tensor, ...]]:
    """Return what is cached of each sample of a batch, without padding."""
    mask = batch[MASK].bool().to(values[0].device) if any(shape.padded for shape in shapes) else None
    return [
        tuple(
            value[row, mask[row]] if shape.padded and mask is not None else value[row].clone()
            for value, shape in zip(values, shapes, strict=True)
        )
        for row in range(len(values[0]))
    ]


def padded(rows: Sequence[tuple[Tensor, ...]], shapes: Sequence[Shape], batch: Batch) -> list[Tensor]:
    """Return what is cached of the samples of a batch as its tensors, with 0 where there is padding."""
    found = []
    for number, shape in enumerate(shapes):
        parts = [row[number] for row in rows]
        if not shape.padded:
            found.append(torch.stack(parts))
            continue
        mask = batch[MASK].bool()
        value = parts[0].new_zeros(shape(len(rows), mask.shape[1]))
        value[mask] = torch.cat(parts)
        found.append(value)
    return found


class Start:
    """Has forward passes of a module start at a cut.

    Parameters
    ----------
    module
        The bare module, whatever wraps it.
    cut
        Of it.
    """

    def __init__(self, module: nn.Module, cut: Cut) -> None:
        self._cut = cut
        parts = {path: module.get_submodule(path) for path in cut.outputs}
        paths = {part: path for path, part in parts.items()}
        self._stubs = {path: _Stub(part) for path, part in parts.items()}
        # To set an attribute would look at what trains, and move the module to the end.
        self._places = [
            (part._modules, key, child, paths[child])  # noqa: SLF001
            for part in module.modules()
            for key, child in part._modules.items()  # noqa: SLF001
            if child in paths
        ]

    @contextmanager
    def at(self, values: Sequence[Tensor], length: int, *, fill: float = 0.0) -> Iterator[None]:
        """Have them start with the tensors that are cached of a batch, padded.

        Parameters
        ----------
        values
            In the order of what is needed.
        length
            Of the batch, its padding included; 0 where it has none.
        fill
            In the place of what is not needed.
        """
        cut, samples, device = self._cut, len(values[0]), values[0].device
        for path, outputs in cut.outputs.items():
            known = dict(zip(cut.needed, values, strict=True)) if path == cut.path else {}
            self._stubs[path].begin(partial(output.filled, samples, length, device, known, fill) for output in outputs)
        try:
            for modules, key, _, path in self._places:
                modules[key] = self._stubs[path]
            yield
        finally:
            for modules, key, child, _ in self._places:
                modules[key] = child
