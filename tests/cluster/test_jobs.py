"""Real Jobs of the real Job controller on the test nodes."""

from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.manifests import Json, output, pod

pytestmark = pytest.mark.cluster


def job(cluster: Cluster, namespace: str, command: str, *, container: Json | None = None, **spec: Any) -> Json:
    template = pod("unused", command, container=container, subdomain="ring")["spec"]
    body = {"metadata": {"name": "j"}, "spec": {"template": {"spec": template}, **spec}}
    cluster.create(f"/apis/batch/v1/namespaces/{namespace}/jobs", body)
    return cluster.wait_for(f"/apis/batch/v1/namespaces/{namespace}/jobs/j", has_ended, what="ended")


def has_ended(job: Json) -> bool:
    return not condition(job).keys().isdisjoint({"Complete", "Failed"})


def condition(job: Json) -> dict[str, Json]:
    return {c["type"]: c for c in job["status"].get("conditions", []) if c["status"] == "True"}


def test_an_indexed_job_completes(cluster: Cluster, namespace: str) -> None:
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    env = [{"name": "RANK", "valueFrom": {"fieldRef": {"fieldPath": path}}}]
    done = job(
        cluster, namespace, "echo rank $RANK on $(hostname)", container={"env": env},
        completionMode="Indexed", completions=3, parallelism=3,
    )  # fmt: skip
    assert "Complete" in condition(done)
    assert done["status"]["succeeded"] == 3
    lines = cluster.kubectl("logs", "-n", namespace, "-l", "job-name=j").splitlines()
    assert sorted(lines) == [f"rank {rank} on j-{rank}" for rank in range(3)]


def test_pod_failure_policy_fails_the_job_on_an_exit_code(cluster: Cluster, namespace: str) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}}
    failed = job(cluster, namespace, "exit 2", backoffLimit=6, podFailurePolicy={"rules": [rule]})
    assert condition(failed)["Failed"]["reason"] == "PodFailurePolicy"
    assert "exit code 2" in condition(failed)["Failed"]["message"]
    assert failed["status"]["failed"] == 1


def test_other_failures_are_retried_up_to_the_limit(cluster: Cluster, namespace: str) -> None:
    failed = job(cluster, namespace, "exit 1", backoffLimit=0)
    assert condition(failed)["Failed"]["reason"] == "BackoffLimitExceeded"
    assert output(cluster, namespace, failed_pod(cluster, namespace)) == ""


def failed_pod(cluster: Cluster, namespace: str) -> str:
    return str(cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"][0]["metadata"]["name"])
