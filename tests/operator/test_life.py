"""The life of a job on a real control plane: run, succeed, fail, suspend, resume, change, expire, delete."""

import pytest

from tests.operator.world import CHILDREN, condition, spec, until
from unfreeze_operator.network import ISOLATED, policy_spec

pytestmark = pytest.mark.cluster


def test_the_whole_way(operator, world):
    world.create(nodes=2, fake={"holdAt": 5})
    held = world.wait(lambda status: status.get("progress", {}).get("step") == 5)
    assert held["phase"] == "Running"
    assert held["nodes"]["desired"] == 2
    assert condition(held, "Running")["reason"] == "PodsRunning"
    assert held["summary"] == {"progress": "50% (2/2)", "metric": "accuracy 0.500", "eta": "5s", "checkpoint": ""}
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["results"] == {"test.accuracy": 0.93}
    assert end["progress"]["percent"] == 100
    assert end["phases"][0]["name"] == "head"
    assert end["checkpoint"]["step"] == 10
    assert end["startTime"] <= end["completionTime"]
    assert condition(end, "Complete")["status"] == "True"
    assert condition(end, "Running")["status"] == "False"
    assert "failure" not in end
    world.wait_events("Created", "Running", "Succeeded")


def test_status_moves_during_the_training(operator, world):
    world.create(fake={"steps": 40, "stepSeconds": 0.05})
    seen = set()

    def gather(status):
        seen.add(status.get("progress", {}).get("percent"))
        return status.get("phase") == "Succeeded"

    world.wait(gather)
    assert len(seen) >= 3, seen


def test_a_training_that_had_to_start_over_says_so_in_status_and_events(operator, world):
    lost = {"step": 0, "message": "step-4: weights.safetensors has 7 of 99 bytes: the training started over"}
    world.create(fake={"recovery": lost})
    told = condition(world.wait_phase("Succeeded"), "CheckpointBroken")
    assert (told["status"], told["reason"], told["message"]) == ("True", "StartedOver", lost["message"])
    until(lambda: "CheckpointBroken" in world.events(), "the event")


def test_an_error_of_the_job_itself_fails_it_at_once(operator, world):
    fail = {"index": 1, "at": 0, "exitCode": 2, "reason": "InvalidData", "message": "column label is missing"}
    world.create(nodes=2, fake={"holdAt": 1, "fail": fail}, backoffLimit=5)
    end = world.wait_phase("Failed")
    failure = end["failure"]
    assert (failure["reason"], failure["message"]) == ("InvalidData", "column label is missing")
    assert (failure["rank"], failure["exitCode"]) == (1, 2)
    assert failure["pod"].startswith("job-1-")
    assert failure["node"].startswith("node-")
    assert failure["logTail"] == "Traceback: fake"
    assert end["restarts"]["pods"] == 0
    assert condition(end, "Failed")["reason"] == "InvalidData"
    assert condition(end, "Stalled")["status"] == "True"
    until(lambda: world.events()[-1] == "Failed", "the event")


def test_a_crash_is_retried_and_its_reason_is_shown_meanwhile(operator, world):
    fail = {"at": 3, "exitCode": 1, "silent": True}
    world.create(fake={"holdAt": 5, "fail": fail}, backoffLimit=1)
    held = world.wait(lambda s: s.get("progress", {}).get("step") == 5 and s["restarts"]["pods"] == 1)
    assert held["failure"]["exitCode"] == 1
    assert held["failure"]["logTail"] == "last line of the log"
    assert held["phase"] == "Running"
    world.go()
    end = world.wait_phase("Succeeded")
    assert "failure" not in end
    assert end["restarts"]["pods"] == 1


def test_the_backoff_limit_ends_the_retries(operator, world):
    world.create(fake={"fail": {"at": 1, "exitCode": 1, "times": 9}}, backoffLimit=1)
    end = world.wait_phase("Failed")
    assert end["restarts"]["pods"] == 1
    assert end["failure"]["reason"] == "WorkerFailed"
    assert len(world.children("pods")) == 2


def test_a_pod_that_stops_unasked_is_not_retried_without_end(operator, world):
    world.create(fake={"fail": {"at": 1, "exitCode": 143, "reason": "Stopped", "times": 99}}, backoffLimit=1)
    end = world.wait_phase("Failed")
    assert end["failure"]["reason"] == "UnexpectedStop"
    assert end["failure"]["exitCode"] == 143
    assert end["restarts"]["pods"] >= 1
    world.cluster.wait_for(world.path("jobs", "job"), ended, what="the Job has ended")
    assert world.children("jobs")[0]["status"].get("failed", 0) == 0, "the Job controller counts no 143"
    assert {pod["status"]["phase"] for pod in world.children("pods")} == {"Failed"}
    assert world.status() == end


def ended(job):
    return any(c["type"] == "Failed" and c["status"] == "True" for c in job["status"].get("conditions", ()))


def evict(world, name):
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    code, answer = world.cluster.request("POST", world.path("pods", f"{name}/eviction"), eviction)
    assert code == 201, answer


def delete(world, name):
    world.delete("pods", name)


@pytest.mark.parametrize(("away", "code"), [(evict, 143), (evict, 1), (delete, 143)])
def test_a_pod_that_is_taken_away_costs_nothing(operator, world, away, code):
    """As a drain does it, also with a trainer that does not end as it should; and as a person does it."""
    world.create(nodes=2, fake={"holdAt": 1, "stopCode": code}, backoffLimit=0)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 1)
    first = next(pod for pod in world.children("pods") if pod["metadata"]["name"].startswith("job-1-"))
    away(world, first["metadata"]["name"])
    uid = first["metadata"]["uid"]
    until(lambda: replaced(world, uid), "another pod runs in its place")
    world.go()
    assert "failure" not in world.wait_phase("Succeeded")


def replaced(world, uid):
    pods = [pod for pod in world.children("pods") if pod["status"]["phase"] == "Running"]
    return len(pods) == 2 and uid not in [pod["metadata"]["uid"] for pod in pods]


def test_a_pod_that_is_deleted_before_it_ran_costs_nothing(operator, world):
    """The cluster's own collector would fail it, which the Job controller counts."""
    body = spec()
    unschedulable(body)
    world.create(body=body)
    (waiting,) = world.wait(lambda s: s.get("waiting"))["waiting"]
    world.delete("pods", waiting["pod"])
    status = world.wait(lambda s: s.get("waiting", [waiting])[0]["pod"] != waiting["pod"])
    assert "failure" not in status
    assert world.children("jobs")[0]["status"].get("failed", 0) == 0


def test_preemption_costs_nothing(operator, world, operator_cluster):
    body = spec(nodes=2, fake={"holdAt": 1, "stopCode": 1})
    body["distribution"] |= {"resourcesPerNode": {"limits": {"nvidia.com/gpu": 8}}}
    world.create(body=body)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 1)
    first = {pod["metadata"]["uid"] for pod in world.children("pods")}
    urgent = {"metadata": {"name": "urgent"}, "value": 1000}
    operator_cluster.create("/apis/scheduling.k8s.io/v1/priorityclasses", urgent)
    try:
        limits = {"limits": {"nvidia.com/gpu": "8"}}
        container = {"name": "c", "image": "any", "command": ["sleep", "1000"], "resources": limits}
        safe = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container["securityContext"] = safe
        pod = {"metadata": {"name": "preemptor"}, "spec": {"containers": [container], "priorityClassName": "urgent"}}
        pod["spec"]["terminationGracePeriodSeconds"] = 0
        operator_cluster.create(world.path("pods"), pod)
        path = world.path("pods", "preemptor")
        operator_cluster.wait_for(path, lambda found: found["status"]["phase"] == "Running", what="preemption")
        operator_cluster.request("DELETE", path)
        until(lambda: len(running := uids(world, "Running")) == 2 and running != first, "another pod runs in its place")
        world.go()
        assert "failure" not in world.wait_phase("Succeeded")
    finally:
        operator_cluster.request("DELETE", "/apis/scheduling.k8s.io/v1/priorityclasses/urgent")


def uids(world, phase):
    return {pod["metadata"]["uid"] for pod in world.children("pods") if pod["status"]["phase"] == phase}


def test_out_of_memory_is_called_so(operator, world, operator_cluster):
    world.create(fake={"holdAt": 1})
    world.wait(lambda s: s.get("progress", {}).get("step") == 1)
    (pod,) = world.children("pods")
    operator_cluster.kill_out_of_memory(world.namespace, pod["metadata"]["name"], "trainer")
    end = world.wait_phase("Failed")
    assert (end["failure"]["reason"], end["failure"]["exitCode"]) == ("OutOfMemory", 137)


def test_suspend_and_resume_keep_progress_and_tell_the_truth(operator, world):
    world.create(nodes=2, fake={"holdAt": 5})
    before = world.wait(lambda s: s.get("progress", {}).get("step") == 5)
    world.suspend(True)
    suspended = world.wait_phase("Suspended")
    assert not any(pod["status"]["phase"] == "Running" for pod in world.children("pods"))
    assert condition(suspended, "Suspended")["status"] == "True"
    assert condition(suspended, "Running")["status"] == "False"
    assert suspended["progress"]["step"] == 5
    assert "etaSeconds" not in suspended["progress"]
    assert suspended["checkpoint"]["step"] == 5
    assert suspended["nodes"]["ready"] == 0
    assert suspended["restarts"]["pods"] == 0

    world.suspend(False)
    resumed = world.wait(lambda s: s.get("phase") != "Suspended")
    assert resumed["phase"] in ("Pending", "Running")
    assert condition(resumed, "Suspended")["status"] == "False"
    assert resumed["progress"]["step"] == 5
    running = world.wait_phase("Running")
    assert running["progress"]["step"] >= 5
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["startTime"] == before["startTime"]
    assert end["restarts"]["pods"] == 0
    world.wait_events("Created", "Running", "Suspended", "Resumed", "Running", "Succeeded")


def test_many_suspends_do_not_use_up_the_backoff_limit(operator, world):
    world.create(fake={"holdAt": 1}, backoffLimit=0)
    for _ in range(3):
        world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step", 0) >= 1)
        world.suspend(True)
        world.wait_phase("Suspended")
        world.suspend(False)
        world.wait(lambda s: s.get("phase") != "Suspended")
    world.go()
    world.wait_phase("Succeeded")


def test_suspended_before_its_pods_have_nodes_it_goes_on_later(operator, world):
    body = spec(nodes=2)
    unschedulable(body)
    world.create(body=body)
    for _ in range(2):
        world.wait(lambda s: len(s.get("waiting", [])) == 2)
        world.suspend(True)
        suspended = world.wait_phase("Suspended")
        assert "waiting" not in suspended
        assert "failure" not in suspended
        world.wait_children("pods", 0)
        world.suspend(False)
    world.wait(lambda s: len(s.get("waiting", [])) == 2)
    world.suspend(True)
    world.wait_phase("Suspended")
    world.patch({"template": {"nodeSelector": None}})
    world.suspend(False)
    assert "failure" not in world.wait_phase("Succeeded")


def test_a_job_that_is_made_suspended_starts_when_resumed(operator, world):
    world.create(suspend=True)
    status = world.wait_phase("Suspended")
    assert "startTime" not in status
    assert world.wait_children("jobs", 1)[0]["spec"]["suspend"] is True
    assert world.children("pods") == []
    world.suspend(False)
    world.wait_phase("Succeeded")


def test_what_changed_while_suspended_counts_after_resume(operator, world):
    world.create(fake={"holdAt": 2}, nodes=1)
    world.wait(lambda s: s.get("progress", {}).get("step") == 2)
    world.suspend(True)
    world.wait_phase("Suspended")
    limits = {"requests": {"cpu": "100m"}}
    world.patch({"distribution": {"numNodes": 2, "resourcesPerNode": limits}, "template": {"labels": {"team": "a"}}})
    world.suspend(False)
    running = world.wait(lambda s: s.get("phase") == "Running" and s["nodes"]["desired"] == 2)
    assert running["progress"]["step"] == 2
    pods = world.wait_children("pods", 2)
    assert {pod["metadata"]["labels"]["team"] for pod in pods} == {"a"}
    assert pods[0]["spec"]["containers"][0]["resources"] == limits
    (config,) = world.children("configmaps")
    assert '"numNodes": 2' in config["data"]["job.json"]
    world.go()
    world.wait_phase("Succeeded")


def test_each_cycle_of_suspend_and_resume_takes_up_its_changes(operator, world):
    """Nodes, resources and template there and back again, with the state right after each step."""
    world.create(nodes=1, fake={"holdAt": 2}, backoffLimit=0)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 2)
    for nodes, cpu, team in ((2, "100m", "a"), (1, "200m", "b"), (2, "300m", "c")):
        world.suspend(True)
        suspended = world.wait_phase("Suspended")
        assert condition(suspended, "Suspended")["status"] == "True"
        assert condition(suspended, "Running")["reason"] == "Suspended"
        assert (suspended["nodes"]["ready"], suspended["progress"]["step"]) == (0, 2)
        resources = {"requests": {"cpu": cpu}}
        world.patch({"distribution": {"numNodes": nodes, "resourcesPerNode": resources}})
        world.patch({"template": {"labels": {"team": team}}})
        changed = world.wait(lambda s, nodes=nodes: s["nodes"]["desired"] == nodes)
        assert changed["phase"] == "Suspended"

        world.suspend(False)
        resumed = world.wait(lambda s: s.get("phase") != "Suspended")
        assert resumed["phase"] in ("Pending", "Running")
        assert condition(resumed, "Suspended")["status"] == "False"
        running = world.wait(lambda s, nodes=nodes: s.get("phase") == "Running" and s["nodes"]["ready"] == nodes)
        assert condition(running, "Running")["message"] == f"{nodes} pod{'s' if nodes > 1 else ''} running"
        assert running["progress"]["step"] == 2
        pods = [pod for pod in world.children("pods") if pod["status"]["phase"] == "Running"]
        assert len(pods) == nodes
        assert {pod["metadata"]["labels"]["team"] for pod in pods} == {team}
        assert all(pod["spec"]["containers"][0]["resources"] == resources for pod in pods)
    world.go()
    end = world.wait_phase("Succeeded")
    assert "failure" not in end
    assert end["restarts"]["pods"] == 0


def test_the_deadline_ends_a_job(operator, world):
    world.create(fake={"holdAt": 1}, activeDeadlineSeconds=1)
    end = world.wait_phase("Failed")
    assert end["failure"]["reason"] == "DeadlineExceeded"


@pytest.mark.parametrize(("policy", "left"), [("Running", 1), ("None", 1), ("All", 0)])
def test_what_becomes_of_the_pods_of_a_finished_job(operator, world, policy, left):
    """The second pod fails the job while the first still trains."""
    fail = {"index": 1, "at": 0, "exitCode": 2, "reason": "InvalidData", "message": "no label"}
    world.create(nodes=2, fake={"holdAt": 1, "fail": fail}, cleanPodPolicy=policy)
    end = world.wait_phase("Failed")
    assert end["failure"]["reason"] == "InvalidData"
    pods = world.wait_children("pods", left)
    assert [pod["status"]["phase"] for pod in pods] == ["Failed"] * left
    world.wait_children("jobs", left)
    for pod in pods:
        world.cluster.kubectl("logs", "-n", world.namespace, pod["metadata"]["name"])
    assert world.status() == end


def test_a_finished_job_is_deleted_in_time_with_its_children(operator, world):
    world.create(ttlSecondsAfterFinished=0)
    world.cluster.wait_for(world.path("finetunejobs", "job"), lambda job: job == {}, what="deleted")
    for plural in CHILDREN:
        world.wait_children(plural, 0)


def test_a_ttl_that_is_set_later_counts(operator, world):
    world.create()
    world.wait_phase("Succeeded")
    world.patch({"runPolicy": {"ttlSecondsAfterFinished": 1}})
    world.cluster.wait_for(world.path("finetunejobs", "job"), lambda job: job == {}, what="deleted")


def test_children_of_a_finished_job_are_not_made_again(operator, world):
    world.create()
    world.wait_phase("Succeeded")
    world.delete("jobs", "job")
    world.wait_children("jobs", 0)
    world.patch({"runPolicy": {"ttlSecondsAfterFinished": 3600}})
    world.wait(lambda s: s.get("observedGeneration") == 2)
    assert world.children("jobs") == []
    assert world.status()["phase"] == "Succeeded"


def test_accelerators_are_counted(operator, world):
    body = spec(fake={"holdAt": 1})
    body["distribution"] |= {"resourcesPerNode": {"limits": {"nvidia.com/gpu": 2}}}
    world.create(body=body)
    world.wait(lambda s: s.get("progress", {}).get("step") == 1)
    world.suspend(True)
    first = world.wait_phase("Suspended")["acceleratorSeconds"]
    world.suspend(False)
    world.wait(lambda s: s.get("phase") == "Running")
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["acceleratorSeconds"] >= first
    assert end["acceleratorSeconds"] % 2 == 0


def test_drift_is_repaired_without_touching_the_pods(operator, world):
    world.create(fake={"holdAt": 1})
    world.wait(lambda s: s.get("progress", {}).get("step") == 1)
    (pod,) = world.children("pods")
    original = world.cluster.get(world.path("configmaps", "job-job"))["data"]["job.json"]
    world.cluster.request("PATCH", world.path("configmaps", "job-job"), {"data": {"job.json": "{}"}})
    world.cluster.wait_for(
        world.path("configmaps", "job-job"), lambda found: found["data"]["job.json"] == original, what="repaired"
    )
    world.delete("services", "job")
    world.wait_children("services", 1)
    assert [found["metadata"]["uid"] for found in world.children("pods")] == [pod["metadata"]["uid"]]


def test_the_network_policy_is_stored_as_it_was_written_and_put_right_when_changed(operator, world):
    world.create(fake={"holdAt": 1})
    world.wait_phase("Running")
    (policy,) = world.children("networkpolicies")
    assert policy["spec"] == policy_spec(policy["metadata"]["labels"], ISOLATED)
    change = {"spec": {"podSelector": {"matchLabels": {"other": "pods"}}, "egress": [{}]}}
    assert world.cluster.request("PATCH", world.path("networkpolicies", "job"), change)[0] == 200
    put_right = world.cluster.wait_for(
        world.path("networkpolicies", "job"), lambda found: found["spec"] == policy["spec"], what="put right"
    )
    assert put_right["metadata"]["uid"] == policy["metadata"]["uid"]


def test_a_foreign_object_of_the_same_name_is_reported_and_left_alone(operator, world):
    service = {"metadata": {"name": "job"}, "spec": {"ports": [{"port": 80}]}}
    world.cluster.create(world.path("services"), service)
    world.create()
    status = world.wait(lambda s: condition(s, "Running").get("reason") == "NameTaken")
    assert status["phase"] == "Pending"
    assert "does not belong to this job" in condition(status, "Running")["message"]
    world.delete("services", "job")
    world.wait_phase("Succeeded")


@pytest.fixture
def choosy_cluster(operator_cluster, world):
    """A cluster whose own policy refuses Jobs of the priority class `refused`."""
    group = "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    expression = "!has(object.spec.template.spec.priorityClassName)"
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": expression, "message": "no priorities here"}],
    }
    operator_cluster.create(f"{group}/validatingadmissionpolicies", {"metadata": {"name": "choosy"}, "spec": policy})
    binding = {"policyName": "choosy", "validationActions": ["Deny"]}
    operator_cluster.create(
        f"{group}/validatingadmissionpolicybindings", {"metadata": {"name": "choosy"}, "spec": binding}
    )
    container = {"name": "c", "image": "i"}
    template = {"spec": {"containers": [container], "restartPolicy": "Never", "priorityClassName": "any"}}
    probe = {"metadata": {"name": "probe"}, "spec": {"suspend": True, "template": template}}
    path = f"{world.path('jobs')}?dryRun=All"
    until(lambda: operator_cluster.request("POST", path, probe)[0] == 422, "the policy")
    yield
    for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        operator_cluster.request("DELETE", f"{group}/{kind}/choosy")


def test_a_template_that_the_cluster_refuses_is_a_failure_that_can_be_mended(operator, world, choosy_cluster):
    body = spec()
    body["template"]["priorityClassName"] = "any"
    world.create(body=body)
    status = world.wait_phase("Failed")
    assert status["failure"]["reason"] == "Refused"
    assert "no priorities here" in status["failure"]["message"]
    world.suspend(True)
    world.patch({"template": {"priorityClassName": None}})
    world.wait_phase("Suspended")
    world.suspend(False)
    end = world.wait_phase("Succeeded")
    assert condition(end, "Stalled")["status"] == "False"


def unschedulable(body):
    body["template"]["nodeSelector"] = {"no": "such-node"}


def unpullable(body):
    body["template"]["image"] = "registry.example/none:1"


def secretless(body):
    reference = {"secretKeyRef": {"name": "hub-token", "key": "token"}}
    body["template"]["env"] += [{"name": "TOKEN", "valueFrom": reference}]


def claimless(body):
    body["data"]["train"]["source"] = "pvc://nowhere/train.csv"


def unbound(body):
    body["data"]["train"]["source"] = "pvc://unbound/train.csv"


CAUSES = [
    (unschedulable, "Unschedulable", "affinity/selector"),
    (unpullable, "ImagePull", "registry.example/none:1"),
    (secretless, "ConfigError", 'secret "hub-token" not found'),
    (claimless, "ClaimNotFound", 'persistentvolumeclaim "nowhere" not found'),
    (unbound, "ClaimPending", "PersistentVolumeClaims"),
]


@pytest.mark.parametrize(("spoil", "reason", "words"), CAUSES, ids=[reason for _, reason, _ in CAUSES])
def test_a_gang_that_does_not_become_whole_says_why(operator, world, spoil, reason, words):
    claim = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "none",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    world.cluster.create(world.path("persistentvolumeclaims"), {"metadata": {"name": "unbound"}, "spec": claim})
    body = spec(nodes=2)
    spoil(body)
    world.create(body=body)
    status = world.wait(lambda s: [found["reason"] for found in s.get("waiting", [])] == [reason] * 2, what=reason)
    assert status["phase"] == "Pending"
    assert all(words in found["message"] for found in status["waiting"])
    running = condition(status, "Running")
    assert (running["status"], running["reason"]) == ("False", reason)
    assert running["message"].startswith("job-0-")
    assert running["message"].endswith("(and 1 more)")


def test_pods_that_a_quota_refuses_are_missed(operator, world):
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}}
    world.cluster.create(world.path("resourcequotas"), quota)
    world.cluster.wait_for(
        world.path("resourcequotas", "small"), lambda found: "hard" in found.get("status", {}), what="in effect"
    )
    world.create()
    status = world.wait(lambda s: condition(s, "Running").get("reason") == "PodsMissing")
    assert "kubectl describe job job" in condition(status, "Running")["message"]


def test_a_gang_that_does_not_become_whole_in_time_fails(operator, world):
    body = spec(nodes=2, startupTimeoutSeconds=3)
    body["distribution"]["resourcesPerNode"] = {"limits": {"nvidia.com/gpu": 16}}
    world.create(body=body)
    end = world.wait_phase("Failed")
    assert end["failure"]["reason"] == "StartupTimeout"
    assert "Insufficient nvidia.com/gpu" in end["failure"]["message"]
    assert condition(end, "Failed")["status"] == "True"
    world.cluster.wait_for(world.path("jobs", "job"), ended, what="the Job has ended")
    world.wait_children("pods", 0)
    assert world.status() == end
