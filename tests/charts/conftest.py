"""A control plane for the chart: the operator's image has the programs of this environment, jobs train nothing."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from charts.generate import CHART
from tests.charts.release import install
from tests.charts.render import NAMESPACE
from tests.cluster import binaries
from tests.cluster.cluster import REPOSITORY, Cluster
from tests.cluster.config import Config, Image
from tests.operator.conftest import open_up, trainer_image
from tests.operator.world import World

PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
MONITORING = {"servicemonitors": "ServiceMonitor", "podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}

_numbers = itertools.count(1)


def established(cluster: Cluster) -> None:
    """Wait until every CRD is served."""
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")


def serves(cluster: Cluster, group: str, schemas: set[str]) -> None:
    """Wait until the API server publishes these schemas of a group and version."""
    cluster.wait_for(
        f"/openapi/v3/apis/{group}", lambda served: schemas <= set(served.get("components", {}).get("schemas", ()))
    )


@pytest.fixture(scope="package")
def chart_cluster() -> Iterator[Cluster]:
    """Of these tests' own: they install and uninstall. It knows the kinds of the Prometheus operator, and the chart's
    namespace admits restricted pods only.
    """
    programs = Image(path=(str(Path(sys.executable).parent),), folders=(str(REPOSITORY),))
    images = {"absent/*": None, "unfreeze-operator:*": programs, "real/*": programs, "*": trainer_image()}
    with Cluster(Config(nodes=2, images=images)) as running:
        crds = binaries.module(PROMETHEUS_OPERATOR) / "example" / "prometheus-operator-crd"
        files = [f"--filename={crds}/monitoring.coreos.com_{plural}.yaml" for plural in MONITORING]
        running.kubectl("create", *files)
        serves(
            running, "monitoring.coreos.com/v1", {f"com.coreos.monitoring.v1.{kind}" for kind in MONITORING.values()}
        )
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        running.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": labels}})
        yield running


@pytest.fixture(scope="module")
def crd(chart_cluster: Cluster) -> Iterator[None]:
    """The CRD of FineTuneJobs alone, without an operator."""
    file = str(CHART / "files/crd.yaml")
    chart_cluster.kubectl("create", "--filename", file)
    serves(chart_cluster, "unfreeze.dev/v1alpha1", {"dev.unfreeze.v1alpha1.FineTuneJob"})
    yield
    chart_cluster.kubectl("delete", "--filename", file)


@pytest.fixture(scope="module")
def released(chart_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the chart's release, which asks who reads its metrics, for tests that leave it as it is."""
    install(chart_cluster, metrics={"tokenReview": True})
    yield chart_cluster
    chart_cluster.helm("uninstall", "unfreeze", "--namespace", NAMESPACE, "--wait")
    chart_cluster.kubectl("delete", "crd", "finetunejobs.unfreeze.dev")


@pytest.fixture
def world(chart_cluster: Cluster, tmp_path: Path) -> Iterator[World]:
    """A namespace for jobs."""
    name = f"chart-{next(_numbers)}"
    chart_cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    chart_cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
    volume = tmp_path / "volume"
    volume.mkdir()
    open_up(tmp_path)
    yield World(chart_cluster, name, volume)
    chart_cluster.request("DELETE", f"/api/v1/namespaces/{name}")
    chart_cluster.request("DELETE", f"/api/v1/persistentvolumes/volume-{name}")
