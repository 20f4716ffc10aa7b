"""No name that other versions, dashboards and scripts read is ever renamed or taken away."""

import ast
import functools
import json

import pytest

from tests.skew.names import COMMAND, fields, gather, golden, lost, properties, run_events, series, trainer_reasons
from unfreeze_api.contracts.progress import Progress
from unfreeze_api.generate.crd import schema

now = functools.cache(gather)


@pytest.mark.slow
@pytest.mark.parametrize("place", golden())
def test_every_name_is_still_there(place):
    gone = lost({place: now().get(place, [])}, {place: golden()[place]})
    assert gone == [], "other versions read these names: add an alias, so that the old name is still written and read"


@pytest.mark.slow
def test_names_that_are_added_are_in_the_list():
    added = lost(golden(), now())
    assert added == [], f"names that stay from now on; `{COMMAND}` adds them to the list"


# What the list is made by finds names, and names that are missing.


def test_a_name_that_is_gone_is_found_wherever_it_stood():
    assert sum(map(len, golden().values())) > 500
    for place, names in golden().items():
        assert names, place
        assert lost(golden() | {place: names[1:-1]}, golden()) == [f"{place}: {name}" for name in (names[0], names[-1])]


def test_fields_are_found_at_every_depth_with_their_words():
    told = set(fields(Progress))
    assert {"phaseName", "checkpoint.step", "phases[].trainableParameters", 'state = "Evaluating"'} <= told
    told = set(properties(schema()))
    assert {"spec.training.earlyStopping.minDelta", "status.conditions[].type", 'spec.strategy.type = "BitFit"'} <= told
    assert "spec.template.affinity.nodeAffinity" in {path.partition("[")[0].rpartition(".required")[0] for path in told}


def test_events_of_a_run_must_be_seen_where_they_are_added():
    def found(source):
        return list(run_events([ast.parse(source)]))

    assert found("self.events.add('start', step=1, host='h')\nseen.add('x')") == [("start", ["step", "host"])]
    for hidden in ("events.add(kind, step=1)", "run._events.add('start', **more)", "events.add('start', more)"):
        with pytest.raises(ValueError, match="write kind and keys out"):
            found(hidden)


def test_reasons_of_the_trainer_are_found_in_each_form():
    source = """
raise JobError("Spelt", "message") from error
told = WorkerError(reason="Named", message=reason)
code, reason = 1, "Paired"
reason = "First" if late else "Second" if later else "Third"
reason = error.reason
"""
    assert list(trainer_reasons([ast.parse(source)])) == ["Spelt", "Named", "Paired", "First", "Second", "Third"]


def test_series_have_their_labels():
    page = '# TYPE unfreeze_x_total counter\nunfreeze_x_total{b="1",a="2"} 1\n# TYPE python gauge\npython 1\n'
    assert list(series(page)) == ["unfreeze_x (counter)", "unfreeze_x_total{a, b}"]


def test_the_list_reads_well():
    assert json.loads(json.dumps(golden())) == {place: sorted(names) for place, names in golden().items()}
