"""DeepSpeed ZeRO 0 to 3: replicas of everything (0), or shares of moments (1), gradients (2) and weights (3)."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override

from unfreeze_trainer.engines.base import Engine, OptimizerState, Recipe, bit_sum, load_whole, persistent_buffers

if TYPE_CHECKING:
    from types import ModuleType

    from unfreeze_trainer.phases.blocks import Block
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


@dataclass(frozen=True)
class _Partition:
    """What the optimizer changes as one tensor: this rank's share of some parameters."""

    tensor: Tensor
    """Key of the optimizer's state."""
    names: tuple[str, ...]
    """Of the parameters, in their order."""


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

    Moments go from phase to phase by name, in the shares that they are held in; float32 partitions are made from the
    module's own float32 weights, so that they are exact without being carried. Stage 3 keeps the weights in shares over
    all phases: frozen ones cost their share and nothing else, and are gathered for the forward pass like the others.
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
        if offload != "None" and self.device.type == "cpu":
            log.warning("deepSpeed.offload %s saves nothing here: without an accelerator all is on the host", offload)
        if self.device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        deepspeed = import_deepspeed()
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of every optimizer that is not its own
        # On CPU it would compile its own shared-memory collectives at start: minutes, and a compiler in the image.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._join_group()
        deepspeed.init_distributed()  # takes the group over
        self._initialize = deepspeed.initialize
        self._engine: Any = None
        self._partitions: list[_Partition] = []

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
    def attach(self, module: nn.Module, blocks: Sequence[Block]) -> None:
        if self._stage < 3:  # noqa: PLR2004
            super().attach(module, blocks)
            return
        # Whole weights stay on the host: the first initialize moves and divides them one by one.
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self.module = self.model = module
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                setattr(part, name, buffer.to(self.device))
        _hold_inner_layers(module)

    @override
    def begin(self, groups: Sequence[ParamGroup], moments: OptimizerState | None = None) -> None:
        kept = self._kept() if moments is None else {}
        self.end()
        parameters = dict(self.module.named_parameters())
        self._new_optimizer(groups, parameters)
        trained = sum(self.shapes[name].numel() for group in groups for name in group.names)
        self.model = self._engine = self._initialize(
            model=self.module, optimizer=self.optimizer, config=self._config(trained)
        )[0]
        self._engine.torch_autocast_z0_gradscaler = None  # its own loss scaling, see LossScale
        self._engine.optimizer.torch_autocast_gradscaler = None
        self._partitions = self._find_partitions(groups, parameters)
        for partition in self._partitions:
            if moments:
                kept[partition.names] = self._share_out(partition, moments)
            if state := kept.pop(partition.names, None):
                self.optimizer.state[partition.tensor] = state
        left = {name for names in kept for name in names}
        if parts := left & {name for partition in self._partitions for name in partition.names}:
            raise RuntimeError(f"a group goes on in part only: {sorted(parts)}")

    def _find_partitions(
        self, groups: Sequence[ParamGroup], parameters: Mapping[str, nn.Parameter]
    ) -> list[_Partition]:
        if self._stage == 0:
            return [_Partition(parameters[name], (name,)) for group in groups for name in group.names]
        zero = self._engine.optimizer
        if self._stage == 3:  # noqa: PLR2004
            tensors, members = zero.fp32_partitioned_groups_flat, zero.fp16_groups
        else:
            tensors, members = zero.single_partition_of_fp32_groups, zero.bit16_groups
        names = {id(parameter): name for name, parameter in parameters.items()}
        return [
            _Partition(tensor, tuple(names[id(parameter)] for parameter in group))
            for tensor, group in zip(tensors, members, strict=True)
        ]

    def _kept(self) -> dict[tuple[str, ...], dict[str, Tensor]]:
        """Return the optimizer's state by names of a partition, in this rank's share."""
        states = {partition.names: self.optimizer.state.get(partition.tensor) for partition in self._partitions}
        return {names: dict(state) for names, state in states.items() if state}

    def _share_out(self, partition: _Partition, moments: OptimizerState) -> dict[str, Tensor]:
        """Return this rank's share of whole moments; a partition goes on whole or starts anew whole."""
        states = [moments.get(name, {}) for name in partition.names]
        if not any(states):
            return {}
        if not all(states):
            raise RuntimeError(f"a group goes on in part only: {partition.names}")
        shares: dict[str, Tensor] = {}
        for key, value in states[0].items():
            if value.dim() == 0:  # the step count
                shares[key] = value.detach().to(partition.tensor.device, copy=True)
                continue
            shares[key] = torch.zeros_like(partition.tensor)
            wholes = [state[key].detach() for state in states]
            if self._stage == 0:
                shares[key].copy_(wholes[0])
            elif self._stage == 3:  # noqa: PLR2004 - each parameter is divided by itself
                sizes = [self._share_size(whole.numel()) for whole in wholes]
                for place, whole in zip(torch.split(shares[key], sizes), wholes, strict=True):
                    self._copy_share(place, whole)
            else:  # the group is divided as one long tensor
                self._copy_share(shares[key], torch.cat([whole.flatten() for whole in wholes]))
        return shares

    def _share_size(self, elements: int) -> int:
        return -(-elements // self.world_size)

    def _copy_share(self, place: Tensor, whole: Tensor) -> None:
        """Copy this rank's share of a whole tensor; the last ranks' shares may be short, what is left is padding."""
        mine = whole.flatten()[self.rank * place.numel() :][: place.numel()]
        place[: mine.numel()].copy_(mine)

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
        self._engine, self._partitions, self.model = None, [], self.module
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()  # float32 partitions
        gc.collect()  # the engine is full of cycles, and its gradient hooks stay with it

    @override
    def micro_step(self, *, last: bool) -> AbstractContextManager[Any]:
        return self.autocast()

    @override
    def backward(self, loss: Tensor, *, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        if self.loss_scale and self._stage:
            self._engine.optimizer.override_loss_scale(self.loss_scale.value)
        self._engine.backward(loss if self._stage else self._scaled(loss))

    @override
    def step(self) -> None:
        if not self._stage:
            self._take_step([partition.tensor for partition in self._partitions])
            return
        self._engine.step()
        self.skipped = bool(self._engine.optimizer.overflow)
        if self.loss_scale:
            self.loss_scale.update(overflow=self.skipped)

    @override
    def optimizer_state(self) -> OptimizerState:
        result: dict[str, dict[str, Tensor]] = {}
        for partition in self._partitions:
            for key, value in self.optimizer.state.get(partition.tensor, {}).items():
                wholes = [value] * len(partition.names) if value.dim() == 0 else self._join(partition.names, value)
                if self.rank == 0:
                    for name, whole in zip(partition.names, wholes, strict=True):
                        result.setdefault(name, {})[key] = whole.to("cpu", copy=True)
        return result

    def _join(self, names: Sequence[str], value: Tensor) -> list[Tensor]:
        """Return the whole tensors of parameters that are held in shares as one partition. Collective."""
        if self._stage == 0:
            return [value]
        shapes = [self.shapes[name] for name in names]
        if self._stage == 3:  # noqa: PLR2004
            shares = torch.split(value, [self._share_size(shape.numel()) for shape in shapes])
            rows = [self._gather(share)[: shape.numel()] for share, shape in zip(shares, shapes, strict=True)]
        else:
            sizes = [shape.numel() for shape in shapes]
            rows = list(torch.split(self._gather(value)[: sum(sizes)], sizes))
        return [row.view(shape) for row, shape in zip(rows, shapes, strict=True)]

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
            self._copy_share(divided[name].ds_tensor, weights[name])
            if _is_whole(divided[name]):
                divided[name].data.copy_(weights[name])

    @override
    def checksums(self) -> Tensor:
        if not (divided := self._divided()):
            return super().checksums()
        whole, shares = torch.zeros(2, len(divided), dtype=torch.int64)
        for number, (name, parameter) in enumerate(divided.items()):
            if _is_whole(parameter):
                whole[number] = bit_sum(parameter)
            else:
                share = parameter.ds_tensor
                mine = max(0, self.shapes[name].numel() - self.rank * share.numel())
                shares[number] = bit_sum(share[:mine])
        return whole + self.all_reduce(shares)


def _hold_inner_layers(module: nn.Module) -> None:
    """Have stage 3 gather an adapted layer's weights for the whole adapter around it, not for that layer's own turn alone.

    Some of PEFT's layers (DEFT) take a weight before the inner layer computes and use it after, when it would be gone.
    """
    from deepspeed.runtime.zero import register_external_parameter

    for part in module.modules():
        if isinstance(inner := getattr(part, "base_layer", None), nn.Module):
            for parameter in inner.parameters():
                register_external_parameter(part, parameter)


def _is_whole(parameter: Any) -> bool:
    """Tell whether a parameter of stage 3 is at hand whole, as small ones are between steps."""
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    return bool(parameter.ds_status == ZeroParamStatus.AVAILABLE)
