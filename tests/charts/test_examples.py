"""examples/gitops: what Argo CD and Flux take, in the order that it says, of paths that exist."""

import pytest
import yaml

from charts.generate import REPOSITORY
from tests.charts.conftest import established
from tests.charts.render import render
from tests.cluster import binaries

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GITOPS = REPOSITORY / "examples/gitops"
WAVE = "argocd.argoproj.io/sync-wave"
CRDS = (
    ("github.com/argoproj/argo-cd/v3@v3.1.0", "manifests/crds/application-crd.yaml"),
    ("github.com/fluxcd/source-controller@v1.7.0", "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml"),
    ("github.com/fluxcd/helm-controller@v1.4.0", "config/crd/bases/helm.toolkit.fluxcd.io_helmreleases.yaml"),
    (
        "github.com/fluxcd/kustomize-controller@v1.6.0",
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
)


def documents(folder):
    """Return the manifests of a folder by file."""
    files = [path for path in sorted((GITOPS / folder).rglob("*.yaml")) if path.name != "kustomization.yaml"]
    return [manifest for path in files for manifest in yaml.safe_load_all(path.read_text())]


@pytest.fixture(scope="module")
def cluster(chart_cluster, crd):
    files = [str(binaries.module(module) / path) for module, path in CRDS]
    for file in files:
        chart_cluster.kubectl("apply", "--server-side", "--filename", file)
    established(chart_cluster)
    for name in ("argocd", "flux-system", "team-a"):
        chart_cluster.kubectl("create", "namespace", name)
    yield chart_cluster
    for file in files:
        chart_cluster.kubectl("delete", "--filename", file)
    chart_cluster.kubectl("delete", "namespace", "argocd", "flux-system", "team-a", "--wait=false")


@pytest.mark.parametrize(
    "arguments", [("-R", "-f", "argocd"), ("-R", "-f", "flux"), ("-k", "jobs")], ids=lambda a: a[-1]
)
def test_the_server_takes_them(cluster, arguments):
    *flags, folder = arguments
    command = ("apply", "--server-side", "--dry-run=server", "--validate=strict", *flags, str(GITOPS / folder))
    assert "serverside-applied" in cluster.kubectl(*command)


def test_paths_lead_somewhere():
    applications = [manifest["spec"]["source"]["path"] for manifest in documents("argocd")]
    flux = [m["spec"]["path"] for m in documents("flux") if m["kind"] == "Kustomization"]
    charts = [m["spec"]["chart"]["spec"]["chart"] for m in documents("flux") if m["kind"] == "HelmRelease"]
    assert (len(applications), len(flux), len(charts)) == (3, 2, 1)
    for path in (*applications, *flux, *charts):
        assert (REPOSITORY / path).is_dir(), path


def test_values_are_the_charts():
    (release,) = (m for m in documents("flux") if m["kind"] == "HelmRelease")
    helm = [m["spec"]["source"]["helm"] for m in documents("argocd") if "helm" in m["spec"]["source"]]
    for values in (release["spec"]["values"], helm[0]["valuesObject"]):
        assert render(values)


def test_the_operator_comes_before_the_jobs():
    waves = {m["metadata"]["name"]: int(m["metadata"]["annotations"][WAVE]) for m in documents("argocd/apps")}
    assert waves["unfreeze-operator"] < waves["team-a-jobs"]
    jobs = next(m for m in documents("flux") if m["metadata"]["name"] == "team-a-jobs")
    assert jobs["spec"]["dependsOn"] == [{"name": "unfreeze-operator"}]
