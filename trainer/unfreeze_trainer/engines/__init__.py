"""Engines keep the workers in step: one interface, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfreeze_trainer.engines.base import Engine, OptimizerState, Recipe, refuse_pickles

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob

__all__ = ["Engine", "OptimizerState", "Recipe", "open_engine"]


def open_engine(job: ResolvedJob) -> Engine:
    """Join the process group that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR ...), return the engine."""
    refuse_pickles()
    recipe = Recipe.of(job)
    if job.distribution.engine == "DeepSpeed":
        from unfreeze_trainer.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(recipe, zero_stage=job.distribution.zero_stage, offload=job.distribution.offload)
    if job.distribution.engine == "FSDP":
        from unfreeze_trainer.engines.fsdp import FSDPEngine

        return FSDPEngine(recipe)
    from unfreeze_trainer.engines.ddp import DDPEngine

    return DDPEngine(recipe)
