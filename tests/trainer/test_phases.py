"""Strategies compile to phases whose steps, trainable sets and rates hold what the API's descriptions say."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.jobs import make_job
from unfreeze_api.contracts.resolved import LearningRate
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.phases.compile import Phase, compile_phases
from unfreeze_trainer.phases.schedule import rate_factor, schedule_factor

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


def test_without_a_head_no_phase_names_one() -> None:
    def of(strategy: dict[str, Any]) -> list[Phase]:
        job = make_job("/m", "/d.csv", task={"type": "TextEmbedding"}, strategy=strategy, training={"epochs": 9})
        return compile_phases(job, BLOCKS, 10)

    [partial] = of({"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 2}})
    assert (partial.name, partial.trainable) == ("pooler", ("layer.2", "pooler"))
    [full] = of({"type": "FullFineTuning", "learningRate": {"backbone": 1e-5}})
    assert (full.name, list(full.trainable), full.learning_rates["pooler"]) == ("all", BLOCKS[:-1], 1e-5)
    gradual = of({"type": "GradualUnfreezing"})
    assert [phase.name for phase in gradual] == BLOCKS[-2::-1]
    assert (gradual[0].first_step, gradual[0].trainable) == (0, ("pooler",))
    thaw = of({"type": "GradualUnfreezing", "gradualUnfreezing": {"order": "ChainThaw"}})
    assert [phase.name for phase in thaw] == [*BLOCKS[:-1], "all"]


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


def gradual(epochs: float = 3, **options: Any) -> list[Phase]:
    return phases({"type": "GradualUnfreezing", "gradualUnfreezing": options}, epochs)


def test_partial_fine_tuning_by_names() -> None:
    named = {"type": "PartialFineTuning", "partialFineTuning": {"blocks": ["pooler", "layer.0"]}}
    [phase] = phases(named | {"learningRate": {"head": 1e-2, "backbone": 1e-3, "layerDecay": 0.5}})
    assert phase.trainable == ("layer.0", "pooler", "head")
    assert phase.learning_rates["layer.0"] == pytest.approx(1e-3 * 0.5**3)  # as far from the head as it is


def test_gradual_unfreezing_by_groups_and_steps() -> None:
    found = gradual(groups=[["layer.2", "pooler"], ["embeddings"]], stepsPerPhase=7)
    assert [(phase.name, phase.trainable, phase.steps) for phase in found] == [
        ("head", ("head",), 7),
        ("pooler", ("layer.2", "pooler", "head"), 7),
        ("embeddings", ("embeddings", "layer.2", "pooler", "head"), 16),
    ]


def test_chain_thaw_trains_each_block_alone_from_the_bottom_then_everything() -> None:
    found = gradual(order="ChainThaw", epochsPerPhase=0.2)
    assert [phase.name for phase in found] == ["head", *BLOCKS[:-1], "all"]
    assert [phase.trainable for phase in found] == [("head",), *((name,) for name in BLOCKS[:-1]), tuple(BLOCKS)]
    assert [phase.steps for phase in found] == [2] * 6 + [18]
    pairs = gradual(order="ChainThaw", blocksPerPhase=2, epochsPerPhase=0.2)
    assert [phase.trainable for phase in pairs[1:-1]] == [
        ("embeddings",),
        ("layer.0", "layer.1"),
        ("layer.2", "pooler"),
    ]


def test_plateaus_are_of_every_phase_but_the_last() -> None:
    found = gradual(untilPlateau={"patience": 2}, epochsPerPhase=0.2)
    assert [phase.plateau is not None and phase.plateau.patience == 2 for phase in found] == [True] * 5 + [False]
    probe, full = phases({"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"untilPlateau": {}}})
    assert probe.plateau is not None
    assert full.plateau is None


def test_bitfit_is_one_phase_of_biases_and_norms() -> None:
    [phase] = phases({"type": "BitFit"})
    assert (phase.name, phase.trainable, phase.part) == ("all", tuple(BLOCKS), "BiasesAndNorms")
    assert phase.learning_rates["embeddings"] == phase.learning_rates["head"]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            {"type": "PartialFineTuning", "partialFineTuning": {"blocks": ["layer.9", "pooler"]}},
            (
                "spec.strategy.partialFineTuning.blocks: this model has no block layer.9 below its head; its blocks are"
                " embeddings, layer.0, layer.1, layer.2, pooler (the head needs no naming)"
            ),
        ),
        (
            {"type": "GradualUnfreezing", "gradualUnfreezing": {"groups": [["head"]]}},
            (
                "spec.strategy.gradualUnfreezing.groups: this model has no block head below its head; its blocks are"
                " embeddings, layer.0, layer.1, layer.2, pooler (the head needs no naming)"
            ),
        ),
        (
            {"type": "GradualUnfreezing", "gradualUnfreezing": {"groups": [["pooler"], ["layer.2", "pooler"]]}},
            "spec.strategy.gradualUnfreezing.groups: pooler is named more than once",
        ),
    ],
)
def test_names_that_are_none_are_refused_with_those_that_are(strategy: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError) as caught:
        phases(strategy)
    assert (caught.value.reason, caught.value.message) == ("InvalidStrategy", message)


def test_phases_that_the_epochs_do_not_reach_do_not_exist() -> None:
    found = phases({"type": "GradualUnfreezing"}, epochs=2)
    assert [(phase.name, phase.steps) for phase in found] == [("head", 10), ("pooler", 10)]


def test_rounding_never_leaves_a_strategy_without_its_second_phase() -> None:
    assert [phase.steps for phase in phases({"type": "LinearProbeThenFineTune"}, epochs=1.01)] == [9, 1]
    assert [phase.steps for phase in phases({"type": "GradualUnfreezing"}, epochs=1.01)] == [9, 1]


strategies = st.one_of(
    st.just({"type": "FeatureExtraction"}),
    st.just({"type": "FullFineTuning"}),
    st.just({"type": "BitFit"}),
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


@pytest.mark.slow
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


def rate(schedule: str, warmup: float, **change: Any) -> LearningRate:
    change = {"scope": "Job", "rewarmSteps": 0} | change
    return LearningRate.model_validate(
        {"head": 1.0, "backbone": 1.0, "layerDecay": 1.0, "schedule": schedule, "warmupRatio": warmup, **change}
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


def course(of: LearningRate, total: int) -> list[float]:
    return [schedule_factor(of, step, total) for step in range(total)]


def torchs(build: Callable[[torch.optim.Optimizer], Any], total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    schedule = build(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("total", [10, 37, 400])
def test_schedules_are_torchs(total: int) -> None:
    lr_scheduler = torch.optim.lr_scheduler
    assert course(rate("Constant", 0), total) == torchs(lambda o: lr_scheduler.ConstantLR(o, 1.0), total)
    assert course(rate("Linear", 0), total) == pytest.approx(
        torchs(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total), total)
    )
    assert course(rate("Cosine", 0), total) == pytest.approx(
        torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, total), total)
    )
    for rise in (0.3, 0.5):
        assert course(rate("OneCycle", rise), total) == pytest.approx(
            torchs(lambda o, rise=rise: lr_scheduler.OneCycleLR(o, 1.0, total, pct_start=rise), total)
        )


def test_the_warm_up_is_torchs_too() -> None:
    warm = torchs(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1 / 12, 1.0, 11), 12)
    assert course(rate("Linear", 0.3), 40)[:12] == pytest.approx(warm)


@pytest.mark.parametrize("total", [10, 40, 400])
def test_the_slanted_triangle_is_the_papers(total: int) -> None:
    cut_frac, ratio = 0.1, 32
    cut = math.floor(total * cut_frac)
    p = [t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1)) for t in range(total)]
    assert course(rate("SlantedTriangular", 0.1), total) == pytest.approx([(1 + x * (ratio - 1)) / ratio for x in p])


@given(st.sampled_from(["OneCycle", "SlantedTriangular"]), st.floats(0, 0.99), st.integers(1, 300))
def test_cycles_stay_within_their_bounds(schedule: str, rise: float, total: int) -> None:
    factors = course(rate(schedule, rise), total)
    assert all(0 < factor <= 1 for factor in factors)


def test_a_course_of_the_job_goes_on_over_phases_and_one_of_a_phase_begins_anew() -> None:
    first, second = Phase(0, "head", ("head",), {}, 0, 10), Phase(1, "all", ("head",), {}, 10, 30)
    job, phase = rate("Linear", 0.2), rate("Linear", 0.2, scope="Phase")
    for step in (10, 15, 39):
        assert rate_factor(job, second, step, 40) == schedule_factor(job, step, 40)
        assert rate_factor(phase, second, step, 40) == schedule_factor(phase, step - 10, 30)
    assert rate_factor(phase, first, 9, 40) == schedule_factor(phase, 9, 10)


def test_rewarming_is_of_every_phase_but_the_first() -> None:
    first, second = Phase(0, "head", ("head",), {}, 0, 10), Phase(1, "all", ("head",), {}, 10, 30)
    rewarm, plain = rate("Cosine", 0, rewarmSteps=4), rate("Cosine", 0)
    assert rate_factor(rewarm, first, 0, 40) == 1
    shares = [rate_factor(rewarm, second, step, 40) / rate_factor(plain, second, step, 40) for step in range(10, 16)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
