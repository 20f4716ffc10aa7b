"""The chart's release on a test cluster."""

from __future__ import annotations

from typing import Any

from tests.charts.render import NAMESPACE
from tests.cluster.cluster import REPOSITORY, Cluster

Json = dict[str, Any]
# The pods of a test node share the machine's network: each listens on its own address.
_ADDRESS = {"name": "UNFREEZE_OPERATOR_HTTP_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
ON_A_TEST_NODE = {"operator": {"extraEnv": [_ADDRESS]}}


def install(cluster: Cluster, release: str = "unfreeze", *, helm: str = "helm", **values: Any) -> None:
    """Install or upgrade CRD and operator by the Helm chart, and wait until the operator is ready."""
    into = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m")
    given = {**ON_A_TEST_NODE, **values}
    chart = str(REPOSITORY / "charts" / "unfreeze")
    cluster.helm("upgrade", "--install", release, chart, *into, values=given, program=helm)


def operator_pods(cluster: Cluster) -> list[Json]:
    """Return the operator's pods."""
    pods: list[Json] = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    return pods


def ready(cluster: Cluster) -> bool:
    """Whether one operator is ready."""
    deployment = cluster.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/unfreeze-operator")
    return bool(deployment["status"].get("readyReplicas") == 1)
