"""DeepSpeed ZeRO 1 and 2: every rank holds the weights, and a share of moments (1) and of gradients (2)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from unfreeze_trainer.engines.base import Engine, OptimizerState, Recipe

if TYPE_CHECKING:
    from unfreeze_trainer.phases.freezer import ParamGroup


class DeepSpeedEngine(Engine):
    """ZeRO by the recipe *rebuild*: each phase destroys the engine and initializes it with the new trainable set.

    Notes
    -----
    ZeRO fixes what it trains at initialize: a parameter that is unfrozen later never trains, one that is frozen later
    still moves by momentum and decay. The other right recipe, *gate* (everything initialized, frozen groups held by
    learning rate 0), keeps moments and float32 partitions of frozen blocks: 12 bytes a parameter over the ranks, so
    that a probe of the head costs as much as full fine-tuning. Rebuild holds them for what trains, and costs one
    initialize per phase.

    Moments go from phase to phase by name; float32 partitions are made from the module's own float32 weights, so that
    they are exact without being carried.
    """

    def __init__(self, recipe: Recipe, *, zero_stage: int) -> None:
        super().__init__(recipe)
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        if self.device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed
        from accelerate import Accelerator
        from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # On CPU it would compile its own shared-memory collectives at start: minutes, and a compiler in the image.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        backend = "gloo" if self.device.type == "cpu" else "cpu:gloo,cuda:nccl"
        self._accelerator = Accelerator(
            mixed_precision="no",  # autocast is ours, around forward and loss
            deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=self._config(zero_stage)),
            kwargs_handlers=[InitProcessGroupKwargs(backend=backend)],
        )
        self._engine: Any = None

    def _config(self, zero_stage: int) -> dict[str, Any]:
        # Neither optimizer nor scheduler stands here: both are ours, its schedulers flatten groups.
        return {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only divides by it; batches are ours
            "gradient_accumulation_steps": 1,  # the boundary is set by hand
            "gradient_clipping": self.recipe.max_grad_norm,
            "zero_optimization": {"stage": zero_stage, "overlap_comm": self.device.type != "cpu"},
            "zero_allow_untested_optimizer": True,
            # The engine switches an autocast from outside off unless it has one of its own; without "safe modules"
            # gradients are still exchanged in float32.
            "torch_autocast": {"enabled": self.bfloat16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
            "steps_per_print": 10**12,
        }

    @override
    def begin(self, groups: Sequence[ParamGroup], state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.end()
        self._new_optimizer(groups)
        self._engine, _ = self._accelerator.prepare(self.module, self.optimizer)
        self.model, self._zero = self._engine, self._engine.optimizer
        names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        self._names = [[names[id(parameter)] for parameter in group] for group in self._zero.bit16_groups]
        for partition, group_names in zip(self._zero.single_partition_of_fp32_groups, self._names, strict=True):
            self._restore(partition, [state.get(name, {}) for name in group_names], group_names)

    def _restore(self, partition: Tensor, states: list[Mapping[str, Tensor]], names: list[str]) -> None:
        """Put this rank's share of a group's moments into the optimizer; a group goes on whole or starts anew whole."""
        if not any(states):
            return
        if not all(states):
            raise RuntimeError(f"a group goes on in part only: {names}")
        restored: dict[str, Tensor] = {}
        for key, value in states[0].items():
            if value.dim() == 0:  # the step count
                restored[key] = value.detach().to(self.device, copy=True)
                continue
            whole = torch.cat([state[key].detach().to(self.device).flatten() for state in states])
            share = torch.zeros_like(partition)
            first = self.rank * partition.numel()
            mine = whole[first : first + partition.numel()]
            share[: mine.numel()] = mine
            restored[key] = share
        self.optimizer.state[partition] = restored

    @override
    def end(self) -> None:
        if self._engine is not None:
            for parameter in self.module.parameters():
                parameter.grad = None
            self._engine, self._zero, self.model = None, None, self.module
            self._accelerator.free_memory()  # destroys the engine: its hooks leave the parameters

    @override
    def micro_step(self, *, last: bool) -> AbstractContextManager[Any]:
        return self.autocast()

    @override
    def backward(self, loss: Tensor, *, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        self._engine.backward(loss)

    @override
    def step(self) -> None:
        self._engine.step()

    @override
    def optimizer_state(self) -> OptimizerState:
        parameters = dict(self.module.named_parameters())
        result: OptimizerState = {}
        for partition, names in zip(self._zero.single_partition_of_fp32_groups, self._names, strict=True):
            state = self.optimizer.state.get(partition, {})
            for name in names if state else ():
                result[name] = {}
            for key, value in state.items():
                if value.dim() == 0:
                    for name in names:
                        result[name][key] = value.clone()
                    continue
                whole = value.new_empty(value.numel() * self.world_size)
                dist.all_gather_into_tensor(whole, value.contiguous())
                offset = 0
                for name in names:
                    shape = parameters[name].shape
                    result[name][key] = whole[offset : offset + shape.numel()].view(shape).clone()
                    offset += shape.numel()
        return result
