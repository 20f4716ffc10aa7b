"""Volumes on the test node: what a container finds at its mount paths."""

import sys
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.manifests import Json, ended, output, phase, pod, pod_path, run

pytestmark = pytest.mark.cluster

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
ASK = f"""
import json, os, ssl, sys, urllib.error, urllib.request
token = open("{TOKEN}/token").read()
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
context = ssl.create_default_context(cafile="{TOKEN}/ca.crt")
def ask(path):
    request = urllib.request.Request(f"https://{{host}}:{{port}}{{path}}", headers={{"Authorization": "Bearer " + token}})
    try:
        return urllib.request.urlopen(request, context=context).status
    except urllib.error.HTTPError as error:
        return error.code
namespace = open("{TOKEN}/namespace").read()
print(ask(f"/api/v1/namespaces/{{namespace}}/configmaps"), ask(f"/api/v1/namespaces/{{namespace}}/secrets"))
"""


def test_config_map_secret_empty_dir_and_downward_api(cluster: Cluster, namespace: str) -> None:
    objects = f"/api/v1/namespaces/{namespace}"
    cluster.create(f"{objects}/configmaps", {"metadata": {"name": "c"}, "data": {"a.txt": "A", "b.txt": "B"}})
    cluster.create(f"{objects}/secrets", {"metadata": {"name": "s"}, "stringData": {"key": "K"}})
    field = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    volumes = [
        {"name": "config", "configMap": {"name": "c", "items": [{"key": "a.txt", "path": "deep/a"}]}},
        {"name": "whole", "configMap": {"name": "c"}},
        {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "none", "secret": {"secretName": "absent", "optional": True}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "field", "downwardAPI": {"items": [field]}},
    ]
    mounts = [
        {"name": "config", "mountPath": "/config", "readOnly": True},
        {"name": "whole", "mountPath": "/etc/one/b.txt", "subPath": "b.txt"},
        {"name": "secret", "mountPath": "/secret"},
        {"name": "none", "mountPath": "/none"},
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "scratch", "mountPath": "/nested/one", "subPathExpr": "$(NAME)/x"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "field", "mountPath": "/field"},
    ]
    script = """
        cat /config/deep/a /etc/one/b.txt /secret/key; echo
        ls /none | wc -l; ls /etc/one
        touch /config/x 2> /dev/null || echo read-only
        stat -c %a /secret/key
        touch /nested/one/file; ls /scratch/p/x
        head -c 2000000 /dev/zero > /memory/x 2> /dev/null || echo full
        cat /field/labels
    """
    name = {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    container = {"volumeMounts": mounts, "env": [name]}
    end = run(cluster, namespace, pod("p", script, container=container, volumes=volumes, labels={"app": "x"}))
    assert phase(end) == "Succeeded"
    want = ["ABK", "0", "b.txt", "read-only", "400", "file", "full", 'app="x"']
    assert output(cluster, namespace, "p").split("\n") == want


def test_claims_are_bound_to_folders_that_outlive_the_pod(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    volume = {
        "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": str(tmp_path / "volume")},
            "storageClassName": namespace,
        },
    }
    cluster.create("/api/v1/persistentvolumes", volume)
    claim(cluster, namespace, namespace)
    write_then_read(cluster, namespace)
    assert (tmp_path / "volume/sub/x").read_text() == "kept\n"
    cluster.request("DELETE", f"/api/v1/persistentvolumes/{namespace}")


def test_claims_get_a_volume_by_themselves(cluster: Cluster, namespace: str) -> None:
    claim(cluster, namespace, None)
    write_then_read(cluster, namespace)
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/data"
    volume = cluster.get(path)["spec"]["volumeName"]
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods")
    cluster.request("DELETE", path)
    cluster.wait_for(f"/api/v1/persistentvolumes/{volume}", lambda found: not found, what="gone with its claim")


def claim(cluster: Cluster, namespace: str, storage_class: str | None) -> None:
    spec: Json = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    cluster.create(path, {"metadata": {"name": "data"}, "spec": spec})


def write_then_read(cluster: Cluster, namespace: str) -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    container = {"volumeMounts": [{"name": "v", "mountPath": "/data", "subPath": "sub"}]}
    user = {"securityContext": {"runAsUser": 1000, "fsGroup": 2000}}
    writer = pod("writer", "echo kept > /data/x", container=container, volumes=volumes, **user)
    assert phase(run(cluster, namespace, writer)) == "Succeeded"
    run(cluster, namespace, pod("reader", "cat /data/x", container=container, volumes=volumes))
    assert output(cluster, namespace, "reader") == "kept\n"


def test_host_path(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("from the host")
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path), "type": "Directory"}}]
    container = {"volumeMounts": [{"name": "v", "mountPath": "/host"}]}
    run(cluster, namespace, pod("p", "cat /host/x; echo back > /host/y", container=container, volumes=volumes))
    assert output(cluster, namespace, "p") == "from the host"
    assert (tmp_path / "y").read_text() == "back\n"


def test_a_missing_volume_is_reported_and_awaited(cluster: Cluster, namespace: str) -> None:
    volumes = [{"name": "v", "configMap": {"name": "late"}}]
    cluster.create(pod_path(namespace), pod("p", "true", volumes=volumes))
    events = f"/api/v1/namespaces/{namespace}/events"
    cluster.wait_for(events, lambda e: any('"late" not found' in i["message"] for i in e["items"]))
    cluster.create(f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "late"}})
    assert phase(ended(cluster, namespace, "p")) == "Succeeded"


def test_the_token_of_the_service_account_opens_the_api_as_rbac_says(cluster: Cluster, namespace: str) -> None:
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
    cluster.create(f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    cluster.create(f"{rbac}/rolebindings", {"metadata": {"name": "r"}, "roleRef": reference, "subjects": [subject]})
    run(cluster, namespace, pod("p", [sys.executable, "-c", ASK]))
    assert output(cluster, namespace, "p") == "200 403\n"
    token = cluster.service_account_token(namespace, "default")
    assert cluster.request("GET", f"/api/v1/namespaces/{namespace}/configmaps", token=token)[0] == 200
    kubeconfig = cluster.service_account_kubeconfig(namespace, "default")
    cluster.kubectl("get", "configmaps", "-n", namespace, f"--kubeconfig={kubeconfig}")
    assert cluster.request("GET", f"/api/v1/namespaces/{namespace}/secrets", token=token)[0] == 403
