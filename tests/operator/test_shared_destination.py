"""Two jobs that have not ended and write to one place: each is told of the other."""

import dataclasses

import pytest

from tests.operator.fakes import FakeCluster, job
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.decisions.events import notes
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.packing import pack
from unfreeze_operator.objects.views import fine_tune_job_view
from unfreeze_operator.observed.context import sharing
from unfreeze_operator.reconcile import Caches

PLACE = "pvc://runs/a"


def placed(name, destination=PLACE, *, phase="Running", namespace="ns", version=1):
    view = job(name=name, uid=f"uid-{name}-{namespace}")
    status = {"phase": phase} | ({"completionTime": "2026-01-01T00:00:00Z"} if phase in ("Succeeded", "Failed") else {})
    return dataclasses.replace(view, namespace=namespace, destination=destination, version=version, status=pack(status))


def caches(*views, told=lambda _: None):
    known = Caches(Cache(told, place=lambda view: view.destination), *(Cache(told) for _ in range(7)))
    for view in views:
        known.fine_tune_jobs.put(view)
    return known


def test_the_destination_is_read_from_the_spec():
    assert fine_tune_job_view({"metadata": meta(), "spec": {"output": {"destination": PLACE}}}).destination == PLACE
    for spec in ({"output": {"destination": "file:///run"}}, {"output": None}, {"output": {"destination": None}}, {}):
        assert fine_tune_job_view({"metadata": meta(), "spec": spec}).destination == ""


def meta():
    return {
        "name": "a",
        "namespace": "ns",
        "uid": "1",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (placed("b"), ["b"]),
        (placed("b", phase="Suspended"), ["b"]),
        (placed("b", phase="Succeeded"), []),
        (placed("b", phase="Failed"), []),
        (placed("b", "pvc://runs/b"), []),
        (placed("b", namespace="elsewhere"), []),
    ],
)
def test_others_count_that_have_not_ended_in_the_same_place(other, named):
    assert caches(placed("a"), other).beside(placed("a")) == named


def test_what_has_ended_is_told_nothing():
    assert caches(placed("a"), placed("b")).beside(placed("a", phase="Succeeded")) == []


def test_files_of_images_are_no_common_place():
    assert caches(placed("a", ""), placed("b", "")).beside(placed("a", "")) == []


def test_who_comes_and_goes_is_told_to_the_others():
    told = []
    known = caches(placed("a"), told=told.append)
    told.clear()
    known.fine_tune_jobs.put(placed("b"))
    assert told == [("ns", "b"), ("ns", "a")]
    known.fine_tune_jobs.put(placed("b", "pvc://runs/b", version=2))
    assert known.beside(placed("a")) == []
    known.fine_tune_jobs.put(placed("b", version=3))
    told.clear()
    known.fine_tune_jobs.remove(placed("b", version=3))
    assert told == [("ns", "b"), ("ns", "a")]
    assert known.beside(placed("a")) == []


def test_it_is_a_warning_and_an_event():
    (warning,) = sharing(["c", "b"])
    context = FakeCluster().context(job())
    deprecated = "spec.output.export is deprecated"
    first = plan(dataclasses.replace(context, warnings=(deprecated, warning))).status
    assert first.warnings == [deprecated, warning]
    told = [
        note for note in notes(FineTuneJobStatus(), first) if note.reason in ("DeprecatedField", "SharedDestination")
    ]
    assert [(note.type, note.reason, note.text) for note in told] == [
        ("Warning", "DeprecatedField", deprecated),
        ("Warning", "SharedDestination", warning),
    ]
    assert warning.startswith("spec.output.destination is also that of b, c: ")
    assert notes(first, first) == []


def test_a_warning_fits_into_the_status():
    (warning,) = sharing([f"{number:03}-{'x' * 60}" for number in range(100)])
    assert len(warning) <= 512
    assert "(100 jobs)" in warning
    assert sharing([]) == []
