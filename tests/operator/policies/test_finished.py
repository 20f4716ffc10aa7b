"""A finished job stays as it is."""

import pytest

from tests.operator.fakes import NOW, FakeCluster, job
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.policies import finished


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", None])  # None: of a later version
def test_nothing_is_made_again(phase):
    made = plan(FakeCluster().context(job(generation=7), FineTuneJobStatus(phase=phase, completion_time=NOW)))
    assert made.actions == ()
    assert (made.status.phase, made.status.observed_generation) == (phase, 7)


def test_a_failure_that_can_mend_is_not_the_end():
    assert finished.check(FakeCluster().context(job(), FineTuneJobStatus(phase="Failed"))) is None
