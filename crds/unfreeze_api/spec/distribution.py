"""How many workers train together, and by which engine."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.grammar.one_of import only_with
from unfreeze_api.spec.template import ResourcesSpec

Offload = Literal["None", "Optimizer", "OptimizerAndParameters"]


class DeepSpeedSpec(Model):
    """Options of DeepSpeed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.offload == 'None' || self.zeroStage > 0",
            "offload moves a worker's share to the host, and stage 0 has no shares: set zeroStage to 1, 2 or 3",
            ".offload",
        ),
        Rule(
            "self.offload != 'OptimizerAndParameters' || self.zeroStage == 3",
            "only stage 3 holds shares of the weights: set zeroStage to 3, or offload to Optimizer",
            ".offload",
        ),
    )

    zero_stage: int = Field(default=2, ge=0, le=3)
    """What is sharded over the workers: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too."""
    offload: Offload = "None"
    """What lies in the host's memory in place of the accelerator's. Optimizer: a worker's share of the optimizer's state,
    float32 weights and gradients, and the step is taken there (ZeRO-Offload, Ren et al. 2021, arXiv 2101.06840).
    OptimizerAndParameters: its share of the weights too, with zeroStage 3. It saves accelerator memory and costs time;
    resourcesPerNode must leave the memory for it."""


class DistributionSpec(Model):
    """How many pods and workers train together, and by which engine."""

    rules: ClassVar[tuple[Rule, ...]] = (
        only_with("deepSpeed", "engine", "DeepSpeed"),
        Rule(
            "!has(self.numProcPerNode) || type(self.numProcPerNode) == int || string(self.numProcPerNode) == 'Auto'",
            "numProcPerNode must be Auto or a number without quotes",
            ".numProcPerNode",
        ),
    )

    num_nodes: int = Field(default=1, ge=1, le=512)
    """Pods that train together."""
    num_proc_per_node: int | Literal["Auto"] = Field(
        default="Auto",
        json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 16, "minimum": 1, "maximum": 64},
    )
    """Workers in each pod. Auto: one for each accelerator in resourcesPerNode.limits, else one."""
    engine: Literal["DDP", "FSDP", "DeepSpeed"] = "DDP"
    """What keeps the workers in step: DDP replicates the model, FSDP shards it with its training state, DeepSpeed shards
    what zeroStage says."""
    deep_speed: DeepSpeedSpec | None = None
    """Options of the engine DeepSpeed, and of no other."""
    resources_per_node: ResourcesSpec = ResourcesSpec()
    """Resources of each pod."""
