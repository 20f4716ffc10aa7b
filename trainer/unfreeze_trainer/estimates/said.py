"""What a decoder holds while it says texts by itself, on fake tensors."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from unfreeze_trainer.training.saying import ROWS, TOKENS

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.tasks import Batch, Task


def longest_said(job: ResolvedJob, task: Task) -> Batch:
    """Return what a decoder has read when it has said the last token of the longest question; nothing where it is asked none.

    Of models with an encoder nothing: what they keep of what they say is less than their encoder holds.
    """
    spec = job.training.evaluate.generate
    if spec is None or job.task.type != "CausalLM":
        return {}
    longest = 0
    for index in range(min(task.splits["validation"], spec.rows or ROWS)):
        question = task.asked("validation", index)
        if question is None:
            return {}
        most = spec.max_tokens or TOKENS
        room = most if question.room is None else min(most, question.room)
        if room > 0:
            longest = max(longest, len(question.inputs["input_ids"]) + room)
    return {"input_ids": torch.zeros(1, longest, dtype=torch.int64)} if longest else {}


@torch.no_grad()
def hold_said(engine: Engine, said: Batch) -> None:
    """Hold for a moment what a decoder keeps of each layer when it has said the last token of `longest_said`; nothing of nothing."""
    if not said:
        return
    module: Any = engine.module
    module.eval()
    bare = module.get_base_model() if hasattr(module, "get_base_model") else module  # PEFT's wrapper names no options
    takes = inspect.signature(bare.forward).parameters
    options: dict[str, Any] = {"use_cache": True} if "use_cache" in takes else {}
    options |= {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    with engine.autocast():
        module(**said, **options)
