"""What cannot go together follows from what kinds say of themselves; each message names both sides and the way out."""

from dataclasses import replace
from typing import get_args

import pytest

from unfreeze_api.adapters import ADAPTERS
from unfreeze_api.adapters.base import AdapterKind
from unfreeze_api.apiserver.cel import evaluate
from unfreeze_api.grammar.one_of import Variant
from unfreeze_api.spec.combinations import ADAPTER_RULES, adapter_rules
from unfreeze_api.spec.distribution import ENGINES, DistributionSpec, Engine
from unfreeze_api.spec.strategy import STRATEGIES, StrategyKind
from unfreeze_api.tasks import TASKS

MIXTURE = AdapterKind(
    "Mixture",
    "routes what modules take",
    whole_gradients="counts the gradients of each expert",
    all_blocks="routes through all blocks at once",
)
REPLAY = StrategyKind("Replay", "trains what it has forgotten", no_adapter="compares weights, and an adapter has none")
SLICES = StrategyKind("Slices", "trains every second block", some_blocks=True)
ZERO = Engine("Zero")


def judged(**spec):
    """Return what the rules of these and today's kinds say of a spec."""
    rules = [
        rule.to_schema()
        for rule in adapter_rules((*ADAPTERS, MIXTURE), (*STRATEGIES, REPLAY, SLICES), (*ENGINES, ZERO), TASKS)
    ]
    whole = {"strategy": {"type": "FullFineTuning"}, "distribution": {"engine": "DDP"}}
    whole |= {"task": {"type": "TextClassification"}} | spec
    named = {"type": "object", "properties": {"type": {"type": "string"}}}
    deep_speed = {"type": "object", "properties": {"zeroStage": {"type": "integer"}}}
    distribution = {"type": "object", "properties": {"engine": {"type": "string"}, "deepSpeed": deep_speed}}
    properties = dict.fromkeys(("strategy", "task", "adapter"), named) | {"distribution": distribution}
    schema = {"type": "object", "properties": properties, "x-kubernetes-validations": rules}
    return [cause.message.partition(": ")[2] for cause in evaluate(whole, None, schema)]


@pytest.mark.parametrize(
    ("spec", "both", "way_out"),
    [
        (
            {"adapter": {"type": "LoRA"}, "strategy": {"type": "Replay"}},
            "Replay compares weights, and an adapter has none",
            "remove adapter, or choose strategy.type FullFineTuning",
        ),
        (
            {"adapter": {"type": "Mixture"}, "strategy": {"type": "PartialFineTuning"}},
            "Mixture routes through all blocks at once, and PartialFineTuning, GradualUnfreezing, Auto and Slices train some",
            "or adapter.type LoRA, Bottleneck, IA3 or PEFT",
        ),
        (
            {"adapter": {"type": "AdaLoRA"}, "strategy": {"type": "Slices"}},
            "all of them train at once, and PartialFineTuning, GradualUnfreezing, Auto and Slices train some blocks",
            "choose strategy.type FullFineTuning or LinearProbeThenFineTune, or",
        ),
        (
            {"adapter": {"type": "Mixture"}, "distribution": {"engine": "Zero"}},
            "Mixture counts the gradients of each expert, and FSDP, DeepSpeed and Zero hold gradients in shares",
            "choose distribution.engine DDP, deepSpeed.zeroStage 0, or adapter.type LoRA,",
        ),
        (
            {"adapter": {"type": "PTuning"}, "task": {"type": "ImageClassification"}},
            "PTuning, PrefixTuning and PromptTuning stands before the words of a text, and there are none in",
            "or task.type CausalLM, Seq2SeqLM, TextClassification",
        ),
    ],
)
def test_a_kind_is_kept_from_what_it_cannot_do(spec, both, way_out):
    (message,) = judged(**spec)
    assert both in message
    assert way_out in message


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"strategy": {"type": "Replay"}},
        {"adapter": {"type": "LoRA"}, "strategy": {"type": "Slices"}},
        {"adapter": {"type": "Mixture"}},
        {"adapter": {"type": "Mixture"}, "distribution": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 0}}},
    ],
)
def test_what_goes_together_is_left_alone(spec):
    assert judged(**spec) == []


def test_each_kind_says_of_itself_what_there_is_to_say():
    assert get_args(DistributionSpec.model_fields["engine"].annotation) == tuple(engine.name for engine in ENGINES)
    assert all(isinstance(kind, StrategyKind) and isinstance(kind, Variant) for kind in STRATEGIES)
    rules = {rule.rule for rule in ADAPTER_RULES}
    assert {rule.rule for rule in adapter_rules()} <= rules


def test_kinds_of_one_reason_are_told_together():
    again = replace(MIXTURE, name="Experts")
    (rule,) = (
        rule
        for rule in adapter_rules((*ADAPTERS, MIXTURE, again))
        if "['Mixture', 'Experts']" in rule.rule and "strategy" in rule.rule
    )
    assert rule.message.startswith("each of Mixture and Experts routes")
