"""The command line, and that nothing outlives a cluster."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.cluster import REPOSITORY, Cluster, ClusterError
from tests.cluster.config import Config, Image
from tests.cluster.manifests import output, pod, pod_path, run, running, waiting_reason

pytestmark = pytest.mark.cluster


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.cluster", arguments[0], "--dir", str(folder), *arguments[1:]],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip


def processes_of(folder: Path) -> list[str]:
    """Return the processes that have the folder's name in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in entry.read_bytes():
                found.append(entry.parent.name)
        except OSError:  # it has just ended
            continue
    return found


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c") / "state"


def test_up_and_down(folder: Path, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho I am the tool\n")
    tool.chmod(0o755)
    options = ["--nodes", "1", "--resource", "nvidia.com/gpu=8", "--image", f"test/tool:1={tmp_path}"]
    first = command("up", *options, folder=folder)
    try:
        second = command("up", folder=folder)
        assert first.stdout == second.stdout
        assert "already" in second.stderr
        assert f"export KUBECONFIG={folder}/kubeconfig" in first.stdout
        cluster = Cluster.attach(folder)
        [node] = cluster.get("/api/v1/nodes")["items"]
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        limits = {"resources": {"limits": {"nvidia.com/gpu": "8"}}, "image": "test/tool:1"}
        run(cluster, "default", pod("p", ["tool"], container=limits))
        assert output(cluster, "default", "p") == "I am the tool\n"
        cluster.create(pod_path("default"), pod("q", ["tool"]))
        cluster.wait_for(pod_path("default", "q"), lambda p: waiting_reason(p) == "ImagePullBackOff")
    finally:
        command("down", folder=folder)
    assert processes_of(folder) == []
    assert "No cluster" in command("down", folder=folder).stderr


def test_nothing_outlives_a_parent_that_is_killed(folder: Path) -> None:
    script = f"""
import signal
from pathlib import Path
from tests.cluster.cluster import Cluster
from tests.cluster.config import Config
with Cluster(Config(nodes=1), folder=Path({str(folder)!r})):
    print("up", flush=True)
    signal.pause()
"""
    arguments = [sys.executable, "-c", script]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        cluster = Cluster.attach(folder)
        cluster.create(pod_path("default"), pod("p", f"trap '' TERM; while :; do sleep 1; : {folder}; done"))
        running(cluster, "default", "p")
        pids = [os.pidfd_open(int(pid)) for pid in processes_of(folder) if int(pid) != parent.pid]
        assert len(pids) >= 6  # the cluster's own, four components and a container
        parent.kill()
    for pid in pids:
        await_exit(pid)


def test_a_component_that_dies_takes_the_cluster_down(folder: Path) -> None:
    with Cluster(Config(nodes=1), folder=folder) as cluster:
        components = {
            name: pid for pid, name in (line.split("\t") for line in (folder / "ready").read_text().splitlines())
        }
        os.kill(int(components["etcd"]), signal.SIGKILL)
        cluster.wait_until_down()
    assert "etcd ended with -9" in (folder / "failed").read_text()
    assert processes_of(folder) == []


def test_no_folder_is_emptied_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ClusterError, match="not empty"):
        Cluster(folder=tmp_path).start()
    assert (tmp_path / "thesis.txt").exists()


def test_image_patterns() -> None:
    tool, other = Image(path=("/tool",)), Image()
    config = Config(images={"tool:*": tool, "absent/*": None, "*": other})
    assert config.image("tool:1") is tool
    assert config.image("absent/x") is None
    assert config.image("x") is other
    assert Config.from_json(config.to_json()) == config
    assert Config(images={"tool": tool}).image("x") is None
    assert Config().image("x") == Image()


def await_exit(descriptor: int) -> None:
    assert select.select([descriptor], [], [], 20)[0], "the process still runs"
    os.close(descriptor)
