"""Learning rates that destroy a model: how it is seen, and that the run goes back, or fails and says why."""

from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import engine_group
from tests.trainer.complete import complete
from tests.trainer.engine_group import ENGINES, forget_accelerate
from tests.trainer.interrupted import Killed, assert_as_undisturbed, events, finished, job_in, kill_at
from tests.trainer.mlp import MLPTask
from unfreeze_api.tasks.base import Metric
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.report import read_report
from unfreeze_trainer.judgement.rates import rolled_back
from unfreeze_trainer.objectives.next_token import NextToken
from unfreeze_trainer.runs.course import Course, fell_far
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.rollback import rate_scale
from unfreeze_trainer.training.run import Run

ACCURACY, LOSS = Metric("accuracy"), Metric("loss", "Lower")
LOSSES = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60)


def course(losses, units=32, **options):
    return Course().after([(loss, units) for loss in losses], **options)


def destroyed(losses, value=0.2, *, metric=ACCURACY, units=32, blank=0.0, **options):
    found = course(losses, units, blank=blank)
    return found.destroyed(metric, value, samples=100, blank=blank, **{"useful": False} | options)


def noisy(levels, seed=0, noise=0.1):
    return np.asarray(levels) * (1 + noise * np.random.default_rng(seed).standard_normal(len(levels)))


# Losses as MiniLM's have been, with a new head for six classes, on 120 questions at these rates.
SEEN = {
    1e-5: [1.8, 1.79, 1.79, 1.8, 1.8, 1.78, 1.79, 1.78],
    3e-3: [1.8, 1.77, 1.77, 1.74, 1.9, 1.71, 1.58, 1.71],
    3e-2: [1.8, 1.88, 5.24, 2.93, 6.85, 7.76, 3.18, 6.8],
    1e-1: [1.8, 2.66, 35.9, 30.5, 47.3, 14.4, 35.2, 32.6],
    1.0: [1.8, 14.3, 262, 297, 395, 486, 189, 184],
}


def test_what_real_rates_did_is_seen_after_an_epoch():
    assert {rate: destroyed(losses, blank=math.log(6)) for rate, losses in SEEN.items()} == {
        rate: rate > 3e-3 for rate in SEEN
    }
    assert not destroyed(SEEN[1e-1], useful=True), (
        "it may still learn; a run that went back once is judged more strictly"
    )
    assert destroyed(SEEN[1e-1], useful=True, strict=True)


@given(losses=LOSSES, cut=st.integers(0, 60))
def test_portions_of_steps_do_not_matter(losses, cut):
    steps = [(loss, 32) for loss in losses]
    assert Course().after(steps[:cut]).after(steps[cut:]) == Course().after(steps)


@given(losses=LOSSES, power=st.integers(-8, 8), useful=st.sampled_from([True, False, None]))
def test_the_unit_of_the_loss_does_not_matter(losses, power, useful):
    scaled = [loss * 2.0**power for loss in losses]
    assert destroyed(losses, useful=useful) == destroyed(scaled, useful=useful)


@given(losses=LOSSES, useful=st.booleans())
def test_a_useful_model_is_destroyed_only_where_a_useless_one_is(losses, useful):
    assert not destroyed(losses, useful=True) or destroyed(losses, useful=False)
    assert not destroyed(losses, useful=useful) or destroyed(losses, useful=useful, strict=True)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), end=st.floats(0.01, 1), noise=st.floats(0, 0.2))
def test_noise_and_learning_are_no_destruction(seed, end, noise):
    """Whatever the evaluation says: few validation samples, and rates that are too low, show no useful model.

    With noise of .3 of losses that stay where they are, 3 of 100 draws look like one.
    """
    losses = np.abs(noisy(np.linspace(1, end, 200), seed, noise))
    assert not destroyed(losses, useful=False, best=0.25, blank=1.0)
    assert not destroyed(losses, useful=None, best=0.25)


def test_single_samples_of_squared_errors_are_noise():
    """A first loss may be 0 by luck; a model of standardised numbers has lost about 1 before it has learned anything."""
    for seed in range(20):
        losses = np.random.default_rng(seed).standard_normal(1000) ** 2
        found = course(losses, 1, blank=1.0)
        assert not found.destroyed(Metric("rmse", "Lower"), 1.0, samples=50, useful=False, blank=1.0)


TOKENS = Metric("loss", "Lower")
"""Of decoders: nothing says whether one is useful, and their start is no new head's."""


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), first=st.floats(0.02, 1.8), grouped=st.booleans(), units=st.integers(1, 4096))
def test_samples_of_a_healthy_decoder_differ_and_are_no_burst(seed, first, grouped, units):
    losses = [first, *np.random.default_rng(seed).uniform(0.02, 1.8, 300)]
    for steps in (sorted(losses) if grouped else losses, losses[:7]):
        found = course(steps, units, blank=NextToken.blank_loss)
        value = {"metric": TOKENS, "value": 1.2, "samples": 50, "blank": NextToken.blank_loss}
        assert not found.destroyed(**value)
        assert not found.destroyed(**value, best=1.1, strict=True)


@given(
    seed=st.integers(0, 2**32 - 1),
    healthy=st.floats(0.02, 1.2),
    collapsed=st.floats(6.5, 12),
    after=st.integers(1, 60),
    units=st.integers(1, 4096),
)
def test_a_decoder_that_has_collapsed_is_seen_at_the_first_evaluation(seed, healthy, collapsed, after, units):
    """Collapsed is more than four times the first loss, noise and all: less needs an evaluation to compare with.

    The average of the losses has come five sixths of the way by then.
    """
    losses = noisy([healthy] * after + [collapsed] * 200, seed, 0.05)
    blank = NextToken.blank_loss
    found = course(losses, units, blank=blank)
    assert found.destroyed(TOKENS, collapsed, samples=50, blank=blank)
    assert found.destroyed(TOKENS, collapsed, samples=50, blank=blank, best=healthy)
    assert not found.sound(blank=blank)


@given(losses=LOSSES, units=st.integers(1, 64))
def test_the_noise_of_the_mean_is_that_of_its_weighted_steps(losses, units):
    """By the definition: weights w of the steps, their mean m, noise s sqrt(sum w^2), s^2 = sum w (x - m)^2 / (1 - sum w^2)."""
    weights, counted = np.zeros(0), np.minimum(losses, 5 * losses[0])
    for step in range(1, len(losses) + 1):
        share = max(1 / max(5, 128 / units), 1 / step)
        weights = np.append(weights * (1 - share), share)
    mean, squares = weights @ counted, weights @ weights
    noise = math.sqrt(weights @ (counted - mean) ** 2 * squares / (1 - squares)) if len(losses) > 1 else 0.0
    found = course(losses, units)
    assert (found.mean, found.noise) == pytest.approx((mean, noise), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("samples", [1, 4, 32])
def test_noise_seldom_bursts(samples):
    """Losses of batches of normal errors squared, 300 runs of 100 steps each."""
    draw = np.random.default_rng(0)
    means = (draw.standard_normal((300, 100, samples)) ** 2).mean(axis=2)
    assert sum(course(losses, samples, blank=1.0).burst >= 1.3 for losses in means) <= 2


def test_losses_of_ruins_are_sure_soon_however_they_differ():
    assert course([1.8, *np.geomspace(10, 1e30, 6)], 8, blank=1.8).burst > 4, "each dwarfs those before it"
    seen = [
        1.82,
        2.66,
        2.1,
        5.88,
        3.38,
        3.75,
        8.29,
        10.7,
        4.5,
        1.45,
        3.49,
        2.37,
        1.84,
        1.99,
        2.44,
        3.24,
        2.26,
        1.7,
        1.94,
    ]
    assert course(seen, 8, blank=math.log(6)).burst > 1.3, "MiniLM at 4.9e-2, in batches of 8: one class ever after"
    once = noisy([1.8] * 40)
    once[20] = 1e6
    assert course(once, 8, blank=1.8).burst == 0, "a single one makes no mean"
    assert course([0.0, 2.0]).mean == 1.0, "where nothing was lost, nothing is five times that"


def test_a_burst_that_was_made_good_is_none():
    losses = noisy([1.8] * 3 + [9.0] * 10 + list(np.linspace(9, 0.2, 60)))
    assert not destroyed(losses, 0.9, useful=True, strict=True)
    assert not course(losses).sound(), "its checkpoint is none to go back to all the same"
    assert destroyed(losses, useful=False), "what was learned is of no use"


def test_a_first_loss_that_was_low_by_luck_convicts_nobody():
    """In-batch softmax of a good embedder: small losses, a few large ones. Nothing but an evaluation tells them from a burst."""
    bursts = 0
    for seed in range(20):
        losses = np.exp(2.5 * np.random.default_rng(seed).standard_normal((100, 8))).mean(axis=1) * np.linspace(
            1, 0.5, 100
        )
        found = course(losses, 8)
        bursts += found.burst >= 4
        for best in (None, 0.8):
            assert not found.destroyed(Metric("ndcgAt10"), 0.85, samples=100, best=best)
        assert not found.destroyed(LOSS, 0.9, samples=100, best=1.0)
    assert bursts, "the losses do burst"
    collapsed = [0.05, 0.3, 2.0, *[2.08] * 40]
    assert destroyed(collapsed, 0.1, units=8, useful=None, best=0.8), "less than untrained"
    assert not destroyed(collapsed, 0.1, units=8, useful=None), "with nothing to compare with"
    assert destroyed(SEEN[1.0], useful=None, blank=math.log(6)), "a blank model's loss is never low by luck"


def test_too_few_samples_to_tell_convict_nobody_who_has_learned():
    """Three classes, 13 samples: accuracy 9/13 against 6/13."""
    losses = noisy([1.1] * 5 + [1.65] * 20 + [0.156] * 40, noise=0.02)
    blank = math.log(3)
    assert course(losses, blank=blank).burst > 1.3
    for strict in (False, True):
        assert not destroyed(losses, 9 / 13, blank=blank, doubtful=True, strict=strict)
    assert destroyed(losses[:25], 6 / 13, blank=blank, doubtful=True), "it has learned nothing since"
    assert destroyed(losses, 6 / 13, blank=blank), "it is no better than guessing"


def test_learning_by_heart_is_no_destruction():
    """Loss of training soon above twice its lowest, which is nearly 0; that of validation above twice its best."""
    losses = noisy([*np.linspace(1.1, 0.004, 60), *[0.004] * 30, *[0.03] * 40])
    for useful, doubtful in ((True, False), (False, True), (None, False)):
        assert not destroyed(losses, 2.5, metric=LOSS, useful=useful, doubtful=doubtful, best=0.6, blank=math.log(3))
    assert destroyed(losses, 0.2, useful=None, best=0.9, blank=math.log(3)), "a share that is right does not fall by it"
    ruined = noisy([*np.linspace(1.1, 0.1, 60), *[1.4] * 40])
    assert destroyed(ruined, 2.5, metric=LOSS, useful=None, best=0.6, blank=math.log(3))


def test_what_an_earlier_phase_has_learned_is_destroyed_without_a_burst():
    losses = noisy([0.3] * 20 + [1.75] * 40)
    assert destroyed(losses, 0.2, useful=None, best=0.9)
    assert not destroyed(losses, 0.85, useful=None, best=0.9), "the metric has not fallen far"
    assert not destroyed(noisy([0.3] * 60), 0.2, useful=None, best=0.9), "it fits the training data: overfitting"


@pytest.mark.parametrize(
    ("metric", "value", "best", "far"),
    [
        (ACCURACY, 0.5, 0.9, True),
        (ACCURACY, 0.7, 0.9, False),
        (ACCURACY, 0.95, 0.9, False),
        (ACCURACY, math.nan, 0.9, True),
        (ACCURACY, 0.9, math.nan, False),
        (LOSS, 3.0, 1.0, True),
        (LOSS, 1.9, 1.0, False),
        (LOSS, math.inf, 1.0, True),
    ],
)
def test_a_fall_is_far_beyond_its_samples(metric, value, best, far):
    assert fell_far(metric, value, best, 100) is far


def test_losses_that_are_not_finite_changed_nothing():
    assert course([1.0, math.nan, 2.0, math.inf]) == course([1.0, 2.0])
    assert Course.model_validate_json(Course().model_dump_json()) == Course()


RATES = {"type": "FullFineTuning", "learningRate": {"head": 3.0, "backbone": 3.0}}
"""They destroy the net, and 3.0 * .3 still does; .27 does not."""


def open_run(folder, rate=3.0, task=None, **training):
    forget_accelerate()
    strategy = {"type": "FullFineTuning", "learningRate": {"head": rate, "backbone": rate}}
    job = job_in(folder, strategy=strategy, **{"metric": "accuracy", "epochs": 8} | training)
    task = task or MLPTask(dropout=0.0)
    return Run(job, task, task.build_model(), open_engine(job), None)


@pytest.fixture(scope="module")
def went_back(tmp_path_factory, one_thread):
    """The folder of a run that went back twice, and then came to its end."""
    folder = tmp_path_factory.mktemp("rates") / "whole"
    complete(open_run(folder))
    return folder


@pytest.mark.slow
def test_a_run_goes_back_with_lower_rates_and_says_so(went_back):
    first, second = events(went_back, "rollback")
    assert [first["factor"], second["factor"]] == pytest.approx([0.3, 0.09])
    assert second["to"] == 0
    assert "the training loss was 1." in first["message"]
    assert "validation accuracy is " in first["message"]
    report = read_report(went_back)
    assert [one.message for one in report.rollbacks] == [first["message"], second["message"]]
    decided = [one for one in report.decisions if one.type == "Rollback"]
    assert [one.step for one in decided] == sorted({first["step"], second["step"]})
    assert decided[-1].message.endswith(second["message"])
    assert sum(one["type"] == "Rollback" for one in events(went_back, "decision")) == 2
    assert report.usefulness.better
    page = (went_back / "report.html").read_text()
    assert f"At step {first['step']} the learning rates were found to destroy the model" in page
    rows = list(csv.DictReader((went_back / "history.csv").open()))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps)), "each step once"
    assert float(rows[len(rows) // 2]["learningRate.head"]) < 0.27


@pytest.mark.slow
def test_from_its_start_it_trains_as_with_lower_rates_from_the_beginning(went_back, tmp_path):
    complete(open_run(tmp_path, 3.0 * 0.09))
    assert not events(tmp_path, "rollback")
    there, here = finished(went_back)[0], finished(tmp_path)[0]
    assert there.keys() == here.keys()
    for name, tensor in there.items():
        torch.testing.assert_close(tensor, here[name], rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["written", "discarded", "restored", "later"])
def test_a_kill_around_a_rollback_changes_nothing(went_back, tmp_path, moment):
    run = open_run(tmp_path)

    def die(*_):
        raise Killed

    if moment == "written":
        run.folder.go_back, real = (lambda found: (real(found[:]), die())), run.folder.go_back
    elif moment == "discarded":
        run.engine.end = die
    elif moment == "restored":
        run.reporter.went_back = die
    else:
        kill_at(run, 14)
    with pytest.raises(Killed):
        train(run)
    run.saver.close()
    complete(open_run(tmp_path))
    assert_as_undisturbed(tmp_path, finished(went_back))
    assert [one["step"] for one in json.loads((tmp_path / "rollbacks.json").read_text())["rollbacks"]] == [
        one["step"] for one in events(went_back, "rollback")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda file: file.write_text('{"finger'), lambda file: file.unlink()])
def test_a_list_of_rollbacks_that_is_lost_leaves_what_the_checkpoint_knows(went_back, tmp_path, damage):
    folder = tmp_path / "run"
    shutil.copytree(went_back, folder)
    damage(folder / "rollbacks.json")
    run = open_run(folder)
    run.saver.close()
    assert [one.factor for one in run.state.rollbacks] == pytest.approx([0.3, 0.09])


class Blind(MLPTask):
    """Nobody knows what its loss is before it has learned anything, nor whether it is of use."""

    blank_loss = 0.0

    def __init__(self):
        super().__init__(dropout=0.0)
        self.metrics.usefulness = lambda *_: None


@pytest.mark.slow
def test_without_a_known_loss_of_before_the_untrained_model_is_what_the_first_evaluation_is_compared_with(tmp_path):
    def end(run):
        try:
            train(run)
        finally:
            run.saver.close()
        return run.state

    sane = end(open_run(tmp_path / "sane", 0.02, Blind(), epochs=2, metric="loss"))
    known = end(open_run(tmp_path / "known", 0.02, epochs=2, metric="loss"))
    assert (sane.metrics, known.untrained) == (known.metrics, None), "it changes nothing of the training"
    assert not events(tmp_path / "sane", "rollback")
    run = open_run(tmp_path / "destroyed", 10.0, Blind(), epochs=2, metric="loss")
    with pytest.raises(JobError, match=r"times 0\.09 after 2 rollbacks"):
        end(run)
    assert run.state.untrained == sane.untrained
    assert all(
        f"at its best before {sane.untrained:.3g}" in one["message"] for one in events(run.folder.path, "rollback")
    )


@pytest.mark.slow
def test_where_a_stop_saves_is_nothing_to_go_back_to(tmp_path):
    """Else a run that was suspended would become another one than one that was not."""
    run = open_run(tmp_path, 0.02)
    after = run.work.after_step

    def stop(done):
        after(done)
        if run.state.step == 7:
            raise StopRequested

    run.work.after_step = stop
    with pytest.raises(StopRequested):
        train(run)
    run.milestones.save()
    run.saver.wait()
    assert (run.saver.newest.step, run.state.sound_step, run.folder.checkpoints.load_state(7).sound_step) == (7, 6, 6)
    run.saver.close()


def with_outburst(run, step=9):
    """Have a run's rates be far too high from a step on, until it goes back."""
    real = run.engine.set_learning_rates

    def set_rates(factor):
        real(factor * (1e3 if run.state.step >= step and not run.state.rollbacks else 1))

    run.engine.set_learning_rates = set_rates
    return run


@pytest.mark.slow
def test_a_checkpoint_is_gone_back_to_as_a_new_start_would_resume_from_it(tmp_path):
    """With weights, moments and buffers of its step: killed at once, the run comes to the same end."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    task, built = MLPTask(norm=True), []
    run = with_outburst(open_run(whole, 0.02, task))
    real, task.build_model = task.build_model, lambda: (built.append(run.state.step), real())[1]
    train(run)
    assert not built, "the checkpoint has all that trains: no second model beside the first"
    finish(run)
    [back] = events(whole, "rollback")
    assert 0 < back["to"] <= 9
    run = with_outburst(open_run(killed, 0.02, MLPTask(norm=True)))

    def die(_):
        raise Killed

    run.reporter.went_back = die
    with pytest.raises(Killed):
        train(run)
    run.saver.close()
    again = with_outburst(open_run(killed, 0.02, MLPTask(norm=True)))
    assert again.state.step == back["to"]
    complete(again)
    assert_as_undisturbed(killed, finished(whole))


@pytest.mark.slow
def test_rates_that_still_destroy_after_two_rollbacks_end_the_job(tmp_path):
    run = open_run(tmp_path, 10.0)
    with pytest.raises(JobError) as failed:
        train(run)
    run.saver.close()
    assert failed.value.reason == "LearningRateTooHigh"
    assert "spec.strategy.learningRate (head 10, backbone 10) times 0.09 after 2 rollbacks" in str(failed.value.message)
    assert len(events(tmp_path, "rollback")) == 2
    assert not (tmp_path / "report.json").exists()
    again = open_run(tmp_path, 10.0)
    assert len(again.state.rollbacks) == 2, "the same job, created again, does not begin anew"


@pytest.mark.slow
def test_a_run_of_before_keeps_its_rates(tmp_path):
    forget_accelerate()
    job = job_in(tmp_path, strategy=RATES, metric="accuracy", epochs=8)
    job = job.model_copy(update={"semantics": job.semantics.model_copy(update={"rates": "Kept"})})
    task = MLPTask(dropout=0.0)
    complete(Run(job, task, task.build_model(), open_engine(job), None))
    assert not events(tmp_path, "rollback")


def after_steps(run, task, after, lives):
    """Have gradients be no numbers in 20 steps in a row, after so many others, as often as it has lives."""
    real, left = task.loss, [lives]

    def loss(outputs, batch):
        gone = run.engine.module.training and left[0] and run.state.step >= after
        if gone and run.state.skipped_in_a_row == 19:
            left[0] -= 1
        return real(outputs, batch) * (math.nan if gone else 1)

    task.loss = loss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "lives", "reason"), [(6, 1, None), (6, 3, "LearningRateTooHigh"), (0, 9, "NonFiniteGradients")]
)
def test_steps_that_are_no_longer_finite_take_a_run_back(tmp_path, after, lives, reason):
    task = MLPTask(dropout=0.0)
    run = open_run(tmp_path, 0.01, task)
    after_steps(run, task, after, lives)
    if reason is None:
        complete(run)
    else:
        with pytest.raises(JobError) as failed:
            train(run)
        run.saver.close()
        assert failed.value.reason == reason
    back = events(tmp_path, "rollback")
    assert len(back) == {None: 1, "LearningRateTooHigh": 2, "NonFiniteGradients": 0}[reason]
    assert all("20 steps in a row had gradients that were not finite" in one["message"] for one in back)


@pytest.mark.slow
def test_a_later_phase_goes_back_to_its_begin_and_leaves_the_first_ones_rates(tmp_path):
    forget_accelerate()
    strategy = {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 4}}
    strategy |= {"learningRate": {"head": 0.05, "backbone": 0.05, "scope": "Phase"}}
    job = job_in(tmp_path, strategy=strategy, metric="accuracy", epochs=12, optimizer="SGD", maxGradNorm=0)
    task = MLPTask(dropout=0.0)
    run = Run(job, task, task.build_model(), open_engine(job), None)
    begin, real, seen = run.plan.phases[1].first_step, run.engine.set_learning_rates, []

    def set_rates(factor):
        seen.append((run.state.step, factor))
        bad = run.state.phase_index == 1 and not run.state.rollbacks
        real(factor * (1e4 if bad else 1))

    run.engine.set_learning_rates = set_rates
    complete(run)
    [back] = events(tmp_path, "rollback")
    assert back["to"] == begin
    first = [factor for step, factor in seen if step == begin]
    assert first[1] == pytest.approx(0.3 * first[0])
    assert len([step for step, _ in seen if step < begin]) == begin, "the first phase is not trained again"


@pytest.mark.slow
def test_a_phase_after_one_that_ended_early_goes_back_to_where_that_ended_twice(tmp_path):
    """The plan has its first step elsewhere; its checkpoint outlives newer ones."""
    forget_accelerate()
    strategy = {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 4}}
    strategy |= {"learningRate": {"head": 0.05, "backbone": 0.05, "scope": "Phase"}}
    stopping = {"earlyStopping": {"patience": 1, "minDelta": 1}, "evaluate": {"everySteps": 8}}
    stopping |= {"checkpoint": {"everySteps": 2, "keep": 1}}
    job = job_in(tmp_path, strategy=strategy, metric="accuracy", epochs=12, **stopping)
    task = MLPTask(dropout=0.0)
    run = Run(job, task, task.build_model(), open_engine(job), None)
    real = run.engine.set_learning_rates

    def set_rates(factor):
        bad = run.state.phase_index == 1 and len(run.state.rollbacks) < 2
        real(factor * (1e3 if bad else 1))

    run.engine.set_learning_rates = set_rates
    train(run)
    run.saver.close()
    assert [one["to"] for one in events(tmp_path, "rollback")] == [16, 16]
    assert run.plan.phases[1].first_step > 16


def test_rates_of_earlier_phases_stay():
    from unfreeze_api.contracts.report import Rollback

    found = [Rollback(step=9, to=3, phase_index=1, factor=0.3, message="")]
    assert [rate_scale(found, index) for index in range(3)] == [1.0, 0.3, 0.3]


def test_a_second_rollback_at_the_step_of_the_first_is_told_beside_it():
    from unfreeze_api.contracts.report import Rollback

    first = Rollback(step=9, to=3, phase_index=1, factor=0.3, message="it burst")
    second = first.model_copy(update={"to": 0, "factor": 0.09, "message": "it burst anew"})
    one, other = rolled_back(first), rolled_back(second, [first])
    assert (one.key, one.answer, one.message) == (other.key, "Yes", "back to step 3, with rates times 0.3: it burst")
    told = "back to step 0, with rates times 0.09, and before that to step 3 with rates times 0.3: it burst anew"
    assert (other.answer, other.message) == ("Yes, again", told), "events.jsonl has both, by their answers"
    assert rolled_back(second.model_copy(update={"step": 10}), [first]).answer == "Yes"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_go_back_as_one_on_every_engine(ranks, tmp_path, engine):
    one, other = ranks.call(engine_group.rates_case, engine, tmp_path)
    assert one == other
    assert one["rollbacks"] >= 1
    assert one["apart"] < 1e-3
