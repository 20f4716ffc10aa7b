"""Nodes that die and come back, and the logs that they serve."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import process
from tests.cluster.cluster import Cluster, ClusterError, NodeHandle
from tests.cluster.manifests import ended, main_status, output, phase, pod, pod_path, run, running, terminated

pytestmark = pytest.mark.cluster


@pytest.fixture
def doomed(cluster: Cluster) -> Iterator[NodeHandle]:
    """A node that the test may kill; it is back afterwards."""
    node = cluster.nodes[1]
    yield node
    node.start()
    cluster.wait_for(f"/api/v1/nodes/{node.name}", lambda n: not n["spec"].get("taints"), what="usable again")


def test_a_dead_node_is_noticed_and_its_pods_are_evicted(cluster: Cluster, namespace: str, doomed: NodeHandle) -> None:
    manifest = pod("p", "sleep 600", nodeName=doomed.name)
    manifest["metadata"]["finalizers"] = ["test.example/keep"]
    # As the Job controller's pods and unlike bare ones, to be deleted from a dead node without delay.
    tolerate = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    manifest["spec"]["tolerations"] = [{**tolerate, "tolerationSeconds": 0}]
    cluster.create(pod_path(namespace), manifest)
    running(cluster, namespace, "p")
    [pid] = cluster.processes(namespace, "p")
    doomed.kill()
    assert cluster.processes(namespace, "p") == []
    assert not Path(f"/proc/{pid}").exists()
    cluster.wait_for(f"/api/v1/nodes/{doomed.name}", lambda _: not doomed.is_ready(), what="NotReady")
    gone = cluster.wait_for(pod_path(namespace, "p"), lambda p: "deletionTimestamp" in p["metadata"], what="evicted")
    disrupted = [c for c in gone["status"]["conditions"] if c["type"] == "DisruptionTarget"]
    assert disrupted[0]["reason"] == "DeletionByTaintManager"
    assert phase(gone) == "Running", "nobody reports for a dead node"
    doomed.start()
    end = ended(cluster, namespace, "p")
    assert terminated(end)["exitCode"] == 137
    cluster.request("PATCH", pod_path(namespace, "p"), {"metadata": {"finalizers": None}})
    cluster.wait_for(pod_path(namespace, "p"), lambda p: not p, what="gone")


def test_a_node_that_comes_back_has_lost_its_containers(cluster: Cluster, namespace: str, doomed: NodeHandle) -> None:
    cluster.create(pod_path(namespace), pod("never", "sleep 600", nodeName=doomed.name))
    again = pod("always", "sleep 600", nodeName=doomed.name, restartPolicy="Always")
    cluster.create(pod_path(namespace), again)
    for name in ("never", "always"):
        running(cluster, namespace, name)
    doomed.kill()
    doomed.start()
    assert terminated(ended(cluster, namespace, "never"))["reason"] == "ContainerStatusUnknown"
    cluster.wait_for(
        pod_path(namespace, "always"),
        lambda p: main_status(p)["restartCount"] == 1 and "running" in main_status(p)["state"],
    )


def test_a_start_that_nobody_heard_of_before_the_power_cut_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = tmp_path / "init.py"
    init.write_text("")
    monkeypatch.setattr(process, "INIT", init)

    async def start() -> int:
        return await (
            await process.Process.start({"uid": 0, "gid": 0}, tmp_path / "run", tmp_path / "root", tmp_path / "log")
        ).wait()

    (tmp_path / "root/upper").mkdir(parents=True)
    (tmp_path / "root/upper/left").touch()
    assert asyncio.run(start()) == 0


def test_logs(cluster: Cluster, namespace: str) -> None:
    run(cluster, namespace, pod("p", "for i in 1 2 3; do echo $i; done; echo err >&2"))
    assert output(cluster, namespace, "p") == "1\n2\n3\nerr\n"
    assert cluster.kubectl("logs", "-n", namespace, "p", "--tail", "2") == "3\nerr\n"
    with pytest.raises(ClusterError, match="previous terminated container"):
        cluster.kubectl("logs", "-n", namespace, "p", "--previous")


def test_logs_of_the_run_before(cluster: Cluster, namespace: str) -> None:
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    script = "if test -e /v/x; then echo second; sleep 600; fi; touch /v/x; echo first; exit 1"
    volumes = [{"name": "v", "emptyDir": {}}]
    cluster.create(pod_path(namespace), pod("p", script, container=container, volumes=volumes, restartPolicy="Always"))
    cluster.wait_for(pod_path(namespace, "p"), lambda p: main_status(p).get("restartCount") == 1)
    assert cluster.kubectl("logs", "-n", namespace, "p", "--previous") == "first\n"


def test_logs_are_followed_to_the_end(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path)}}]
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    script = "echo begin; until test -e /v/go; do sleep .05; done; echo end"
    cluster.create(pod_path(namespace), pod("p", script, container=container, volumes=volumes))
    running(cluster, namespace, "p")
    command = [
        f"{cluster.folder}/bin/kubectl",
        "--kubeconfig",
        str(cluster.kubeconfig),
        "logs",
        "-f",
        "-n",
        namespace,
        "p",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "begin\n"
        (tmp_path / "go").touch()
        assert follower.stdout.read() == "end\n"
    assert follower.returncode == 0
