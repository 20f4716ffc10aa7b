"""Jobs whose spec has fields under their former names: they run as any other, and say so where it is seen and lasts."""

import dataclasses
import json

import pytest

from tests.cluster.cluster import REPOSITORY
from tests.crds.corpus import released
from tests.operator.fakes import FakeCluster, job
from tests.operator.process import CRD, established, install
from tests.operator.world import condition, spec, until
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.events import notes
from unfreeze_operator.decisions.plan import plan

WARNING = "spec.output.export is deprecated: write exports, the former name is gone in the next minor release"


def observed(*warnings, old=None):
    context = FakeCluster().context(job(), old)
    return plan(dataclasses.replace(context, warnings=warnings)).status


def told(old, new):
    return [(note.type, note.text) for note in notes(old, new) if note.reason == "DeprecatedField"]


def test_a_warning_is_told_once_and_lasts_until_the_spec_is_mended():
    first = observed(WARNING)
    assert first.warnings == [WARNING]
    assert told(FineTuneJobStatus(), first) == [("Warning", WARNING)]
    second = observed(WARNING, old=first)
    assert second.warnings == [WARNING]
    assert told(first, second) == []
    third = observed(old=second)
    assert third.warnings == []
    assert told(second, third) == []


def test_there_are_never_more_warnings_than_the_crd_takes():
    assert len(observed(*(f"warning {number}" for number in range(20))).warnings) == 16


def former(body):
    body["adapter"] = {"type": "LoRA"}
    body["output"]["export"] = ["Adapter", "Merged"]
    return body


@pytest.mark.cluster
def test_jobs_that_an_earlier_release_has_stored_go_on_under_the_new_crd(lone_operator, world):
    cluster = world.cluster
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=released("0.1.0"))
    cluster.wait_for(CRD, established)

    def knows(name, known):
        code, answer = cluster.request("GET", "/openapi/v3/apis/unfreeze.dev/v1alpha1")
        return code == 200 and (f'"{name}"' in json.dumps(answer)) == known

    try:
        until(lambda: knows("exports", False), "the former schema")
        made = [world.create(name, former(spec(name, fake={"holdAt": 2}))) for name in ("job", "again")]
        assert made[0]["spec"]["output"]["export"] == ["Adapter", "Merged"]
    finally:
        install(cluster, REPOSITORY)
    until(lambda: knows("exports", True), "today's schema")
    lone_operator.start()

    status = world.wait(lambda s: s.get("progress", {}).get("step") == 2)
    assert status["warnings"] == [WARNING]
    told = [event for event in world.list("events") if event["reason"] == "DeprecatedField"]
    assert {(event["type"], event["regarding"]["name"]) for event in told} == {("Warning", "job"), ("Warning", "again")}
    resolved = json.loads(cluster.get(world.path("configmaps", "job-job"))["data"]["job.json"])
    assert resolved["output"]["export"] == ["Adapter", "Merged"]

    world.suspend(True)
    world.wait_phase("Suspended")
    # Mended while it is suspended: nothing of what it trains changes.
    world.patch({"output": {"export": None, "exports": ["Adapter", "Merged"]}})
    world.wait(lambda s: "warnings" not in s)
    again = json.loads(cluster.get(world.path("configmaps", "job-job"))["data"]["job.json"])
    assert again == resolved
    world.wait(lambda s: s.get("progress", {}).get("step") == 2, "again")
    world.suspend(False)
    for name in ("job", "again"):
        world.go(name)
        assert condition(world.wait_phase("Succeeded", name), "Complete")["status"] == "True"
    assert "warnings" in world.status("again"), "what has ended stays as it was"
