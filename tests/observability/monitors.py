"""ServiceMonitors and PodMonitors as Prometheus' own configuration: what the Prometheus operator makes of them.

A Service is followed to the pods behind it by its selector: the nodes of the test cluster have no EndpointSlices.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.cluster import Cluster

Json = dict[str, Any]
_LABEL = "__meta_kubernetes_pod_label_{}"


def scrape_configs(cluster: Cluster, monitors: list[Json]) -> list[Json]:
    """Return `scrape_configs` of prometheus.yml, one for each endpoint, a scrape each second."""
    return [
        _scrape(cluster, monitor, endpoint)
        for monitor in monitors
        for endpoint in monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]
    ]


def _scrape(cluster: Cluster, monitor: Json, endpoint: Json) -> Json:
    namespaces = _namespaces(monitor)
    labels, port = monitor["spec"]["selector"]["matchLabels"], endpoint["port"]
    if monitor["kind"] == "ServiceMonitor":
        labels, port = _behind(cluster, namespaces, labels, port)
    keep = [{"action": "keep", "source_labels": [_LABEL.format(_word(key))], "regex": labels[key]} for key in labels]
    keep.append({"action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": port})
    named = [
        {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target}
        for source, target in (("namespace", "namespace"), ("pod_name", "pod"), ("pod_container_name", "container"))
    ]
    own = [_snake(relabeling) for relabeling in endpoint.get("relabelings", ())]
    discovery = {"role": "pod", "kubeconfig_file": str(cluster.kubeconfig)}
    return {
        "job_name": f"{monitor['kind']}/{monitor['metadata']['name']}",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "metrics_path": endpoint.get("path", "/metrics"),
        "honor_labels": endpoint.get("honorLabels", False),
        "kubernetes_sd_configs": [discovery | ({"namespaces": {"names": namespaces}} if namespaces else {})],
        "relabel_configs": [*keep, *named, *own],
    }


def _namespaces(monitor: Json) -> list[str]:
    """Return the namespaces that a monitor looks into, none for all."""
    selector = monitor["spec"].get("namespaceSelector", {})
    if selector.get("any"):
        return []
    return selector.get("matchNames") or [monitor["metadata"]["namespace"]]


def _behind(cluster: Cluster, namespaces: list[str], labels: dict[str, str], port: str) -> tuple[dict[str, str], str]:
    """Return the selector of the one Service with these labels, and the name of the pods' port behind its port."""
    (namespace,) = namespaces
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    (service,) = cluster.get(f"/api/v1/namespaces/{namespace}/services?labelSelector={selector}")["items"]
    (found,) = [each for each in service["spec"]["ports"] if each["name"] == port]
    return service["spec"]["selector"], str(found["targetPort"])


def _word(label: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in label)


def _snake(relabeling: Json) -> Json:
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {names.get(key, key): value for key, value in relabeling.items()}
