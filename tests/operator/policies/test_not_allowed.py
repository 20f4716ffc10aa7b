"""What the platform does not allow is refused before a Job is made; jobs that run are left alone."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.fakes import FakeCluster, job
from unfreeze_api.job import parse_spec
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.packing import pack, unpack
from unfreeze_operator.objects.resources import JOBS
from unfreeze_operator.settings.allowed import NODE_ANNOTATIONS, Allowed, objections
from unfreeze_operator.status.build import condition


def asking(view=None, **template):
    view = view or job()
    body = json.loads(unpack(view.spec))
    body["template"] = {**body["template"], **template}
    return replace(view, spec=pack(body))


def refused(template, allowed=None):
    return objections(parse_spec(json.loads(unpack(asking(**template).spec))), allowed or Allowed())


@pytest.mark.parametrize(
    "key",
    [
        "io.kubernetes.cri-o.Devices",
        "cpu-load-balancing.crio.io",
        "seccomp-profile.kubernetes.cri-o.io/trainer",
        "io.katacontainers.config.hypervisor.path",
        "dev.gvisor.spec.mount.a.type",
        "cdi.k8s.io/all",
        "devices.nri.io/container.trainer",
        "k8s.v1.cni.cncf.io/networks",
        "seccomp.security.alpha.kubernetes.io/pod",
        "rdt.resources.beta.kubernetes.io/pod",
        "iam.amazonaws.com/role",
        "sidecar.istio.io/userVolumeMount",
    ],
)
def test_annotations_that_act_on_the_node_are_refused_by_default(key):
    (text,) = refused({"annotations": {key: "x", "example.com/note": "y", "sidecar.istio.io/inject": "false"}})
    assert f"template.annotations[{key}]" in text
    assert refused({"annotations": {key: "x"}}, Allowed(refused_annotations=())) == []


@given(st.sampled_from(NODE_ANNOTATIONS), st.text("abc.-/", max_size=8))
def test_every_pattern_matches_what_it_stands_for(pattern, rest):
    key = pattern.replace("*", rest)
    assert objections(parse_spec_with({"annotations": {key: ""}}), Allowed())


def parse_spec_with(template):
    spec = parse_spec(json.loads(unpack(job().spec)))
    return spec.model_copy(update={"template": spec.template.model_copy(update=template)})


@pytest.mark.parametrize(
    ("template", "allowed", "told"),
    [
        ({"labels": {"app": "postgres"}}, Allowed(), []),
        (
            {"labels": {"app": "postgres", "team": "ml"}},
            Allowed(labels=("team",)),
            ["template.labels[app] is none of team"],
        ),
        ({"labels": {"example.com/a": "b"}}, Allowed(labels=("example.com/*",)), []),
        ({"labels": {"a": "b"}}, Allowed(labels=()), ["those that are allowed, which are none"]),
        ({"labels": {"kueue.x-k8s.io/queue-name": "q"}}, Allowed(), ["is Kueue's"]),
        ({"labels": {"kueue.x-k8s.io/managed": "true"}}, Allowed(labels=("*",)), ["is Kueue's"]),
        ({"priorityClassName": "high"}, Allowed(), []),
        ({"priorityClassName": "system-node-critical"}, Allowed(), ["for the cluster's own pods"]),
        ({"priorityClassName": "system-node-critical"}, Allowed(priority_classes=("system-*",)), []),
        ({"priorityClassName": "high"}, Allowed(priority_classes=("low", "mid-*")), ["high is none of low, mid-*"]),
        ({"runtimeClassName": "kata"}, Allowed(), []),
        ({"runtimeClassName": "kata"}, Allowed(runtime_classes=("gvisor",)), ["kata is none of gvisor"]),
        ({}, Allowed(labels=(), priority_classes=(), runtime_classes=()), []),
    ],
)
def test_the_platforms_lists(template, allowed, told):
    found = refused(template, allowed)
    assert len(found) == len(told)
    assert all(text in one for text, one in zip(told, found, strict=True))


def test_no_job_is_made_and_the_status_says_why():
    cluster = FakeCluster()
    made = cluster.step(asking(priorityClassName="system-node-critical"))
    assert made.actions == ()
    assert (made.status.phase, made.status.failure.reason) == ("Failed", "Refused")
    assert "system-node-critical" in condition(made.status, "Running").message
    assert made.status.completion_time is None, "another spec mends it"
    mended = cluster.step(job(generation=2), made.status)
    assert JOBS in [action.resource for action in mended.actions]


@pytest.mark.parametrize("character", ["x", "€", "\U0001f9ca"])
def test_a_spec_has_at_most_512_kib_of_json(character):
    long = character * 4096  # as long as a variable may be, in characters
    rest = 524_288 - len(json.dumps(json.loads(unpack(asking(env=[]).spec)), separators=(",", ":")))
    number = rest // (len(long.encode()) + len('{"name":"E000","value":""},'))

    def made(more):
        env = [{"name": f"E{index:03}", "value": long} for index in range(number + more)]
        return FakeCluster().step(asking(env=env))

    assert JOBS in [action.resource for action in made(0).actions]
    assert made(1).actions == ()
    assert "more than 524288" in made(1).status.failure.message


def test_a_job_that_runs_keeps_what_it_was_made_with():
    cluster, view = FakeCluster(), asking(priorityClassName="batch")
    cluster.step(view)
    narrowed = replace(cluster.context(view), allowed=Allowed(priority_classes=()))
    assert plan(narrowed).status.phase != "Failed"


def test_a_suspended_job_is_not_recreated_with_what_is_not_allowed():
    cluster = FakeCluster()
    cluster.step(job(suspend=True))
    before = cluster.job()
    changed = asking(job(suspend=True, generation=2), annotations={"cdi.k8s.io/all": "nvidia.com/gpu=all"})
    made = cluster.step(changed)
    assert (made.actions, made.status.failure.reason) == ((), "Refused")
    assert cluster.job() is before
