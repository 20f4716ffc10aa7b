"""The chart's monitors as Prometheus' own configuration: what the Prometheus operator makes of them.

Debian's Prometheus cannot ask a Kubernetes API, so the pods are looked up here and handed over in files. A Service is
followed to the pods behind it by its selector: the nodes of the test cluster have no EndpointSlices.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.charts.render import render
from tests.cluster.cluster import Cluster

Json = dict[str, Any]
# What the Prometheus operator lets every target have, before the monitor's own rules.
OWN = [
    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
]


class Monitors:
    """The chart's monitors, and a folder for the files that tell Prometheus whom they select."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        on = {"enabled": True}
        rendered = render({"metrics": {"serviceMonitor": on, "podMonitor": on}})
        self._monitors = [manifest for manifest in rendered if manifest["kind"] in ("ServiceMonitor", "PodMonitor")]

    def scrape_configs(self) -> list[Json]:
        """Return `scrape_configs` of prometheus.yml, a scrape each second."""
        return [
            {
                "job_name": monitor["metadata"]["name"],
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "metrics_path": _endpoint(monitor).get("path", "/metrics"),
                "honor_labels": _endpoint(monitor).get("honorLabels", False),
                "file_sd_configs": [{"files": [str(self._file(monitor))], "refresh_interval": "1s"}],
                "relabel_configs": [*OWN, *_rules(_endpoint(monitor), "relabelings")],
                "metric_relabel_configs": _rules(_endpoint(monitor), "metricRelabelings"),
            }
            for monitor in self._monitors
        ]

    def refresh(self) -> None:
        """Look the pods up anew."""
        for monitor in self._monitors:
            aside = self._file(monitor).with_suffix(".new")
            aside.write_text(json.dumps(list(self._targets(monitor))))
            aside.replace(self._file(monitor))

    def _file(self, monitor: Json) -> Path:
        return self._folder / f"{monitor['metadata']['name']}.json"

    def _targets(self, monitor: Json) -> list[Json]:
        labels, name = monitor["spec"]["selector"]["matchLabels"], _endpoint(monitor)["port"]
        if monitor["kind"] == "ServiceMonitor":
            labels, name = self._behind(monitor["metadata"]["namespace"], labels, name)
        return [
            {
                "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
                "labels": _discovered(pod),
            }
            for pod in self._pods(monitor, labels)
            for container in pod["spec"]["containers"]
            for port in container.get("ports", ())
            if port.get("name") == name
        ]

    def _pods(self, monitor: Json, labels: dict[str, str]) -> list[Json]:
        """Return the running pods with these labels, in the namespaces that a monitor looks into."""
        selector = monitor["spec"].get("namespaceSelector", {})
        namespaces = selector.get("matchNames") or [monitor["metadata"]["namespace"]]
        pods = self._cluster.get(f"/api/v1/pods?labelSelector={_selector(labels)}")["items"]
        inside = [pod for pod in pods if selector.get("any") or pod["metadata"]["namespace"] in namespaces]
        return [pod for pod in inside if pod["status"].get("podIP") and pod["status"]["phase"] == "Running"]

    def _behind(self, namespace: str, labels: dict[str, str], port: str) -> tuple[dict[str, str], str]:
        """Return the selector of the one Service with these labels, and the name of the pods' port behind its port."""
        path = f"/api/v1/namespaces/{namespace}/services?labelSelector={_selector(labels)}"
        (service,) = self._cluster.get(path)["items"]
        (found,) = [each for each in service["spec"]["ports"] if each["name"] == port]
        return service["spec"]["selector"], str(found["targetPort"])


def _endpoint(monitor: Json) -> Json:
    """Return the one endpoint of a monitor."""
    spec = monitor["spec"]
    (endpoint,) = spec.get("podMetricsEndpoints") or spec["endpoints"]
    return endpoint


def _discovered(pod: Json) -> dict[str, str]:
    """Return what Prometheus' discovery tells of a pod: its labels' names in the alphabet of Prometheus."""
    meta = pod["metadata"]
    found = {"namespace": meta["namespace"], "pod_name": meta["name"]}
    found |= {f"pod_label_{re.sub('[^a-zA-Z0-9_]', '_', key)}": value for key, value in meta["labels"].items()}
    return {f"__meta_kubernetes_{key}": value for key, value in found.items()}


def _rules(endpoint: Json, name: str) -> list[Json]:
    """Return the relabelling of an endpoint as prometheus.yml spells it."""
    rules = endpoint.get(name, ())
    return [{re.sub("[A-Z]", lambda at: "_" + at[0].lower(), key): rule[key] for key in rule} for rule in rules]


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())
