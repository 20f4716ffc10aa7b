"""FSDP2: every rank holds a share of weights, gradients and moments; a block is gathered when it computes."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from typing_extensions import override

from unfreeze_trainer.engines.base import (
    Engine,
    OptimizerState,
    Recipe,
    load_whole,
    move_buffers,
    persistent_buffers,
    require_dimensions,
)
from unfreeze_trainer.engines.bits import bit_sum
from unfreeze_trainer.engines.parts import compile_blocks, parts_of

if TYPE_CHECKING:
    from unfreeze_trainer.models.blocks import Block
    from unfreeze_trainer.phases.freezer import ParamGroup


class FSDPEngine(Engine):
    """`fully_shard` on each layer; the weights stay divided over all phases, a phase has an optimizer of its own.

    Notes
    -----
    What lies below and above the layers (embeddings, pooler, head) is one unit, the root, as by torch's own advice: it is
    gathered once for both passes, and small blocks cost no messages of their own.

    This engine does not go through Accelerate: its `prepare` divides model and optimizer together and once, in
    parameters that it renames, after a wrap policy by class names or sizes. A phase change would be a second
    `prepare` of a divided model. What is left to do by hand is a dozen lines.

    FSDP2 hands requires_grad of a share on to the whole parameter each time that it is gathered, so that a phase change
    is an assignment and a new optimizer. The trap that first-frozen parameters have (a block whose first forward ran
    frozen breaks when it is unfrozen) is one of its mixed precision policy, which fixes data types at that forward from
    what trains; there is none here, since autocast is ours.

    The optimizer sees each share as a plain tensor, which shares its storage: the steps are those of the other engines,
    fused, without a dispatch of DTensor for each. Only the norm for clipping needs a collective.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._join_group()
        self._shares: dict[str, nn.Parameter] = {}
        """What the optimizer of this phase changes, by name."""
        self._whole: Collection[str] = ()
        """Parameters that are left whole on every rank."""
        self._held = False
        """Whether the root stays whole between forward passes."""

    divides = True

    @override
    def attach(self, module: nn.Module, blocks: Sequence[Block], unused: Collection[str] = ()) -> None:
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        require_dimensions({name: shape for name, shape in self.shapes.items() if name not in unused}, "FSDP")
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        if self.recipe.compile:
            compile_blocks(module, blocks)
        ignored = {parameter for name, parameter in module.named_parameters() if name in unused}
        self._whole = unused
        move_buffers(module, self.device)
        for parameter in ignored:
            parameter.data = parameter.data.to(self.device)
        for part in parts_of(module, [block for block in blocks if block.is_layer]):
            fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=ignored)
        # The root is wanted again as soon as the backward pass begins.
        self._root: FSDPModule = fully_shard(module, mesh=mesh, reshard_after_forward=False, ignored_params=ignored)
        module.register_forward_hook(self._divide_again)
        self._root.set_force_sum_reduction_for_comms(self.device.type == "cpu")  # gloo has no mean
        self.module = self.model = module

    def _divide_again(self, *_: Any) -> None:
        """Divide the root after a forward pass that no backward pass follows: it would give away whole tensors for shares."""
        if not torch.is_grad_enabled() and not self._held:
            self._root.reshard()

    @override
    @contextmanager
    def whole(self) -> Iterator[None]:
        """Gather the root, whose own forward an encoder, or what an adapter wraps, is called without."""
        self._root._get_fsdp_state()._lazy_init()  # noqa: SLF001 - a part that runs first would take itself for the root
        self._root.unshard()
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._root.reshard()

    @override
    def expect_missing(self, names: Sequence[str]) -> None:
        if self.world_size > 1:
            super().expect_missing(names)

    @override
    def begin(self, groups: Sequence[ParamGroup], moments: OptimizerState | None = None) -> None:
        if moments is None:
            moments = self._moments()
        else:
            moments = {
                name: {key: self._share_of(value) for key, value in entry.items()} for name, entry in moments.items()
            }
        self.end()
        self._parameters: dict[str, Any] = dict(self.module.named_parameters())
        names = [name for group in groups for name in group.names]
        self._shares = {name: nn.Parameter(_local(self._parameters[name])) for name in names}
        self._new_optimizer(groups, self._shares)
        for name in self._shares.keys() & moments.keys():
            self.optimizer.state[self._shares[name]] = dict(moments[name])

    def _moments(self) -> dict[str, dict[str, Tensor]]:
        state = {name: self.optimizer.state[share] for name, share in self._shares.items()}
        return {name: dict(entry) for name, entry in state.items() if entry}

    def _share_of(self, whole: Tensor) -> Tensor:
        """Return this rank's rows of a whole tensor, as FSDP divides it; the last ranks' may be few or none."""
        if whole.dim() == 0:  # the step count
            return whole.detach().to(self.device, copy=True)
        rows = -(-len(whole) // self.world_size)
        return whole.detach()[self.rank * rows :][:rows].to(self.device, copy=True)

    @override
    def end(self) -> None:
        if self._shares:
            for parameter in self.module.parameters():
                parameter.grad = None
            self._shares = {}
            self.optimizer.state.clear()
            self.optimizer.param_groups.clear()
            gc.collect()

    @override
    def micro_step(self, *, last: bool) -> AbstractContextManager[Any]:
        self._root.set_requires_gradient_sync(last)
        return self.autocast()

    @override
    def backward(self, loss: Tensor, *, last: bool) -> None:
        torch.autograd.backward(self._scaled(loss))

    @override
    def step(self) -> None:
        for name, share in self._shares.items():
            gradient = self._parameters[name].grad
            share.grad = None if gradient is None else _local(gradient)
            self._parameters[name].grad = None
        self._take_step(self._shares.values())

    @override
    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """Return the norm over all ranks' shares, as get_total_norm gives it of whole tensors."""
        return self.all_reduce(super()._norm(gradients).square()).sqrt()

    @override
    def optimizer_state(self) -> OptimizerState:
        result: dict[str, dict[str, Tensor]] = {}
        for name, entry in self._moments().items():
            for key, value in entry.items():
                whole = value if value.dim() == 0 else self._join(value, self.shapes[name])
                if self.rank == 0:
                    result.setdefault(name, {})[key] = whole.to("cpu", copy=True)
        return result

    def _join(self, share: Tensor, shape: torch.Size) -> Tensor:
        """Return the whole tensor that ranks hold rows of. Collective."""
        rows = -(-shape[0] // self.world_size)
        padded = share.new_zeros(rows, *shape[1:])
        padded[: len(share)] = share
        whole = share.new_empty(rows * self.world_size, *shape[1:])
        dist.all_gather_into_tensor(whole, padded)
        return whole[: shape[0]]

    @override
    def weights(self, names: Collection[str]) -> dict[str, Tensor]:
        result = {}
        for name, share in self.held():
            if name in names:
                whole = share if name in self._whole else self._join(share, self.shapes[name])
                if self.rank == 0:
                    result[name] = whole.to("cpu", copy=True)
        return result

    @override
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        buffers = persistent_buffers(self.module)
        load_whole(self.module, {name: tensor for name, tensor in weights.items() if name in buffers})
        for name, share in self.held():
            if name in weights:
                share.copy_(weights[name] if name in self._whole else self._share_of(weights[name]))

    @override
    def checksums(self) -> Tensor:
        whole, shares = torch.zeros(2, len(self.shapes), dtype=torch.int64)
        for number, (name, share) in enumerate(self.held()):
            if name in self._whole:
                whole[number] = bit_sum(share, salt=number)
            else:
                rows = -(-self.shapes[name][0] // self.world_size)
                first = self.rank * rows * self.shapes[name][1:].numel()
                shares[number] = bit_sum(share, salt=number, first=first)
        return whole + self.all_reduce(shares)

    @override
    def held(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.module.named_parameters():
            yield name, _local(parameter)


def _local(tensor: Tensor) -> Tensor:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()
