"""DDP: every rank holds the whole model and averages gradients while the backward pass runs."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from typing_extensions import override

from unfreeze_trainer.engines.base import Engine, OptimizerState, Recipe
from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.models.own_type import held

if TYPE_CHECKING:
    from unfreeze_trainer.phases.freezer import ParamGroup


class DDPEngine(Engine):
    """DistributedDataParallel, wrapped again in each phase.

    Notes
    -----
    DDP looks at requires_grad when it wraps. A parameter that is unfrozen later has no hook: its gradient stays local
    and the ranks drift apart without a word. So each phase wraps again, with what it trains.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        cpu = self.device.type == "cpu"
        self._wrapping = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        self._accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="no",  # autocast is ours, around forward and loss
            kwargs_handlers=[
                InitProcessGroupKwargs(backend="gloo" if cpu else "cpu:gloo,cuda:nccl", timeout=recipe.patience),
                self._wrapping,
            ],
        )
        self._trained: dict[str, nn.Parameter] = {}

    @override
    def begin(self, groups: Sequence[ParamGroup], moments: OptimizerState | None = None) -> None:
        if moments is None:
            moments = self._moments()
        self.end()
        self._thaw(groups)
        parameters = dict(self.module.named_parameters())
        self._new_optimizer(groups, parameters)
        self._trained = {name: parameters[name] for group in groups for name in group.names}
        for name in self._trained.keys() & moments.keys():
            # `step` of a fused optimizer lives on the parameter's device like the moments.
            self.optimizer.state[self._trained[name]] = {
                key: value.detach().to(self.device) for key, value in moments[name].items()
            }
        # Weights that lie in the mapped file need no copy from rank 0, which would make pages of their own of them.
        self.module._ddp_params_and_buffers_to_ignore = held(self.module)  # type: ignore[assignment]  # noqa: SLF001
        # Accelerate has no other word yet for what torch now calls forward_sync_buffers.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        # A single worker has nobody to exchange gradients with: evaluation_mode leaves the wrapper away.
        # It lies where it shall be: Accelerate calls the place cpu:0, to which torch copies all that lies on cpu.
        self.model = self._accelerator.prepare_model(
            self.module, device_placement=False, evaluation_mode=self.world_size == 1
        )

    def _moments(self) -> OptimizerState:
        state = {name: self.optimizer.state[parameter] for name, parameter in self._trained.items()}
        return {name: dict(entry) for name, entry in state.items() if entry}

    @override
    def end(self) -> None:
        if self._trained:
            for parameter in self._trained.values():
                parameter.grad = None
            self.model, self._trained = self.module, {}
            self.optimizer.state.clear()
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
        torch.autograd.backward(self._scaled(loss))

    @override
    def expect_missing(self, names: Sequence[str]) -> None:
        self._wrapping.find_unused_parameters = True

    @override
    def step(self) -> None:
        if self.world_size > 1 and not self._wrapping.find_unused_parameters:
            self._require_gradients()
        self._take_step(self._trained.values())

    def _require_gradients(self) -> None:
        if missing := [name for name, parameter in self._trained.items() if parameter.grad is None]:
            raise JobError(
                "UnsupportedModel",
                f"rank {self.rank}: in this step no gradient came for {some_of(missing)}, though it did when the training"
                " began: the model chooses its weights by what it reads, and the other workers wait for them. Train on one"
                " worker, or choose another model",
            )

    @override
    def optimizer_state(self) -> OptimizerState:
        if self.rank:
            return {}
        return {
            name: {key: value.to("cpu", copy=True) for key, value in entry.items()}
            for name, entry in self._moments().items()
        }
