"""Names and addresses of pods on the test node."""

from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.hosts import line, records
from tests.cluster.manifests import Json, ended, free_port, main_status, output, phase, pod, pod_path

ASK = """
import socket, sys, time
names = sys.argv[1:-1]
while names:
    try:
        socket.gethostbyname(names[0])
        names.pop(0)
    except OSError:
        time.sleep(.05)
addresses = {info[4][0] for info in socket.getaddrinfo("ring", 1, socket.AF_INET)}
assert len(addresses) == 2, addresses
port = int(sys.argv.pop())
listener = socket.create_server((socket.gethostbyname(socket.gethostname()), port))
other = sys.argv[1]
while True:
    try:
        peer = socket.create_connection((other, port), timeout=5)
        break
    except OSError:
        time.sleep(.05)
connection, (address, _) = listener.accept()
print(other, "answers")
"""


@pytest.mark.cluster
def test_two_pods_on_two_nodes_find_each_other_by_name(cluster: Cluster, namespace: str) -> None:
    spec = {"clusterIP": "None", "selector": {"app": "ring"}, "publishNotReadyAddresses": True}
    cluster.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": "ring"}, "spec": spec})
    long = f"b.ring.{namespace}.svc.cluster.local"
    names = {"a": ["b.ring", long], "b": ["a.ring", f"a.ring.{namespace}.svc"]}
    port = str(free_port())
    for number, (name, asks) in enumerate(names.items()):
        manifest = pod(
            name, ["python3", "-c", ASK, *asks, port], hostname=name, subdomain="ring", labels={"app": "ring"}
        )
        manifest["spec"]["nodeName"] = f"node-{number}"
        cluster.create(pod_path(namespace), manifest)
    for name in names:
        assert phase(ended(cluster, namespace, name)) == "Succeeded", output(cluster, namespace, name)


@pytest.mark.cluster
def test_a_name_goes_away_with_its_pod(cluster: Cluster, namespace: str) -> None:
    spec = {"clusterIP": "None", "selector": {"app": "ring"}}
    cluster.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": "ring"}, "spec": spec})
    other = pod("other", "sleep 600", hostname="other", subdomain="ring", labels={"app": "ring"})
    cluster.create(pod_path(namespace), other)
    cluster.wait_for(pod_path(namespace, "other"), lambda p: main_status(p).get("ready"))
    script = "until getent hosts other.ring; do sleep .05; done; while getent hosts other.ring; do sleep .05; done"
    cluster.create(pod_path(namespace), pod("p", script))
    cluster.wait_for(pod_path(namespace, "p"), lambda p: phase(p) == "Running" and output(cluster, namespace, "p"))
    cluster.kubectl("delete", "pod", "-n", namespace, "other", "--grace-period=1")
    assert phase(ended(cluster, namespace, "p")) == "Succeeded"


def a_pod(
    name: str,
    *,
    ready: bool = True,
    labels: dict[str, str] | None = None,
    subdomain: str | None = None,
    phase: str = "Running",
    deleted: bool = False,
) -> Json:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    metadata: Json = {"name": name, "namespace": "ns", "labels": labels or {"app": "x"}}
    if deleted:
        metadata["deletionTimestamp"] = "2020-01-01T00:00:00Z"
    spec = {"hostname": name, "subdomain": subdomain} if subdomain else {}
    return {"metadata": metadata, "spec": spec, "status": {"podIP": name, "phase": phase, "conditions": [condition]}}


def a_service(**spec: Any) -> Json:
    metadata = {"name": "svc", "namespace": "ns"}
    return {"metadata": metadata, "spec": {"clusterIP": "None", "selector": {"app": "x"}, **spec}}


def test_records_of_a_headless_service() -> None:
    pods = [a_pod("a", subdomain="svc"), a_pod("b"), a_pod("c", labels={"app": "y"}), a_pod("d", phase="Succeeded")]
    assert records(pods, [a_service()]) == [("a.svc", "ns", "a"), ("svc", "ns", "a"), ("svc", "ns", "b")]


def test_records_leave_out_what_is_not_ready_unless_published() -> None:
    pods = [a_pod("a", ready=False), a_pod("b", deleted=True)]
    assert records(pods, [a_service()]) == []
    published = a_service(publishNotReadyAddresses=True)
    assert records(pods, [published]) == [("svc", "ns", "a"), ("svc", "ns", "b")]


def test_records_of_a_service_with_a_cluster_address() -> None:
    assert records([a_pod("a", subdomain="svc")], [a_service(clusterIP="10.96.0.9")]) == [("svc", "ns", "a")]


def test_short_names_are_for_the_own_namespace() -> None:
    assert line("a.svc", "ns", "1", "ns") == "1 a.svc.ns.svc.cluster.local a.svc.ns.svc a.svc.ns a.svc\n"
    assert line("svc", "ns", "1", "other") == "1 svc.ns.svc.cluster.local svc.ns.svc svc.ns\n"
