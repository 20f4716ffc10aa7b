"""DeepSpeed ZeRO 0 to 3: replicas of everything (0), or shares of moments (1), gradients (2) and weights (3)."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
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
from unfreeze_trainer.engines.optimizers import MOMENTS
from unfreeze_trainer.engines.zero import Held, OneGroup, Share, shares_of_all, shares_of_each
from unfreeze_trainer.models.own_type import held

if TYPE_CHECKING:
    from types import ModuleType

    from unfreeze_trainer.models.blocks import Block
    from unfreeze_trainer.phases.freezer import ParamGroup

log = logging.getLogger(__name__)


def import_deepspeed() -> ModuleType:
    """Import DeepSpeed without MLflow, which its autotuner takes along where it is installed: a second and 70 MB."""
    hidden = "mlflow" not in sys.modules
    if hidden:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        import deepspeed
    finally:
        if hidden:
            del sys.modules["mlflow"]
    return deepspeed


class DeepSpeedEngine(Engine):
    """ZeRO by the recipe *rebuild*: each phase destroys the engine and initializes it with the new trainable set.

    Notes
    -----
    ZeRO fixes what it trains at initialize: a parameter that is unfrozen later never trains, one that is frozen later
    still moves by momentum and decay. The other right recipe, *gate* (everything initialized, frozen groups held by
    learning rate 0), keeps moments and float32 partitions of frozen blocks: 12 bytes a parameter over the ranks, so
    that a probe of the head costs as much as full fine-tuning. Rebuild holds them for what trains, and costs one
    initialize per phase.

    This engine does not go through Accelerate, which would only hand the configuration on: its free_memory collects
    garbage before it lets go of the old engine, and its plugin tells transformers to divide every model that is loaded
    from then on, that for the export too.

    ZeRO sees one group of all that trains, and one flat tensor of this rank's shares. The optimizer sees each share in it
    by itself, with its learning rate and its moments.

    Moments go from phase to phase by name; at stages 1 and 2, where the shares of a parameter depend on what else
    trains, through one whole row at a time. Flat tensors are made from the module's own float32 weights, so that they are
    exact without being carried. Stage 3 keeps the weights in shares over all phases: frozen ones cost their share and
    nothing else, and are gathered for the forward pass like the others.
    """

    persistence_threshold = 100_000
    """Stage 3 keeps parameters of at most so many elements whole between uses (DeepSpeed's default)."""
    bucket = 500_000_000
    """Most elements of the buffer that gradients are exchanged in (DeepSpeed's default); never more than what trains."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        zero_stage: int,
        offload: Literal["None", "Optimizer", "OptimizerAndParameters"] = "None",
    ) -> None:
        super().__init__(recipe)
        self._stage, self._offload = zero_stage, offload
        self.divides = zero_stage == 3  # noqa: PLR2004
        if offload != "None" and self.device.type == "cpu":
            log.warning("deepSpeed.offload %s saves nothing here: without an accelerator all is on the host", offload)
        if self.device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        deepspeed = import_deepspeed()
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of every optimizer that is not its own
        # On CPU it would compile its own shared-memory collectives at start: minutes, and a compiler in the image. Nothing else is
        # looked up here, and what it would make of its own accord runs a compiler and says yes without one.
        deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
        self._join_group()
        deepspeed.init_distributed()  # takes the group over
        self._initialize, self._init = deepspeed.initialize, _of_own_weights(deepspeed.zero.Init)
        self._engine: Any = None
        self._names: list[str] = []
        """Of all that trains, in ZeRO's order."""
        self._flats: dict[Tensor, list[str]] = {}
        """What ZeRO has its optimizer change on this rank, with the names of the shares in it."""
        self._shares: dict[str, Share] = {}
        self._masters: dict[str, nn.Parameter] = {}
        """What the optimizer of this phase changes, by name: shares, which lie in the flat tensors; at stage 0 the weights."""

    def _config(self, trained: int) -> dict[str, Any]:
        host = {"device": "cpu", "pin_memory": self.device.type != "cpu"}
        offload = {"offload_optimizer": host} if self._offload != "None" else {}
        offload |= {"offload_param": host} if self._offload == "OptimizerAndParameters" else {}
        # Neither optimizer nor scheduler stands here: both are ours, its schedulers flatten groups.
        return {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only divides by it; batches are ours
            "gradient_accumulation_steps": 1,  # the boundary is set by hand
            "gradient_clipping": self.recipe.max_grad_norm,
            "zero_optimization": {
                "stage": self._stage,
                "overlap_comm": self.device.type != "cpu",
                "reduce_bucket_size": min(self.bucket, trained),
                "stage3_param_persistence_threshold": self.persistence_threshold,
                **offload,
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # its own would be compiled at start; torch's fused AdamW is as fast
            # The engine switches an autocast from outside off unless it has one of its own; without "safe modules"
            # gradients are still exchanged in float32.
            "torch_autocast": {
                "enabled": self.dtype is not torch.float32,
                "dtype": str(self.dtype).removeprefix("torch."),
                "lower_precision_safe_modules": [],
            },
            "steps_per_print": 10**12,
        }

    @override
    def attach(self, module: nn.Module, blocks: Sequence[Block], unused: Collection[str] = ()) -> None:
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        require_dimensions(self.shapes, "DeepSpeed")
        if not self.divides:
            super().attach(module, blocks, unused)
            return
        # Whole weights stay on the host: the first initialize moves and divides them one by one.
        self.module = self.model = module
        move_buffers(module, self.device)
        _hold_inner_layers(module)
        if held(module):  # initialize would have rank 0 send them all first, and each rank would hold them whole
            self._init(module=module, config_dict_or_path=self._config(1), dtype=torch.float32)

    @override
    def begin(self, groups: Sequence[ParamGroup], moments: OptimizerState | None = None) -> None:
        before = self._held()
        self.end()
        self._thaw(groups)
        parameters = dict(self.module.named_parameters())
        self._names = [name for group in groups for name in group.names]
        trains = {name: parameters[name] for name in self._names}
        optimizer: torch.optim.Optimizer = OneGroup(trains.values(), self._step_shares)
        if not self._stage:
            self._new_optimizer(groups, trains)
            optimizer, self._masters = self.optimizer, trains
        config = self._config(sum(self.shapes[name].numel() for name in self._names))
        self.model = self._engine = self._initialize(model=self.module, optimizer=optimizer, config=config)[0]
        self._engine.torch_autocast_z0_gradscaler = None  # its own loss scaling, see LossScale
        self._engine.optimizer.torch_autocast_gradscaler = None
        if self._stage:
            self._find_shares(parameters)
            self._new_optimizer(groups, self._masters)
        for name, state in self._go_on(before, moments).items():
            self.optimizer.state[self._masters[name]] = state

    def _find_shares(self, parameters: Mapping[str, nn.Parameter]) -> None:
        zero = self._engine.optimizer
        if self._stage == 3:  # noqa: PLR2004
            flats, members = zero.fp32_partitioned_groups_flat, zero.fp16_groups
        else:
            flats, members = zero.single_partition_of_fp32_groups, zero.bit16_groups
        names = {id(parameter): name for name, parameter in parameters.items()}
        self._names = [names[id(parameter)] for group in members for parameter in group]
        for flat, group in zip(flats, members, strict=True):
            sizes = {name: self.shapes[name].numel() for name in (names[id(parameter)] for parameter in group)}
            if self._stage == 3:  # noqa: PLR2004
                shares = shares_of_each(sizes, self.rank, self.world_size)
            else:
                shares = shares_of_all(sizes, flat.numel(), self.rank)
            self._flats[flat] = list(shares)
            self._shares |= shares
            self._masters |= {
                name: nn.Parameter(flat.detach()[share.low : share.high]) for name, share in shares.items()
            }

    def _step_shares(self, flats: Sequence[Tensor]) -> None:
        for flat in flats:
            assert flat.grad is not None  # ZeRO steps with gradients only
            for name in self._flats[flat]:
                self._masters[name].grad = flat.grad[self._shares[name].low : self._shares[name].high]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _held(self) -> Held:
        states = {name: self.optimizer.state.get(master) for name, master in self._masters.items()}
        begun = {name: dict(state) for name, state in states.items() if state}
        return Held(self._names, begun, self._shares, sum(flat.numel() for flat in self._flats))

    def _go_on(self, before: Held, moments: OptimizerState | None) -> dict[str, dict[str, Tensor]]:
        """Return this rank's shares of the state that parameters continue with: of the phase before, or whole `moments`."""
        if moments is None and self._stage in (0, 3):
            return {name: dict(state) for name, state in before.states.items() if name in self._masters}
        wholes = self._wholes(before) if moments is None else _entries(moments)
        result: dict[str, dict[str, Tensor]] = {}
        for name, key, whole in wholes:
            if name in self._masters:
                share = self._shares[name].of(whole) if name in self._shares and whole.dim() else whole.detach()
                result.setdefault(name, {})[key] = share.to(self._masters[name].device, copy=True)
        return result

    def _wholes(self, held: Held) -> Iterator[tuple[str, str, Tensor]]:
        """Yield (name, entry, whole tensor) of the optimizer's state, in the same order on every rank. Collective."""
        if self._stage in (0, 3):
            for name, key, value in _entries(held.states):
                shared = self._stage and value.dim()
                shape = self.shapes[name]
                yield name, key, self._gather(value)[: shape.numel()].view(shape) if shared else value
            return
        steps = self.all_reduce(held.steps(), dist.ReduceOp.MAX).tolist()
        begun = {name: torch.tensor(step) for name, step in zip(held.names, steps, strict=True) if step >= 0}
        sizes = [self.shapes[name].numel() for name in held.names]
        for key in MOMENTS[self.recipe.optimizer] if begun else ():
            row = self._gather(held.row(key).to(self.device))
            for name, whole in zip(held.names, torch.split(row[: sum(sizes)], sizes), strict=True):
                if name in begun:
                    yield name, key, whole.view(self.shapes[name])
        if self.recipe.optimizer == "AdamW":
            yield from ((name, "step", step) for name, step in begun.items())

    def _gather(self, share: Tensor) -> Tensor:
        """Return the shares of all ranks in a row. Collective."""
        whole = share.new_empty(share.numel() * self.world_size)
        dist.all_gather_into_tensor(whole, share.detach().contiguous())
        return whole

    @override
    def end(self) -> None:
        if self._engine is None:
            return
        for parameter in self.module.parameters():
            parameter.grad = None
            parameter.__dict__.pop("_z3_optimizer", None)
        # destroy() leaves these behind: each would keep the old engine, its moments with it, and call it again.
        self._engine.module_forward_pre_hook.remove()
        self._engine.module_forward_post_hook.remove()
        for part in self.module.modules():
            for left in ("pre_bwd_fn", "post_bwd_fn", "applied_pre_backward_ref_cnt", "ds_grads_remaining"):
                part.__dict__.pop(left, None)
        self._engine.destroy()
        self._engine, self.model = None, self.module
        self._names, self._flats, self._shares, self._masters = [], {}, {}, {}
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()  # what lies in the flat tensors
        gc.collect()  # the engine is full of cycles, and its gradient hooks stay with it

    @override
    def micro_step(self, *, last: bool) -> AbstractContextManager[Any]:
        return self.autocast()

    @override
    def backward(self, loss: Tensor, *, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        if self.loss_scale and self._stage:
            self._engine.optimizer.override_loss_scale(self.loss_scale.state()[0])
        self._engine.backward(loss if self._stage else self._scaled(loss))

    @override
    def step(self) -> None:
        if not self._stage:
            self._take_step(self._masters.values())
            return
        self._engine.step()
        skip = torch.tensor(bool(self._engine.optimizer.overflow), device=self.device)
        self._skips.append(skip)
        if self.loss_scale:
            self.loss_scale.update(skip)

    @override
    def optimizer_state(self) -> OptimizerState:
        result: dict[str, dict[str, Tensor]] = {}
        for name, key, whole in self._wholes(self._held()):
            if self.rank == 0:
                result.setdefault(name, {})[key] = whole.to("cpu", copy=True)
        return result

    # The weights of stage 3, once the first phase has divided them.

    def _divided(self) -> dict[str, Any]:
        parameters = dict(self.module.named_parameters())
        return {name: parameter for name, parameter in parameters.items() if hasattr(parameter, "ds_tensor")}

    @override
    def weights(self, names: Collection[str]) -> dict[str, Tensor]:
        if not (divided := self._divided()):
            return super().weights(names)
        result = {}
        for name in [name for name in divided if name in names]:  # in the same order on every rank
            shape = self.shapes[name]
            whole = self._gather(divided[name].ds_tensor)[: shape.numel()].view(shape)
            if self.rank == 0:
                result[name] = whole.to("cpu", copy=True)
        return result

    @override
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        if not (divided := self._divided()):
            super().load_weights(weights)
            return
        buffers = persistent_buffers(self.module)
        load_whole(self.module, {name: tensor for name, tensor in weights.items() if name in buffers})
        for name in divided.keys() & weights.keys():
            place = divided[name].ds_tensor
            place.copy_(Share(0, len(place), self.rank * len(place)).of(weights[name]))
            if _is_whole(divided[name]):
                divided[name].data.copy_(weights[name])

    @override
    def checksums(self) -> Tensor:
        if not (divided := self._divided()):
            return super().checksums()
        whole, shares = torch.zeros(2, len(divided), dtype=torch.int64)
        for number, (name, parameter) in enumerate(divided.items()):
            if _is_whole(parameter):
                whole[number] = bit_sum(parameter, salt=number)
            else:
                share = parameter.ds_tensor
                first = self.rank * share.numel()
                mine = max(0, self.shapes[name].numel() - first)
                shares[number] = bit_sum(share[:mine], salt=number, first=first)
        return whole + self.all_reduce(shares)


def _entries(states: OptimizerState) -> Iterator[tuple[str, str, Tensor]]:
    for name, state in states.items():
        for key, value in state.items():
            yield name, key, value


def _hold_inner_layers(module: nn.Module) -> None:
    """Have stage 3 gather an adapted layer's weights for the whole adapter around it, not for that layer's own turn alone.

    Some of PEFT's layers (DEFT) take a weight before the inner layer computes and use it after, when it would be gone.
    """
    from deepspeed.runtime.zero import register_external_parameter

    for part in module.modules():
        if isinstance(inner := getattr(part, "base_layer", None), nn.Module):
            for parameter in inner.parameters():
                register_external_parameter(part, parameter)


def _of_own_weights(init: Any) -> Any:
    """Return zero.Init that divides what each rank has itself: all have read the same files, and drawn the same new weights.

    DeepSpeed 0.19 has rank 0 send each parameter first. What arrives is written over pages of mapped files, and each that is written is
    a copy, until all tensors of its file are divided.
    """

    class OfOwnWeights(init):  # type: ignore[misc]
        def _zero_init_param(self, parameter: Any) -> None:
            self._convert_to_deepspeed_param(parameter)
            parameter.partition()

    return OfOwnWeights


def _is_whole(parameter: Any) -> bool:
    """Tell whether a parameter of stage 3 is at hand whole, as small ones are between steps."""
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    return bool(parameter.ds_status == ZeroParamStatus.AVAILABLE)
