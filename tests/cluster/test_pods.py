"""Pods on the test node: how they start, end, restart, are probed and stopped."""

import json
import sys
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.manifests import (
    Json,
    ended,
    free_port,
    main_status,
    output,
    phase,
    pod,
    pod_path,
    run,
    running,
    terminated,
    waiting_reason,
)

pytestmark = pytest.mark.cluster


def test_exit_code_and_termination_message(cluster: Cluster, namespace: str) -> None:
    end = run(cluster, namespace, pod("p", "echo because > /dev/termination-log; exit 7"))
    assert phase(end) == "Failed"
    state = terminated(end)
    assert (state["exitCode"], state["reason"], state["message"]) == (7, "Error", "because\n")
    assert state["startedAt"] <= state["finishedAt"]


def test_success(cluster: Cluster, namespace: str) -> None:
    end = run(cluster, namespace, pod("p", "true"))
    assert phase(end) == "Succeeded"
    assert terminated(end)["reason"] == "Completed"
    conditions = {c["type"]: (c["status"], c.get("reason")) for c in end["status"]["conditions"]}
    assert conditions["Ready"] == ("False", "PodCompleted")
    assert conditions["PodScheduled"][0] == "True"


def test_termination_message_is_cut_and_may_lie_elsewhere(cluster: Cluster, namespace: str) -> None:
    command = "yes | head -c 9999 > /tmp/last-words; exit 1"
    end = run(cluster, namespace, pod("p", command, container={"terminationMessagePath": "/tmp/last-words"}))
    assert len(terminated(end)["message"]) == 4096


def test_termination_message_falls_back_to_the_log(cluster: Cluster, namespace: str) -> None:
    extra = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    end = run(cluster, namespace, pod("p", "echo oh no; exit 1", container=extra))
    assert terminated(end)["message"] == "oh no"


def test_a_signal_is_reported(cluster: Cluster, namespace: str) -> None:
    end = run(cluster, namespace, pod("p", ["sh", "-c", "python3 -c 'import os; os.kill(os.getpid(), 11)'; exit $?"]))
    assert terminated(end)["exitCode"] == 139


def test_environment(cluster: Cluster, namespace: str) -> None:
    objects = f"/api/v1/namespaces/{namespace}"
    cluster.create(f"{objects}/configmaps", {"metadata": {"name": "c"}, "data": {"colour": "red", "size": "9"}})
    cluster.create(f"{objects}/secrets", {"metadata": {"name": "s"}, "stringData": {"password": "xyz"}})
    fields = {
        "NAME": "metadata.name",
        "NODE": "spec.nodeName",
        "IP": "status.podIP",
        "LABEL": "metadata.labels['app']",
    }
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    env += [
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "none", "optional": True}}},
        {"name": "URL", "value": "http://$(NAME)/$(UNKNOWN)/$$(NAME)"},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    extra = {
        "command": ["env"],
        "env": env,
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "c"}}],
        "resources": {"limits": {"memory": "1Gi"}},
    }
    end = run(cluster, namespace, pod("p", "", container=extra, labels={"app": "x"}))
    got = dict(line.split("=", 1) for line in output(cluster, namespace, "p").splitlines())
    want = {
        "NAME": "p",
        "NODE": end["spec"]["nodeName"],
        "IP": end["status"]["podIP"],
        "LABEL": "x",
        "PASSWORD": "xyz",
        "URL": "http://p/$(UNKNOWN)/$(NAME)",
        "MEMORY": "1024",
        "C_colour": "red",
        "C_size": "9",
        "HOSTNAME": "p",
    }
    assert want.items() <= got.items()
    assert "NONE" not in got
    assert "KUBECONFIG" not in got, "nothing of the host's environment gets in"


def test_arguments_working_directory_and_host_name(cluster: Cluster, namespace: str) -> None:
    extra = {
        "args": ["$(A) b"],
        "env": [{"name": "A", "value": "a"}],
        "workingDir": "/not/there/yet",
        "command": ["sh", "-c", 'echo "$0"; pwd; hostname; cat /etc/hostname'],
    }
    run(cluster, namespace, pod("p", "", container=extra, hostname="other"))
    assert output(cluster, namespace, "p").splitlines() == ["a b", "/not/there/yet", "other", "other"]
    assert not Path("/not").exists(), "what a container writes stays in the container"


def test_init_containers_run_in_order_and_a_failed_one_fails_the_pod(cluster: Cluster, namespace: str) -> None:
    def init(name: str, command: str) -> Json:
        mounts = [{"name": "v", "mountPath": "/v"}]
        return {"name": name, "image": "test", "command": ["sh", "-c", command], "volumeMounts": mounts}

    volumes = [{"name": "v", "emptyDir": {}}]
    extra = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    inits = [init("one", "echo 1 >> /v/x"), init("two", "echo 2 >> /v/x")]
    good = pod("good", "cat /v/x", container=extra, initContainers=inits, volumes=volumes)
    bad = pod("bad", "true", initContainers=[init("one", "exit 3")], volumes=volumes)
    cluster.create(pod_path(namespace), bad)
    run(cluster, namespace, good)
    assert output(cluster, namespace, "good") == "1\n2\n"
    end = ended(cluster, namespace, "bad")
    assert end["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert phase(end) == "Failed"


def test_on_failure_restarts_until_success(cluster: Cluster, namespace: str) -> None:
    extra = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    command = "echo run >> /v/runs; test $(wc -l < /v/runs) = 3"
    manifest = pod("p", command, container=extra, restartPolicy="OnFailure", volumes=[{"name": "v", "emptyDir": {}}])
    end = run(cluster, namespace, manifest)
    assert phase(end) == "Succeeded"
    assert main_status(end)["restartCount"] == 2
    assert main_status(end)["lastState"]["terminated"]["exitCode"] == 1


def test_always_restarts_after_success_and_backs_off(cluster: Cluster, namespace: str) -> None:
    cluster.create(pod_path(namespace), pod("p", "true", restartPolicy="Always"))
    cluster.wait_for(pod_path(namespace, "p"), lambda p: waiting_reason(p) == "CrashLoopBackOff")
    cluster.wait_for(pod_path(namespace, "p"), lambda p: main_status(p).get("restartCount", 0) >= 2)


def test_readiness_and_startup_probes(cluster: Cluster, namespace: str) -> None:
    probe = {"exec": {"command": ["test", "-e", "/run/ready"]}, "periodSeconds": 1, "failureThreshold": 1000}
    extra: Json = {
        "readinessProbe": probe,
        "startupProbe": {**probe, "exec": {"command": ["test", "-e", "/run/started"]}},
    }
    gate = [{"name": "gate", "emptyDir": {}}]
    extra["volumeMounts"] = [{"name": "gate", "mountPath": "/gate"}]
    wait = "until test -e /run/go; do test -e /run/started || { touch /run/started; sleep .1; }; touch /run/ready; "
    cluster.create(pod_path(namespace), pod("p", wait + "sleep .1; done", container=extra, volumes=gate))
    seen = cluster.wait_for(pod_path(namespace, "p"), lambda p: main_status(p).get("ready"))
    assert main_status(seen)["started"]
    assert any(c["type"] == "Ready" and c["status"] == "True" for c in seen["status"]["conditions"])


def test_http_and_tcp_probes(cluster: Cluster, namespace: str) -> None:
    port = free_port()
    server = ["python3", "-m", "http.server", "--bind", "$(IP)", str(port)]
    extra = {
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "web", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1},
        "livenessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 1000},
    }
    for name in ("one", "two"):  # the same port twice: each pod has an address of its own
        cluster.create(pod_path(namespace), pod(name, server, container=extra))
    for name in ("one", "two"):
        cluster.wait_for(pod_path(namespace, name), lambda p: main_status(p).get("ready"))


def test_a_failed_liveness_probe_restarts_the_container(cluster: Cluster, namespace: str) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    manifest = pod("p", "trap 'exit 5' TERM; while :; do sleep .1; done", container={"livenessProbe": probe})
    manifest["spec"]["restartPolicy"] = "OnFailure"
    cluster.create(pod_path(namespace), manifest)
    seen = cluster.wait_for(pod_path(namespace, "p"), lambda p: main_status(p).get("restartCount", 0) > 0)
    assert main_status(seen)["lastState"]["terminated"]["exitCode"] == 5
    events = cluster.get(f"/api/v1/namespaces/{namespace}/events")["items"]
    assert any(e["reason"] == "Unhealthy" and e["type"] == "Warning" for e in events)


def test_deletion_sends_term_first(cluster: Cluster, namespace: str) -> None:
    script = "trap 'echo asked; exit 143' TERM; echo up; while :; do sleep .1; done"
    manifest = pod("p", script)
    manifest["metadata"]["finalizers"] = ["test.example/keep"]  # so that the last status can be read
    manifest["spec"]["terminationGracePeriodSeconds"] = 600
    cluster.create(pod_path(namespace), manifest)
    cluster.wait_for(pod_path(namespace, "p"), lambda p: phase(p) == "Running" and output(cluster, namespace, "p"))
    cluster.request("DELETE", pod_path(namespace, "p"))
    end = ended(cluster, namespace, "p")
    assert phase(end) == "Failed"
    assert terminated(end)["exitCode"] == 143
    assert output(cluster, namespace, "p") == "up\nasked\n"
    cluster.request("PATCH", pod_path(namespace, "p"), {"metadata": {"finalizers": None}})
    cluster.wait_for(pod_path(namespace, "p"), lambda p: not p, what="gone")


def test_deletion_kills_after_the_grace_period_and_no_process_is_left(cluster: Cluster, namespace: str) -> None:
    script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & while :; do sleep .1; done"
    cluster.create(pod_path(namespace), pod("p", script))
    running(cluster, namespace, "p")
    [pid] = cluster.processes(namespace, "p")
    inside = Path(f"/proc/{pid}/ns/pid").readlink()
    assert processes_in(inside)
    cluster.kubectl("delete", "pod", "-n", namespace, "p", "--grace-period=1")
    assert processes_in(inside) == []
    assert namespace not in Path("/proc/mounts").read_text(), "mounts stay in the node's namespace"


def processes_in(pid_namespace: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "ns/pid").readlink() == pid_namespace:
                found.append(entry.name)
        except OSError:  # it has just ended
            continue
    return found


def test_a_sidecar_runs_beside_the_others_and_ends_after_them(cluster: Cluster, namespace: str) -> None:
    """One volume, written by the one and read-only to the other, and a socket between both."""
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    sidecar = {
        "name": "beside",
        "image": "test",
        "restartPolicy": "Always",
        "command": ["sh", "-c", "trap 'exit 0' TERM; echo first > /v/file; while :; do sleep 0.1; done"],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }
    script = "until cat /v/file; do sleep 0.1; done; touch /v/other; exit 3"
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True}]}
    end = run(cluster, namespace, pod("p", script, container=mount, initContainers=[sidecar], **volume))
    assert (phase(end), terminated(end)["exitCode"]) == ("Failed", 3)
    said = output(cluster, namespace, "p")
    assert said.splitlines()[-2] == "first"
    assert "Read-only file system" in said
    (beside,) = end["status"]["initContainerStatuses"]
    assert beside["state"]["terminated"]["exitCode"] == 0
    assert beside["restartCount"] == 0
    assert next(one for one in end["status"]["conditions"] if one["type"] == "Initialized")["status"] == "True"
    again = sidecar | {"command": ["sh", "-c", "echo again >> /v/file; exit 1"]}
    script = "until [ $(grep -c again /v/file) -ge 2 ]; do sleep 0.1; done"
    end = run(cluster, namespace, pod("q", script, container=mount, initContainers=[again], **volume))
    assert phase(end) == "Succeeded"


def test_out_of_memory(cluster: Cluster, namespace: str) -> None:
    cluster.create(pod_path(namespace), pod("p", "sleep 600"))
    running(cluster, namespace, "p")
    cluster.kill_out_of_memory(namespace, "p", "main")
    state = terminated(ended(cluster, namespace, "p"))
    assert (state["exitCode"], state["reason"], state["signal"]) == (137, "OOMKilled", 9)


def test_a_program_that_does_not_exist(cluster: Cluster, namespace: str) -> None:
    end = run(cluster, namespace, pod("p", ["no-such-program"]))
    assert (terminated(end)["exitCode"], terminated(end)["reason"]) == (128, "StartError")
    assert "no-such-program" in terminated(end)["message"]


def test_an_image_that_cannot_be_pulled(cluster: Cluster, namespace: str) -> None:
    cluster.create(pod_path(namespace), pod("p", "true", container={"image": "absent/x:1"}))
    seen = cluster.wait_for(pod_path(namespace, "p"), lambda p: waiting_reason(p) == "ImagePullBackOff")
    assert phase(seen) == "Pending"
    assert "absent/x:1" in main_status(seen)["state"]["waiting"]["message"]
    cluster.kubectl("delete", "pod", "-n", namespace, "p")


def test_a_container_without_command(cluster: Cluster, namespace: str) -> None:
    manifest = pod("p", "true")
    del manifest["spec"]["containers"][0]["command"]
    cluster.create(pod_path(namespace), manifest)
    cluster.wait_for(pod_path(namespace, "p"), lambda p: "set the container" in json.dumps(main_status(p)))


def test_a_missing_secret_is_a_config_error_until_it_comes(cluster: Cluster, namespace: str) -> None:
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]
    cluster.create(pod_path(namespace), pod("p", "echo $A", container={"env": env}))
    seen = cluster.wait_for(pod_path(namespace, "p"), lambda p: waiting_reason(p) == "CreateContainerConfigError")
    assert main_status(seen)["state"]["waiting"]["message"] == 'secret "late" not found'
    secret = {"metadata": {"name": "late"}, "stringData": {"k": "v"}}
    cluster.create(f"/api/v1/namespaces/{namespace}/secrets", secret)
    assert phase(ended(cluster, namespace, "p")) == "Succeeded"


def test_active_deadline(cluster: Cluster, namespace: str) -> None:
    end = run(cluster, namespace, pod("p", ["sleep", "600"], activeDeadlineSeconds=1, terminationGracePeriodSeconds=1))
    assert (phase(end), end["status"]["reason"]) == ("Failed", "DeadlineExceeded")


def test_restricted_pod_security(cluster: Cluster, namespace: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    cluster.request("PATCH", f"/api/v1/namespaces/{namespace}", label)
    status, answer = cluster.request("POST", pod_path(namespace), pod("refused", "true"))
    assert status == 403
    assert "restricted" in answer["message"]
    context = {"runAsNonRoot": True, "runAsUser": 1234, "runAsGroup": 99, "fsGroup": 777}
    container = {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }
    script = "id -u; id -g; id -G; touch /v/x && stat -c %g /v/x; touch /x; grep NoNewPrivs /proc/self/status"
    manifest = pod("p", script, container=container, volumes=[{"name": "v", "emptyDir": {}}])
    manifest["spec"]["securityContext"] = {**context, "seccompProfile": {"type": "RuntimeDefault"}}
    assert phase(run(cluster, namespace, manifest)) == "Succeeded"
    lines = output(cluster, namespace, "p").splitlines()
    assert lines[:4] == ["1234", "99", "99 777", "777"]
    assert "Read-only" in lines[4]
    assert lines[5].split() == ["NoNewPrivs:", "1"]


def test_another_user_reaches_the_programs_of_the_image(cluster: Cluster, namespace: str) -> None:
    manifest = pod("p", ["python", "-c", "import sys; print(sys.prefix)"], securityContext={"runAsUser": 1234})
    assert phase(run(cluster, namespace, manifest)) == "Succeeded", output(cluster, namespace, "p")
    assert output(cluster, namespace, "p").strip() == sys.prefix


def test_run_as_non_root_refuses_root(cluster: Cluster, namespace: str) -> None:
    manifest = pod("p", "true", securityContext={"runAsNonRoot": True})
    cluster.create(pod_path(namespace), manifest)
    cluster.wait_for(pod_path(namespace, "p"), lambda p: waiting_reason(p) == "CreateContainerConfigError")
