"""The children as manifests: names within their limits, the pod's contract, the restricted security context."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.fakes import IMAGE, FakeCluster, job
from unfreeze_operator.manifests.children import config_map, indexed_job, network_policy, service, spec_hash
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.packing import pack, unpack
from unfreeze_operator.objects.resources import GangNames, child_name
from unfreeze_operator.settings.network import Network
from unfreeze_operator.settings.options import TrainerImage

NAMES = GangNames.of("job")


def made(view, image=IMAGE):
    context = FakeCluster().context(view)
    return indexed_job(view, context.spec, image, Carried(), NAMES)


def pod_of(view, image=IMAGE):
    return made(view, image)["spec"]["template"]["spec"]


@pytest.mark.slow
@given(st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True))
def test_names_and_labels_stay_within_63_characters_at_rank_511(name):
    short = child_name(name)
    names = GangNames.of(name)
    assert len(f"{names.job}-511") <= 63 >= len(names.service)
    assert child_name(name) == short
    assert short == name or len(name) > 52
    view = job(name=name)
    for manifest in (
        config_map(view, FakeCluster().context(view).spec, NAMES),
        service(view, NAMES.service),
        network_policy(view, Network()),
        made(view),
    ):
        assert all(len(value) <= 63 for value in manifest["metadata"]["labels"].values())


def test_long_names_stay_apart():
    assert child_name("a" * 60) != child_name("a" * 61)


def test_the_job_is_indexed_and_fails_at_once_on_its_own_errors():
    spec = made(job(nodes=3, backoffLimit=2))["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 3, "Indexed")
    assert spec["backoffLimit"] == 2
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob", "Ignore"]
    assert [rule["onExitCodes"]["values"] for rule in rules[1:]] == [[2], [143]]


def test_the_pod_keeps_the_contract():
    pod = pod_of(job())
    (container,) = pod["containers"]
    env = {variable["name"]: variable for variable in container["env"]}
    assert env["UNFREEZE_JOB"]["value"] == "/etc/unfreeze/job.json"
    assert env["UNFREEZE_JOB_UID"]["value"] == job().uid == "u1"
    assert env["POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert container["command"] == ["unfreeze-trainer"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == {"/etc/unfreeze", "/tmp", "/dev/shm", "/mnt/claims/shared"}
    assert mounts["/mnt/claims/shared"]["readOnly"] is False
    assert pod["subdomain"] == NAMES.service
    assert pod["automountServiceAccountToken"] is False


def test_images_are_pulled_with_the_operators_secrets_unless_the_template_names_some():
    image = TrainerImage("registry.example/trainer:1", ("registry",))
    assert pod_of(job(), image)["imagePullSecrets"] == [{"name": "registry"}]
    view = job()
    template = {"template": {"imagePullSecrets": [{"name": "mine"}]}}
    own = replace(view, spec=pack(json.loads(unpack(view.spec)) | template))
    assert pod_of(own, image)["imagePullSecrets"] == [{"name": "mine"}]
    assert "imagePullSecrets" not in pod_of(job())


def test_the_pod_is_restricted():
    pod = pod_of(job())
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = pod["containers"][0]["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_the_hash_does_not_change_with_what_may_change_at_any_time():
    first, second = job(), job(suspend=True, ttlSecondsAfterFinished=5)
    contexts = [FakeCluster().context(view) for view in (first, second)]
    assert spec_hash(first, contexts[0].spec) == spec_hash(second, contexts[1].spec)
    for other in (job(nodes=2), job(hangTimeoutSeconds=60), job(budget={"hours": 2})):
        assert spec_hash(other, FakeCluster().context(other).spec) != spec_hash(first, contexts[0].spec)


def test_children_name_their_owner_and_copy_nothing_else():
    view = job(queue="team-a")
    context = FakeCluster().context(view)
    made = [config_map(view, context.spec, NAMES), service(view, NAMES.service), network_policy(view, Network())]
    made.append(indexed_job(view, context.spec, IMAGE, Carried(), NAMES))
    for manifest in made:
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("u1", True, False)
        labels = dict(manifest["metadata"]["labels"])
        labels.pop("kueue.x-k8s.io/queue-name", None)
        assert labels == {"app.kubernetes.io/managed-by": "unfreeze-operator", "unfreeze.dev/job-name": "job"}


def test_the_priority_in_a_queue_is_handed_on():
    view = replace(job(queue="team-a"), priority_class="urgent")
    spec = FakeCluster().context(view).spec
    labels = indexed_job(view, spec, IMAGE, Carried(), NAMES)["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/priority-class"] == "urgent"
    labels = indexed_job(replace(view, queue=""), spec, IMAGE, Carried(), NAMES)["metadata"]["labels"]
    assert not [name for name in labels if "kueue" in name]


def test_empty_folders_have_limits():
    def limits(memory):
        view = job()
        body = json.loads(unpack(view.spec))
        body["distribution"]["resourcesPerNode"] = {"limits": {"memory": memory}} if memory else {}
        volumes = pod_of(replace(view, spec=pack(body)))["volumes"]
        return {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in volumes if "emptyDir" in volume}

    assert limits(None) == {"tmp": "20Gi", "shm": "16Gi"}
    assert limits("64Gi") == {"tmp": "20Gi", "shm": "64Gi"}
    assert limits(2**30) == {"tmp": "20Gi", "shm": "1073741824"}
