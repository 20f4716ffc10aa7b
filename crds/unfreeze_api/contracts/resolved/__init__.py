"""job.json, by which the operator tells the trainer its job: everything is said in it, and the trainer reads nothing else.

`resolve` of each part completes what the manifest says of it.
"""

from unfreeze_api.contracts.resolved.data import Columns, Dataset, HeldOut, ResolvedData
from unfreeze_api.contracts.resolved.execution import (
    ResolvedBudget,
    ResolvedCache,
    ResolvedDistribution,
    ResolvedMlflow,
    ResolvedOutput,
    ResolvedTracking,
    ResolvedWandb,
)
from unfreeze_api.contracts.resolved.job import ResolvedJob, Semantics, schema_version
from unfreeze_api.contracts.resolved.judgement import ResolvedGuard, ResolvedStage
from unfreeze_api.contracts.resolved.model import ResolvedModel, Tower
from unfreeze_api.contracts.resolved.places import Location
from unfreeze_api.contracts.resolved.strategy import LearningRate, ResolvedStrategy

__all__ = [
    "Columns",
    "Dataset",
    "HeldOut",
    "LearningRate",
    "Location",
    "ResolvedBudget",
    "ResolvedCache",
    "ResolvedData",
    "ResolvedDistribution",
    "ResolvedGuard",
    "ResolvedJob",
    "ResolvedMlflow",
    "ResolvedModel",
    "ResolvedOutput",
    "ResolvedStage",
    "ResolvedStrategy",
    "ResolvedTracking",
    "ResolvedWandb",
    "Semantics",
    "Tower",
    "schema_version",
]
