"""The loops that one would write by hand: plain torch, DDP, FSDP2 and DeepSpeed, on the same work as ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.support.turns import BATCH, Texts, freeze, held
from unfreeze_trainer.engines.deepspeed import import_deepspeed
from unfreeze_trainer.feed import Feed


def by_hand(task: Texts, engine: str = "DDP") -> Iterator[None]:
    """Take one step at each turn; held as the others are, so that the hold costs all the same.

    Parameters
    ----------
    task
        What is trained.
    engine
        DDP, FSDP or ZeRO-1 to 3, where there are several workers.
    """

    def work(hold: Callable[[], None]) -> None:
        for _ in _hand_written(task, engine):
            hold()

    return held(work)


def _hand_written(task: Texts, engine: str) -> Iterator[None]:
    """Yield after each step."""
    loaded = task.build_model()
    module = loaded.module.train()
    freeze(task, loaded)
    world = dist.get_world_size() if dist.is_initialized() else 1
    if engine.startswith("ZeRO"):
        yield from _zero(task, module, stage=int(engine[-1]))
        return
    if engine == "FSDP":
        module = _sharded(module)
    elif world > 1:
        module = nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)
    optimizer = _optimizer(module)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for batch in _batches(task):
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(_loss(module, batch))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        yield


def _zero(task: Texts, module: nn.Module, *, stage: int) -> Iterator[None]:
    deepspeed = import_deepspeed()
    config = {
        "train_micro_batch_size_per_gpu": BATCH // dist.get_world_size(),
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**12,
    }
    engine = deepspeed.initialize(model=module, optimizer=_optimizer(module), config=config)[0]
    for batch in _batches(task):
        engine.backward(_loss(engine, batch))
        engine.step()
        yield


def _sharded(module: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    bert: Any = getattr(module, "base_model", module)
    layers = [part for part in bert.modules() if type(part).__name__ == "BertLayer"]
    for part in [*layers, module]:
        # gloo has no mean
        fully_shard(part).set_force_sum_reduction_for_comms(torch.cuda.device_count() == 0)
    return module


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    decay = [parameter for parameter in parameters if parameter.ndim > 1]
    rest = [parameter for parameter in parameters if parameter.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-4, weight_decay=0.01, fused=True)


def _batches(task: Texts) -> Iterator[dict[str, Tensor]]:
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    feed = Feed(task, seed=0, batch_size=BATCH, accumulate=1, rank=rank, world_size=world)
    return (micro.tensors for _, step in feed.steps(0, 10**6) for micro in step)


def _loss(module: Any, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(module(input_ids=batch["input_ids"]).logits, batch["labels"])
