"""DDP: every rank holds the whole model and averages gradients while the backward pass runs."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from typing_extensions import override

from unfreeze_trainer.engines.base import Engine, OptimizerState, Recipe

if TYPE_CHECKING:
    from unfreeze_trainer.phases.freezer import ParamGroup


class DDPEngine(Engine):
    """DistributedDataParallel, wrapped anew in each phase.

    Notes
    -----
    DDP looks at requires_grad when it wraps. A parameter that is unfrozen later has no hook: its gradient stays local
    and the ranks drift apart without a word. So each phase wraps again, with what it trains.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        cpu = self.device.type == "cpu"
        self._accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="no",  # autocast is ours, around forward and loss
            kwargs_handlers=[
                InitProcessGroupKwargs(backend="gloo" if cpu else "cpu:gloo,cuda:nccl"),
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            ],
        )
        self._parameters: list[nn.Parameter] = []

    @override
    def begin(self, groups: Sequence[ParamGroup], state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.end()
        self._new_optimizer(groups)
        parameters = dict(self.module.named_parameters())
        self._names = [name for group in groups for name in group.names]
        self._parameters = [parameters[name] for name in self._names]
        for name, parameter in zip(self._names, self._parameters, strict=True):
            if name in state:
                # `step` of a fused optimizer lives on the parameter's device like the moments.
                self.optimizer.state[parameter] = {
                    key: value.detach().to(self.device, copy=True) for key, value in state[name].items()
                }
        # Accelerate has no other word yet for what torch now calls forward_sync_buffers.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        # A single worker has nobody to exchange gradients with: evaluation_mode leaves the wrapper away.
        self.model = self._accelerator.prepare_model(self.module, evaluation_mode=self.world_size == 1)

    @override
    def end(self) -> None:
        if self._parameters:
            for parameter in self._parameters:
                parameter.grad = None
            self.model, self._parameters = self.module, []
            self._accelerator.free_memory()
            gc.collect()  # DDP's hooks leave the parameters when the old wrapper is gone

    @override
    def micro_step(self, *, last: bool) -> AbstractContextManager[Any]:
        context = ExitStack()
        if not last and isinstance(self.model, nn.parallel.DistributedDataParallel):
            context.enter_context(self.model.no_sync())
        context.enter_context(self.autocast())
        return context

    @override
    def backward(self, loss: Tensor, *, last: bool) -> None:
        torch.autograd.backward(loss)

    @override
    def step(self) -> None:
        if self.recipe.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self._parameters, self.recipe.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @override
    def optimizer_state(self) -> OptimizerState:
        pairs = zip(self._names, self._parameters, strict=True)
        return {
            name: dict(self.optimizer.state[parameter]) for name, parameter in pairs if self.optimizer.state[parameter]
        }
