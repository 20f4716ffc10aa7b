"""Every reason that code gives is in contracts/reasons.py, and every one there is given."""

import ast
from typing import get_args

import pytest

from tests.skew.names import _nodes, _trees, _words, trainer_reasons
from unfreeze_api.contracts import reasons

TYPES = {
    "RunningReason": reasons.RUNNING,
    "SuspendedReason": reasons.SUSPENDED,
    "CompleteReason": reasons.COMPLETE,
    "FailedReason": reasons.FAILED,
    "CheckpointBrokenReason": reasons.CHECKPOINT_BROKEN,
    "UsefulReason": reasons.USEFUL,
    "TrainerReason": reasons.TRAINER,
    "EventReason": reasons.EVENT,
    "PodReason": reasons.POD,
}
KUBERNETES = {"PodFailurePolicy"}
"""What the Job controller gives as a reason, and the operator passes on without a look."""


@pytest.mark.parametrize("name", TYPES)
def test_each_reason_of_a_type_is_told(name):
    assert tuple(TYPES[name]) == get_args(getattr(reasons, name))
    for explained in TYPES[name].values():
        assert explained.meaning
        assert explained.remedy
        assert "|" not in "".join(explained)


@pytest.mark.slow
def test_a_trainer_gives_these_reasons_and_no_others():
    assert set(trainer_reasons(_trees("crds", "trainer"))) == reasons.TRAINER.keys()


@pytest.mark.slow
def test_the_operator_gives_each_of_its_reasons():
    trees = _trees("operator")
    words = {node.value for node in _nodes(trees, ast.Constant) if isinstance(node.value, str)}
    own = {reason for explained in (*reasons.CONDITIONS.values(), reasons.EVENT, reasons.POD) for reason in explained}
    assert own - words == KUBERNETES | {"Created"}, "names stay, and this one is no longer given"


def test_a_failure_has_a_reason_that_is_told():
    failures = [call for call in _nodes(_trees("operator"), ast.Call) if ast.unparse(call.func) == "Failure"]
    given = {
        word
        for call in failures
        for keyword in call.keywords
        if keyword.arg == "reason"
        for word in _words(keyword.value)
    }
    assert given
    assert given <= reasons.FAILED.keys()
