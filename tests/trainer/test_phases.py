"""Strategies compile to phases whose steps, trainable sets and rates hold what the API's descriptions say."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.jobs import make_job
from unfreeze_api.resolve import LearningRate
from unfreeze_trainer.phases.compile import Phase, compile_phases, schedule_factor

BLOCKS = ["embeddings", "layer.0", "layer.1", "layer.2", "pooler", "head"]


def phases(
    strategy: dict[str, Any], epochs: float = 3, steps_per_epoch: int = 10, blocks: list[str] = BLOCKS
) -> list[Phase]:
    job = make_job("/m", "/d.csv", strategy=strategy, training={"epochs": epochs})
    return compile_phases(job, blocks, steps_per_epoch)


def test_feature_extraction_trains_the_head() -> None:
    [phase] = phases({"type": "FeatureExtraction", "learningRate": {"head": 0.01}})
    assert phase == Phase(0, "head", ("head",), {"head": 0.01}, 0, 30)


def test_partial_fine_tuning_trains_the_last_blocks() -> None:
    [phase] = phases({"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 2}})
    assert phase.trainable == ("layer.2", "pooler", "head")
    [phase] = phases({"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 99}})
    assert phase.trainable == tuple(BLOCKS)


def test_full_fine_tuning_decays_from_the_head_down() -> None:
    rate = {"head": 1e-2, "backbone": 1e-3, "layerDecay": 0.5}
    [phase] = phases({"type": "FullFineTuning", "learningRate": rate})
    assert phase.name == "all"
    expected = {
        "head": 1e-2,
        "pooler": 1e-3,
        "layer.2": 5e-4,
        "layer.1": 2.5e-4,
        "layer.0": 1.25e-4,
        "embeddings": 6.25e-5,
    }
    assert phase.learning_rates == pytest.approx(expected)
    assert list(phase.trainable) == BLOCKS


def test_linear_probe_then_fine_tune() -> None:
    strategy = {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 0.5}}
    probe, full = phases(strategy)
    assert (probe.name, probe.trainable, probe.first_step, probe.steps) == ("head", ("head",), 0, 5)
    assert (full.name, full.trainable, full.first_step, full.steps) == ("all", tuple(BLOCKS), 5, 25)


def test_gradual_unfreezing_goes_down_block_by_block() -> None:
    found = phases({"type": "GradualUnfreezing", "gradualUnfreezing": {"blocksPerPhase": 2, "epochsPerPhase": 0.25}})
    assert [phase.name for phase in found] == ["head", "pooler", "layer.1", "embeddings"]
    assert [len(phase.trainable) for phase in found] == [1, 3, 5, 6]
    assert [phase.steps for phase in found] == [2, 2, 2, 24]


def test_phases_that_the_epochs_do_not_reach_do_not_exist() -> None:
    found = phases({"type": "GradualUnfreezing"}, epochs=2)
    assert [(phase.name, phase.steps) for phase in found] == [("head", 10), ("pooler", 10)]


def test_rounding_never_leaves_a_strategy_without_its_second_phase() -> None:
    assert [phase.steps for phase in phases({"type": "LinearProbeThenFineTune"}, epochs=1.01)] == [9, 1]
    assert [phase.steps for phase in phases({"type": "GradualUnfreezing"}, epochs=1.01)] == [9, 1]


strategies = st.one_of(
    st.just({"type": "FeatureExtraction"}),
    st.just({"type": "FullFineTuning"}),
    st.builds(lambda n: {"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": n}}, st.integers(1, 9)),
    st.builds(
        lambda e: {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": e}},
        st.floats(0.01, 0.09),
    ),
    st.builds(
        lambda b, e: {"type": "GradualUnfreezing", "gradualUnfreezing": {"blocksPerPhase": b, "epochsPerPhase": e}},
        st.integers(1, 9),
        st.floats(0.01, 0.09),
    ),
)


@given(
    strategy=strategies,
    epochs=st.floats(0.1, 12),
    steps_per_epoch=st.integers(1, 300),
    layers=st.integers(0, 12),
    decay=st.floats(0.1, 1),
)
def test_phases_hold_together(
    strategy: dict[str, Any], epochs: float, steps_per_epoch: int, layers: int, decay: float
) -> None:
    blocks = ["embeddings", *(f"layer.{i}" for i in range(layers)), "head"]
    found = phases(strategy | {"learningRate": {"head": 1e-2, "layerDecay": decay}}, epochs, steps_per_epoch, blocks)
    assert sum(phase.steps for phase in found) == max(1, round(epochs * steps_per_epoch))
    assert [phase.index for phase in found] == list(range(len(found)))
    assert [phase.first_step for phase in found] == [0, *itertools.accumulate(p.steps for p in found[:-1])]
    assert len({phase.name for phase in found}) == len(found)
    for phase in found:
        assert phase.steps >= 1
        assert list(phase.trainable) == blocks[-len(phase.trainable) :]
        assert list(phase.learning_rates) == list(phase.trainable)
        rates = list(phase.learning_rates.values())
        assert all(rate > 0 for rate in rates)
        assert rates == sorted(rates)  # from input to output they never fall
        assert rates[-1] == 1e-2
        for above, below in itertools.pairwise(reversed(rates[:-1])):
            assert below == pytest.approx(above * decay)
    for before, after in itertools.pairwise(found):
        assert set(before.trainable) < set(after.trainable)


def rate(schedule: str, warmup: float) -> LearningRate:
    return LearningRate.model_validate(
        {"head": 1.0, "backbone": 1.0, "layerDecay": 1.0, "schedule": schedule, "warmupRatio": warmup}
    )


@given(st.sampled_from(["Constant", "Linear", "Cosine"]), st.floats(0, 0.99), st.integers(1, 500))
def test_schedule_rises_to_one_then_falls_and_never_stands_still(schedule: str, warmup: float, total: int) -> None:
    factors = [schedule_factor(rate(schedule, warmup), step, total) for step in range(total)]
    peak = factors.index(max(factors))
    assert max(factors) == pytest.approx(1)
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_schedules_by_hand() -> None:
    assert [schedule_factor(rate("Linear", 0.2), step, 10) for step in range(10)] == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert schedule_factor(rate("Cosine", 0), 5, 10) == pytest.approx(0.5)
    assert schedule_factor(rate("Cosine", 0), 9, 10) == pytest.approx((1 + math.cos(0.9 * math.pi)) / 2)
    assert schedule_factor(rate("Constant", 0), 9, 10) == 1
