"""The strategy and its learning rates in job.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from unfreeze_api.grammar.model import Model, Since
from unfreeze_api.grammar.one_of import OneOf
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_api.spec.strategy import (
    STRATEGIES,
    LearningRateSpec,
    Schedule,
    StrategySpec,
    usual_backbone_rate,
    usual_warmup_ratio,
)

if TYPE_CHECKING:
    pass


class LearningRate(Model):
    """Learning rates with every default filled in."""

    head: float
    backbone: float
    layer_decay: float
    schedule: Schedule
    scope: Literal["Job", "Phase"]
    warmup_ratio: float
    rewarm_steps: int
    """0 without."""
    rates: Annotated[Literal["Given", "Auto"], Since(2)] = "Given"
    """Auto: head and backbone are what a range test starts from."""

    @classmethod
    def resolve(cls, spec: LearningRateSpec, usual_backbone: float) -> Self:
        """Return the rates; `usual_backbone` is that of the backbone where nobody says another."""
        return cls(
            head=spec.head,
            backbone=spec.backbone or usual_backbone,
            layer_decay=spec.layer_decay,
            schedule=spec.schedule,
            scope=spec.scope,
            warmup_ratio=usual_warmup_ratio(spec.schedule) if spec.warmup_ratio is None else spec.warmup_ratio,
            rewarm_steps=spec.rewarm_steps or 0,
            rates=spec.rates or "Given",
        )


class ResolvedStrategy(OneOf, kinds=STRATEGIES, noun="strategy"):
    """The strategy, with its options; GradualUnfreezing's have either blocksPerPhase or groups, and either epochsPerPhase or
    stepsPerPhase.
    """

    learning_rate: LearningRate
    solver: Annotated[Literal["Gradient", "Closed"] | None, Since(2)] = None

    @classmethod
    def resolve(cls, spec: StrategySpec, adapter: AdapterSpec | None) -> Self:
        """Return the strategy with its options, which say what nobody else has said."""
        strategy = spec.completed()
        usual = usual_backbone_rate(spec.type, spec.learning_rate.head, adapter)
        options = {strategy.kind.field: strategy.options} if strategy.options else {}
        rate = LearningRate.resolve(spec.learning_rate, usual)
        if spec.type == "Auto":
            searches = spec.learning_rate.usual and (adapter is None or adapter.base_weights == "Frozen")
            rates = spec.learning_rate.rates or ("Auto" if searches else "Given")
            rate = rate.model_copy(update={"scope": "Phase", "rates": rates})
        return cls(type=spec.type, learning_rate=rate, solver=spec.solver, **options)
