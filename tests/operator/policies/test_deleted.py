"""A job that is being deleted is left to the garbage collector."""

from dataclasses import replace

from tests.operator.fakes import FakeCluster, job
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.policies import deleted


def test_a_job_that_is_being_deleted_is_left_alone():
    made = plan(FakeCluster().context(replace(job(), deleting=True)))
    assert (made.actions, made.status) == ((), None)


def test_any_other_job_is_no_matter_of_this_policy():
    assert deleted.check(FakeCluster().context(job())) is None
