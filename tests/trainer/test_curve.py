"""`unfreeze curve`: what transfer is worth at several sizes of the data, in a sentence."""

from __future__ import annotations

import json
import math
import re

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_report import REPORT
from unfreeze_trainer.commands.curve import curve
from unfreeze_trainer.judgement.curve import Point, verdict
from unfreeze_trainer.judgement.paired import Difference
from unfreeze_trainer.judgement.worth import Comparison, Trained, against_scratch


def said(*points, other="random weights"):
    return verdict([Point(*point) for point in points], metric="accuracy", other=other)


def test_one_size_says_nothing_of_others():
    assert said((700, 0.457, 0.406, 0.489)) == (
        "transfer is worth +0.457 (+0.406 to +0.489) accuracy over random weights at 700 training samples; how that changes with"
        " more is not known of one size"
    )


def test_the_curves_meet_where_the_line_is_0():
    """By construction: .6 at 100 samples, .4 at 1,000, so 0 at 100,000 samples, too far; .6 at 100 and .2 at 1,000: 0 at 3,200."""
    points = [(100, 0.6, 0.58, 0.62), (1000, 0.2, 0.18, 0.22)]
    found = said(*points)
    assert found.startswith(
        "transfer is worth +0.200 (+0.180 to +0.220) accuracy over random weights at 1,000 training samples; "
    )
    assert "the gain changes by -0.400 (-0.428 to -0.372) for each ten times as many, from 100 on" in found
    assert "the curves meet at about 3,200 samples" in found
    low, high = (int(figure.replace(",", "")) for figure in re.search(r"\(([\d,]+) to ([\d,]+)\)$", found).groups())
    assert 2600 <= low < 3200 < high <= 3900
    assert found == said(*reversed(points)), "in whatever order"
    assert said((100, 0.6, 0.58, 0.62), (1000, 0.4, 0.38, 0.42)).endswith(
        "where it ends is further than 10,000 samples"
    )


def test_the_unit_of_a_metric_does_not_matter():
    """Errors of prices and of returns have the same curve: gains of thousandths are no noise, and are told with digits that count."""
    points = [(100, 0.6, 0.58, 0.62), (1000, 0.2, 0.18, 0.22)]
    small = said(*((samples, *(1e-3 * value for value in gains)) for samples, *gains in points))
    assert small.startswith("transfer is worth +0.000200 (+0.000180 to +0.000220) accuracy over random weights")
    assert small.partition("the curves meet ")[2] == said(*points).partition("the curves meet ")[2] != ""


def test_what_is_not_shown_is_not_said():
    assert said((100, 0.3, 0.1, 0.5), (200, 0.29, 0.1, 0.5)).endswith("that it ends is not shown")
    assert said((100, 0.3, 0.2, 0.4), (200, 0.5, 0.4, 0.6)).endswith("that it ends is not shown")
    wide = said((100, 0.3, 0.2, 0.4), (1000, 0.1, 0.02, 0.18))
    assert "the curves meet at about 3,200 samples (" in wide
    assert wide.endswith(" to more than 10,000)")


def test_where_the_gains_are_on_no_line_the_largest_sizes_tell_and_no_meeting_lies_where_there_is_a_gain():
    """The line through all three is 0 at 790 samples, where more than .05 is gained."""
    found = said(
        *((samples, gain, gain - 0.03, gain + 0.03) for samples, gain in ((50, 0.8), (200, 0.1), (1000, 0.05)))
    )
    assert " for each ten times as many, from 200 on: the curves meet at about 5,000 samples (" in found
    flat = said(*((samples, gain, gain - 0.03, gain + 0.03) for samples, gain in ((50, 0.9), (200, 0.3), (1000, 0.28))))
    assert flat.endswith(", from 200 on: that it ends is not shown")
    assert " (1,000 to " in said((100, 0.6, 0.5, 0.7), (1000, 0.05, 0.001, 0.099))


def test_of_several_runs_of_a_size_the_mean_is_said_and_not_the_best():
    assert said((1000, 0.3, 0.2, 0.4), (1000, 0.0, -0.1, 0.1), (1000, -0.1, -0.2, 0.0)).startswith(
        "transfer is worth nothing that accuracy shows at 1,000 training samples: +0.067 (-0.033 to +0.167)"
    )


def test_where_nothing_is_gained_that_stands_first():
    assert said((100, 0.3, 0.2, 0.4), (1000, 0.0, -0.1, 0.1)).startswith(
        "transfer is worth nothing that accuracy shows at 1,000 training samples: +0.000 (-0.100 to +0.100) over random weights"
    )
    assert said((1000, -0.2, -0.3, -0.1), other="classical models").startswith(
        "classical models do better at 1,000 training samples, by 0.200 accuracy (0.100 to 0.300)"
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**7), st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=5))
def test_every_curve_has_a_sentence(points):
    found = said(*((samples, gain, gain - reach, gain + reach) for samples, gain, reach in points))
    assert "nan" not in found
    assert "inf" not in found
    assert "\n" not in found


def decision(gain, samples):
    difference = Difference(0.5 + gain, 0.5, gain - 0.05, gain + 0.05, 100, "a test")
    worse = Difference(0.5 + gain, 0.3, gain + 0.1, gain + 0.3, 100, "a test")
    trained = [Trained(worse, 5, 5, 1.0), Trained(difference, 9, 9, 2.0)]
    return against_scratch(Comparison(difference, "accuracy", 3, 1.0), trained, seconds=1.0, samples=samples)


@pytest.fixture
def run(tmp_path):
    def write(samples, gain=None, **change):
        data = REPORT.data.model_copy(update={"splits": REPORT.data.splits | {"train": samples}})
        decisions = [] if gain is None else [decision(gain, samples)]
        report = REPORT.model_copy(update={"data": data, "decisions": decisions, **change})
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "report.json").write_text(report.to_json())
        return str(folder)

    return write


def test_runs_make_a_curve(run):
    runs = [run(1000, 0.2), run(100, 0.6)]
    done = CliRunner().invoke(curve, runs)
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("│")]
    assert [re.findall(r"[\d,.+-]+", row)[:2] for row in rows] == [["100", "+0.600"], ["1,000", "+0.200"]]
    assert "Transfer is worth +0.200 (+0.150 to +0.250) accuracy over random weights" in done.output
    [found] = json.loads(CliRunner().invoke(curve, ["--output", "json", *runs]).output)["curves"]
    assert [point["samples"] for point in found["points"]] == [100, 1000]
    assert math.isclose(found["points"][0]["gain"], 0.6)


def test_what_makes_no_curve_is_named(run):
    done = CliRunner().invoke(curve, [run(100), run(1000)])
    assert (done.exit_code, "set evidence.scratch or evidence.baseline" in done.output) == (1, True)
    done = CliRunner().invoke(curve, [run(100, 0.5), run(1000, 0.2, strategy="Auto")])
    assert "has the strategy Auto, and " in done.output
    once = run(100, 0.5)
    for twice in (once, f"{once}/", f"{once}/report.json"):
        done = CliRunner().invoke(curve, [once, run(1000, 0.2), twice])
        assert (done.exit_code, "are the same run: name it once" in done.output) == (1, True)
