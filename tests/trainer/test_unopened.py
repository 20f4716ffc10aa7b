"""The test data decides nothing: a trap in it raises when it is read before the end, and other answers there change no decision."""

from __future__ import annotations

import pytest

from tests.trainer.auto_group import Points
from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.jobs import make_job
from tests.trainer.spending_group import Fresh
from unfreeze_trainer import tasks
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.training.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
DECIDING = {
    "rungs": {"strategy": {"type": "Auto", "learningRate": {"head": 3e-2, "backbone": 1e-2}}},
    "rates": {"strategy": {"type": "FullFineTuning", "learningRate": {"rates": "Auto"}}},
    "a classical model and random weights": {"evidence": {"baseline": {}, "scratch": {}}},
    "a budget": {"runPolicy": {"budget": {"hours": 10}}},
    "early stopping": {"training": {"earlyStopping": {"patience": 1}}},
}


class Trap(Points):
    """Points whose test data may be read while it is measured at the end, and at no other time."""

    measuring = False

    def __init__(self, _job=None, *, turned: bool = False):
        super().__init__(blind=True, told=True)
        if turned:
            self.y["test"] = (self.y["test"] + 1) % 3

    def batches(self, split, batches, **options):
        assert split != "test" or Trap.measuring, "the test data is read before the end"
        return super().batches(split, batches, **options)

    def raw(self, split, samples):
        assert split != "test", "the test data is read"
        return super().raw(split, samples)


def decided(folder, monkeypatch, change, *, turned):
    forget_accelerate()
    training = {"epochs": 5, "batchSize": 16, "weightDecay": 0} | change.get("training", {})
    place = {"output": {"destination": f"file://{folder}"}}
    job = make_job("/none", "/none.csv", **change | {"training": training} | place)
    task = Trap(turned=turned)
    monkeypatch.setattr(tasks, "open_task", lambda _: Trap(turned=turned))
    run = Run(job, task, task.build_model(), open_engine(job), None)
    measured, measure = [], run.evaluator.measure

    def watched(split):
        measured.append(split)
        Trap.measuring = split == "test"
        try:
            return measure(split)
        finally:
            Trap.measuring = False

    run.evaluator.measure = watched
    complete(run)
    assert measured.count("test") == 1
    assert measured[-1] == "test"
    # Random weights are trained for as many seconds too, which are other steps each time.
    kinds = [(one.type, one.answer if one.type != "Scratch" else "", one.step) for one in run.state.decisions]
    return kinds, run.state.best.step, run.job.strategy.learning_rate


@pytest.mark.parametrize("what", DECIDING)
def test_the_test_data_is_read_once_at_the_end_and_decides_nothing(tmp_path, monkeypatch, what):
    monkeypatch.setattr(Exporter, "write", lambda *_, **__: None)
    monkeypatch.setattr("unfreeze_trainer.training.spending.FreshProcess", Fresh)
    change = DECIDING[what]
    found = [decided(tmp_path / str(turned), monkeypatch, change, turned=turned) for turned in (False, True)]
    assert found[0] == found[1]
    assert found[0][0]
