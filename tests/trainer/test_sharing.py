"""Which phases share what frozen blocks have computed."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.jobs import make_job
from unfreeze_trainer.features import cached
from unfreeze_trainer.phases.sharing import shared_cuts
from unfreeze_trainer.training.cuts import share_cuts
from unfreeze_trainer.training.plan import Plan


def spared(takes, shares, reads, fewest=1.5):
    """Return what is spared, and None where phases take what they cannot."""
    found = 0.0
    for cut, run in itertools.groupby(range(len(takes)), key=takes.__getitem__):
        places = list(run)
        if cut != places[-1] or (len(places) > 1 and any(shares[place] is None for place in places)):
            return None
        total = sum(reads[place] for place in places)
        found += (shares[cut] or 0.0) * (total - 1) if total >= fewest else 0.0
    return found


def test_gradual_unfreezing_shares_lower_cuts():
    shares = [6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, None]
    takes = shared_cuts(shares, [1.0] * 7, fewest=1.5)
    assert takes == [2, 2, 2, 4, 4, 5, 6]
    assert spared(takes, shares, [1.0] * 7) == pytest.approx(2 * 4 / 6 + 2 / 6)


def test_a_phase_that_reads_often_keeps_its_own():
    assert shared_cuts([0.9, 0.5, None], [5.0, 5.0, 1.0], fewest=1.5) == [0, 1, 2]
    assert shared_cuts([0.9, None], [1.0, 3.0], fewest=1.5) == [0, 1], "nothing is shared with what has none"
    assert shared_cuts([], [], fewest=1.5) == []


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats(0.01, 1)), st.floats(0.1, 4)), min_size=1, max_size=6).map(
        lambda rows: [*zip(*rows, strict=True)]
    )
)
def test_no_other_way_spares_more(given_):
    shares, reads = given_
    takes = shared_cuts(shares, reads, fewest=1.5)
    ways = []
    for ends in itertools.product((False, True), repeat=len(shares) - 1):
        bounds = [*(place for place, end in enumerate(ends) if end), len(shares) - 1]
        ways.append([next(bound for bound in bounds if bound >= place) for place in range(len(shares))])
    best = max(found for way in ways if (found := spared(way, shares, reads)) is not None)
    assert spared(takes, shares, reads) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("room", "taken"), [(100_000, [1, 1, 2]), (1_000, [0, 1, 2])], ids=["room", "none"])
def test_a_lower_cut_that_has_no_room_is_not_shared(monkeypatch, room, taken):
    """Head and top layer of a network of pictures: the pooled vectors fit, what the lower layers give does not."""
    strategy = {"type": "GradualUnfreezing"}
    job = make_job("/none", "/none.csv", strategy=strategy, training={"epochs": 3})
    blocks = ["layer.0", "layer.1", "head"]
    plan = Plan.of(job, blocks, samples=9, steps_per_epoch=3)
    cuts = {
        index: SimpleNamespace(blocks=lambda *_, count=count: blocks[:count], row_bytes=lambda _, size=size: size)
        for index, count, size in ((0, 2, 4), (1, 1, 4_000))
    }
    task = SimpleNamespace(
        splits={"train": 9, "validation": 3}, repeats=lambda _: True, lengths=lambda split: np.zeros(task.splits[split])
    )
    monkeypatch.setattr(cached, "available_bytes", lambda: room)
    found, shared = share_cuts(cuts, plan, task, None, (), place=None)
    assert [shared.cut_of(index) for index in range(3)] == taken
    assert found == {0: cuts[taken[0]], 1: cuts[1]}
