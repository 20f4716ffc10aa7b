"""A group of workers of which one exists, without any messages: engines run in it as they are, on fake tensors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from unfreeze_trainer.engines import Engine

_PLACE = ("RANK", "LOCAL_RANK")
_SIZE = ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
_COMPARING = tuple(
    f"deepspeed.runtime.zero.{name}" for name in ("stage3", "partition_parameters", "partitioned_param_coordinator")
)
"""Modules of DeepSpeed that compare numbers with the other ranks'."""
_JUDGING = tuple(f"deepspeed.runtime.zero.{name}" for name in ("stage3", "stage_1_and_2"))
"""Modules of DeepSpeed that skip a step by its norm."""


@contextmanager
def pretended(world_size: int) -> Iterator[FakeTensorMode]:
    """Be rank 0 of so many workers, on the CPU and on fake tensors. In a process that joins no other group.

    Yields
    ------
    FakeTensorMode
        The mode, which is on within.
    """
    from accelerate.state import AcceleratorState, PartialState
    from torch.testing._internal.distributed.fake_pg import FakeStore

    environment = dict.fromkeys(_PLACE, "0") | dict.fromkeys(_SIZE, str(world_size))
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu"}
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(patch.dict(os.environ, environment))
        enter(patch.object(torch.cuda, "is_available", _no))
        # Fake tensors are where they shall be, and nobody answers what the ranks compare.
        enter(patch.object(nn.Module, "to", _itself))
        enter(patch.object(nn.Module, "float", _itself))  # timm's are called so, and all weights are drawn in float32
        enter(
            patch("torch.nn.init._no_grad_trunc_normal_", _itself)
        )  # would draw until all lie within bounds, and none is told
        enter(patch("torch.nn.parallel.distributed._verify_param_shape_across_processes", _nothing))
        enter(patch("unfreeze_trainer.engines.fsdp.init_device_mesh", _really(_mesh)))
        enter(patch.object(Engine, "all_reduce", _alone))
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
        stack.callback(dist.destroy_process_group)
        stack.callback(PartialState._reset_state)  # noqa: SLF001 - Accelerate has no other word for it
        stack.callback(AcceleratorState._reset_state)  # noqa: SLF001
        for module in [sys.modules[name] for name in _COMPARING if name in sys.modules]:
            enter(patch.object(module, "assert_ints_same_as_other_ranks", _nothing))
        for module in [sys.modules[name] for name in _JUDGING if name in sys.modules]:
            enter(patch.object(module, "is_invalid_grad_norm", _no))
        enter(fake)
        yield fake


def exchange_nothing(engine: Engine) -> None:
    """Have DDP's buckets sent to nobody, after a phase has begun."""
    if isinstance(engine.model, nn.parallel.DistributedDataParallel):
        reducer: Any = _AsItIs(engine.model.reducer)
        engine.model.reducer = reducer
        engine.model.register_comm_hook(None, lambda _, bucket: _ready(bucket.buffer()))


class _AsItIs:
    """DDP's reducer, which does not ask the other ranks for the order of its buckets: they would be as large."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False


def _ready(value: torch.Tensor) -> torch.futures.Future[torch.Tensor]:
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(value)
    return future


def _mesh(*arguments: Any, **options: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(*arguments, **options)


def _really(function: Any) -> Any:
    def without(*arguments: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return function(*arguments, **options)

    return without


def _no(*_: Any) -> bool:
    return False


def _itself(given: Any, *_: Any, **__: Any) -> Any:
    return given


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _alone(_: Engine, tensor: torch.Tensor, *__: Any) -> torch.Tensor:
    return tensor
