"""Four workers decide as one does: rates, rungs, a trial, stages. Two are in the tests of each."""

import pytest

from tests.trainer import auto_group, range_group, stage_group
from tests.trainer import ranks as forks
from tests.trainer.stage_group import stage, write_inputs

pytestmark = [pytest.mark.matrix, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    made = forks.Ranks(tmp_path_factory.mktemp("four"), world=4)
    yield made
    made.kill()


@pytest.fixture
def alike(four):
    def call(function, *arguments):
        first, *others = four.call(function, *arguments)
        assert others == [first] * 3
        return first

    return call


def test_rates(alike, tmp_path):
    found = alike(range_group.rates, tmp_path / "four", "DDP", 4)
    assert found[0] == range_group.rates(tmp_path / "one", "DDP", 1)[0]


def test_rungs(alike, tmp_path):
    found = alike(auto_group.trained, tmp_path / "four", "DDP", 4, True)
    assert found[0] == auto_group.trained(tmp_path / "one", "DDP", 1, True)[0]


def test_a_trial(alike, tmp_path):
    assert alike(auto_group.tried, tmp_path / "four", 4) == auto_group.tried(tmp_path / "one", 1)


def test_stages(alike, tmp_path):
    inputs = write_inputs(tmp_path)
    both = [stage(inputs, "help"), stage(inputs, "harm", rate=0.1, epochs=3)]
    assert alike(stage_group.trained, inputs, tmp_path / "four", both, 4)[0] == [("Yes", 60), ("No", 72)]
