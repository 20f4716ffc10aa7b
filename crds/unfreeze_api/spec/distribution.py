"""How many workers train together, and by which engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.grammar.one_of import only_with
from unfreeze_api.grammar.quantities import quantity
from unfreeze_api.spec.template import ResourcesSpec

ACCELERATORS = ("nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi", "gpu.intel.com/i915", "gpu.intel.com/xe")
"""Extended resources that count as accelerators."""
Offload = Literal["None", "Optimizer", "OptimizerAndParameters"]


def accelerators_of(limits: Mapping[str, Any]) -> dict[str, int]:
    """Return how many of each accelerator a pod's limits name."""
    return {name: int(text) for name in ACCELERATORS if (text := str(limits.get(name, ""))).isdecimal()}


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine, and what it does to a model's parameters and gradients."""

    name: str
    whole_gradients: tuple[str, str] | None = None
    """The CEL expression that each worker holds all gradients whole, and what to set for it; None where nothing helps."""
    divides_parameters: bool = False
    """It lays the parameters of a layer into one piece and divides it, so that none may belong to two layers."""
    replicates: bool = False
    """Each worker holds the model as it was loaded, and all of its state."""


ENGINES = (
    Engine("DDP", whole_gradients=("self.distribution.engine == 'DDP'", "distribution.engine DDP"), replicates=True),
    Engine("FSDP", divides_parameters=True),
    Engine(
        "DeepSpeed",
        whole_gradients=(
            "has(self.distribution.deepSpeed) && self.distribution.deepSpeed.zeroStage == 0",
            "deepSpeed.zeroStage 0",
        ),
    ),
)


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

    @property
    def accelerators_per_node(self) -> int:
        """How many accelerators each pod asks for."""
        return sum(accelerators_of(self.resources_per_node.limits or {}).values())

    @property
    def cpus_per_node(self) -> int:
        """How many CPUs each pod has; 0 where nobody says."""
        resources = self.resources_per_node
        text = str((resources.limits or {}).get("cpu") or (resources.requests or {}).get("cpu") or 0)
        cpus = quantity(text) if text[-1] in _PLAIN else None  # in thousands: legal, and nobody's way to count CPUs
        return max(1, int(cpus)) if cpus else 0  # half a CPU runs one thread

    @property
    def scratch_bytes(self) -> int | None:
        """What each pod may write to its node's disk; None where nobody says."""
        limit = (self.resources_per_node.limits or {}).get("ephemeral-storage")
        found = None if limit is None else quantity(str(limit))
        return None if found is None else int(found)


_PLAIN = frozenset("0123456789.m")
"""Last characters of the ways in which people count CPUs."""
