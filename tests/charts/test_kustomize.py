"""The kustomizations install what the chart does."""

import pytest
import yaml

from charts.generate import REPOSITORY
from tests.charts.render import render

pytestmark = pytest.mark.cluster

DEPLOY = REPOSITORY / "operator/deploy"
OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")


def plain(manifests):
    """Return manifests by identity, without the labels and annotations of the tool that applies them."""
    found = {}
    for manifest in manifests:
        meta = manifest["metadata"]
        meta.get("labels", {}).pop("pod-security.kubernetes.io/enforce", None)
        for label in OF_HELM:
            meta["labels"].pop(label, None)
        if meta.get("annotations", {}).pop("helm.sh/resource-policy", None):
            meta.pop("annotations")
        found[manifest["kind"], meta.get("namespace"), meta["name"]] = manifest
    return found


@pytest.mark.parametrize(
    ("overlay", "values"),
    [
        ("", {}),
        ("cluster-wide", {}),
        ("namespaced", {"namespaces": ["team-a"]}),
        ("leader-election", {"replicas": 2}),
    ],
)
def test_an_overlay_is_the_chart(chart_cluster, overlay, values):
    text = chart_cluster.kubectl("kustomize", str(DEPLOY / overlay))
    built = plain(yaml.safe_load_all(text))
    built.pop(("Namespace", None, "unfreeze-system"))
    charted = plain(render(values))
    for manifest in (*built.values(), *charted.values()):
        for container in manifest["spec"]["template"]["spec"]["containers"] if manifest["kind"] == "Deployment" else ():
            container["env"].sort(key=lambda variable: variable["name"])
    assert built == charted


def test_the_server_accepts_an_overlay(chart_cluster):
    chart_cluster.kubectl("create", "namespace", "team-a")
    for overlay in ("cluster-wide", "namespaced"):
        arguments = ("apply", "--server-side", "--dry-run=server", "-k", str(DEPLOY / overlay))
        assert "deployment.apps/unfreeze-operator serverside-applied" in chart_cluster.kubectl(*arguments)
    chart_cluster.kubectl("delete", "namespace", "team-a", "--wait=false")
