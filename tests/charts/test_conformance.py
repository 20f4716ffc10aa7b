"""Many combinations of values: kubeconform and the real API server accept what each gives, by Helm 3 and 4 the same."""

import pytest

from tests.charts.render import render, render_text
from tests.charts.schemas import Kubeconform

pytestmark = pytest.mark.cluster

MONITORS = {"serviceMonitor": {"enabled": True, "interval": "30s"}, "podMonitor": {"enabled": True}}
RULES = {"prometheusRule": {"enabled": True, "disabled": ["UnfreezeQueueGrowing"]}}
DIGEST = "sha256:" + "0" * 64
SPREAD = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["system"]}]}]}
PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
COMBINATIONS = {
    "defaults": {},
    "no CRD": {"crds": {"enabled": False}},
    "CRD not kept": {"crds": {"keep": False}},
    "one namespace": {"namespaces": ["default"]},
    "two namespaces": {
        "namespaces": ["default", "kube-public"],
        "rbac": {"aggregate": False},
        "admissionPolicy": {"enabled": False},
    },
    "rights by others": {"rbac": {"create": False, "aggregate": False}},
    "account by others": {"serviceAccount": {"create": False, "name": "default"}},
    "account with annotations": {"serviceAccount": {"name": "op", "annotations": {"example.com/role": "r"}}},
    "names": {"nameOverride": "tuner", "commonLabels": {"team": "ml"}},
    "long names": {"fullnameOverride": "f" * 40, "metrics": MONITORS, "networkPolicy": {"enabled": True}},
    "digests": {"image": {"repository": "r/o", "digest": DIGEST}, "trainer": {"image": {"digest": DIGEST}}},
    "pull secrets": {"imagePullSecrets": [{"name": "a"}], "trainer": {"imagePullSecrets": [{"name": "b"}]}},
    "monitors": {"metrics": MONITORS},
    "rules": {"metrics": RULES},
    "dashboards": {"metrics": {"dashboards": {"enabled": True, "annotations": {"grafana_folder": "Training"}}}},
    "two operators": {"replicas": 2, "podDisruptionBudget": {"enabled": True}, "topologySpreadConstraints": [SPREAD]},
    "monitors with rules": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"]}]},
            "podMonitor": {"enabled": True, "interval": "1m30s", "relabelings": [{"action": "labeldrop", "regex": "pod"}]},
        }
    },
    "monitors of some namespaces": {"namespaces": ["default"], "metrics": MONITORS},
    "network policy": {"networkPolicy": {"enabled": True}},
    "network policy for one": {"networkPolicy": {"enabled": True, "metricsFrom": [PEER], "apiServerPorts": [443]}},
    "placement": {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": NODES}},
        "topologySpreadConstraints": [SPREAD],
        "priorityClass": {"name": "system-cluster-critical"},
    },
    "priority class": {"priorityClass": {"create": True, "value": 1000000000}},
    "options": {"operator": {"logLevel": "warning", "workers": 64, "progressInterval": 0.5, "lostPodGrace": 0}},
    "environment": {"operator": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}},
    "resources": {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}},
    "labels of pods": {"podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}, "terminationGracePeriodSeconds": 0},
}  # fmt: skip


def lines(text):
    """Return the lines that say something: Helm 3 and 4 leave others out."""
    return [line for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def kubeconform(chart_cluster, crd, tmp_path_factory):
    """With the CRD of FineTuneJobs in the cluster: the chart's test has one."""
    return Kubeconform(chart_cluster, tmp_path_factory.mktemp("schemas"))


@pytest.fixture(scope="module")
def complaints(kubeconform):
    """What kubeconform has against each combination."""
    return kubeconform.check({name: render_text(values) for name, values in COMBINATIONS.items()})


@pytest.fixture(scope="module")
def serve(chart_cluster):
    """A function that asks the server whether it takes some manifests: about each once, as many are in each chart."""
    taken = []

    def ask(manifests):
        new = [manifest for manifest in manifests if manifest not in taken]
        if not new:
            return
        answer = chart_cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename=-", stdin=new)
        assert answer.count("(server dry run)") == len(new)
        taken.extend(new)

    return ask


@pytest.mark.parametrize("name", COMBINATIONS)
def test_kubeconform_and_the_server_accept(serve, complaints, name):
    assert complaints[name] == []
    assert lines(render_text(COMBINATIONS[name], helm="helm3")) == lines(render_text(COMBINATIONS[name]))
    # Pods are admitted only where their ServiceAccount is: those of `helm test` are tried by running it.
    serve(render(COMBINATIONS[name]))


def test_kubeconform_finds_a_typo(kubeconform):
    (wrong,) = kubeconform.check({"typo": render_text().replace("replicas: 1", "replicsa: 1")})["typo"]
    assert wrong.startswith("Deployment")
    assert "replicsa" in wrong
