"""What the release lets its operator do on a real control plane, and people; and that its probes count."""

import json
import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.charts.release import operator_pods, ready
from tests.charts.render import NAMESPACE
from tests.operator.world import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_metrics_are_for_accounts_that_may_read_them(released, world):
    (pod,) = operator_pods(released)
    page = f"http://{pod['status']['podIP']}:8080"

    def get(path, token=None):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(page + path, headers=headers), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()

    tokens = {}
    for name in ("reader", "stranger"):
        released.create(f"/api/v1/namespaces/{world.namespace}/serviceaccounts", {"metadata": {"name": name}})
        tokens[name] = released.service_account_token(world.namespace, name)
    role = ("--clusterrole=unfreeze-operator-metrics-reader", f"--serviceaccount={world.namespace}:reader")
    released.kubectl("create", "clusterrolebinding", world.namespace, *role)
    who = f"--as=system:serviceaccount:{world.namespace}:reader"
    until(lambda: released.kubectl("auth", "can-i", "get", "/metrics", who, check=False).strip() == "yes", "it may")
    elsewhere = {"spec": {"audiences": ["elsewhere"]}}
    path = f"/api/v1/namespaces/{world.namespace}/serviceaccounts/reader/token"
    tokens["elsewhere"] = released.create(path, elsewhere)["status"]["token"]
    try:
        assert get("/metrics") == (401, "a bearer token is needed")
        assert get("/metrics", "x.y.z") == (401, "the API server does not know this token")
        assert get("/metrics", tokens["elsewhere"]) == (401, "the API server does not know this token")
        assert get("/metrics", tokens["stranger"]) == (403, "this account may not get the nonResourceURL /metrics")
        status, text = get("/metrics", tokens["reader"])
        assert status == 200
        assert "unfreeze_reconcile_duration_seconds_count" in text
        assert get("/readyz")[0] == 200, "probes need no token"
    finally:
        released.kubectl("delete", "clusterrolebinding", world.namespace)


def test_the_operator_is_a_pod_of_its_own_rights_whose_probes_count(released):
    (pod,) = operator_pods(released)
    (pid,) = released.processes(NAMESPACE, pod["metadata"]["name"])
    proc = Path(f"/proc/{pid}")
    environment = dict(line.split("=", 1) for line in (proc / "environ").read_text().split("\0") if line)
    assert "KUBECONFIG" not in environment
    assert environment["UNFREEZE_OPERATOR_TRAINER_IMAGE"].startswith("unfreeze-trainer:")
    assert re.search(r"^Uid:\s+65532\s+65532", (proc / "status").read_text(), re.MULTILINE)
    token = (proc / "root/run/secrets/kubernetes.io/serviceaccount/token").read_text()
    assert released.request("GET", "/apis/unfreeze.dev/v1alpha1/finetunejobs", token=token)[0] == 200
    assert released.request("GET", "/api/v1/secrets", token=token)[0] == 403

    (hasty,) = hurried(released)
    (pid,) = released.processes(NAMESPACE, hasty["metadata"]["name"])
    os.kill(pid, signal.SIGSTOP)  # neither dead nor answering: only the liveness probe can tell

    def restarted():
        (pod,) = operator_pods(released)
        return pod["status"]["containerStatuses"][0]["restartCount"] >= 1 and ready(released)

    until(restarted, "the operator is started again", 180)


def hurried(cluster):
    """Let the operator's liveness probe, as the chart has it, come each second; return the operator's pods."""
    deployment = ("deployment/unfreeze-operator", "--namespace", NAMESPACE)
    often = {"name": "operator", "livenessProbe": {"periodSeconds": 1, "timeoutSeconds": 1}}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [often]}
    cluster.kubectl("patch", *deployment, "--patch", json.dumps({"spec": {"template": {"spec": spec}}}))
    cluster.kubectl("rollout", "status", *deployment)
    return until(lambda: len(pods := operator_pods(cluster)) == 1 and pods, "the one before has gone")


def test_who_may_edit_a_namespace_may_edit_its_jobs(released, world):
    def may(role, verb, *subresource):
        who = (f"--as=somebody-with-{role}", "-n", world.namespace)
        answer = released.kubectl("auth", "can-i", verb, "finetunejobs.unfreeze.dev", *who, *subresource, check=False)
        return answer.strip() == "yes"

    for role in ("view", "edit", "admin"):
        user = f"--user=somebody-with-{role}"
        released.kubectl("create", "rolebinding", role, f"--clusterrole={role}", user, "-n", world.namespace)
    until(lambda: may("admin", "deletecollection"), "the roles are aggregated")
    verbs = ("list", "create", "deletecollection")
    given = {role: [may(role, verb) for verb in verbs] for role in ("view", "edit", "admin")}
    assert given == {"view": [True, False, False], "edit": [True, True, False], "admin": [True, True, True]}
    assert not may("admin", "patch", "--subresource=status")
