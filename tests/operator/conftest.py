"""A control plane for the operator's tests, an operator that they share, and one of a test's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import REPOSITORY, Cluster
from tests.cluster.config import Config, Image
from tests.operator.process import OperatorProcess, install
from tests.operator.world import World

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def operator_cluster() -> Iterator[Cluster]:
    """Two nodes with eight accelerators each, on which every image is the fake trainer.

    Of these tests' own: they change the CRD and the operator's rights.
    """
    programs = (str(REPOSITORY / "tests/operator/image"), str(REPOSITORY / ".venv/bin"))
    config = Config(nodes=2, resources={"nvidia.com/gpu": "8"}, images={"*": Image(path=programs)})
    with Cluster(config) as running:
        yield running


@pytest.fixture(scope="session")
def operator_kubeconfig(operator_cluster: Cluster) -> Path:
    return install(operator_cluster, REPOSITORY)


@pytest.fixture(scope="session")
def shared_operator(
    operator_cluster: Cluster, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    process = OperatorProcess(operator_kubeconfig, tmp_path_factory.mktemp("operator"))
    yield process
    process.stop()


@pytest.fixture
def operator(shared_operator: OperatorProcess) -> OperatorProcess:
    """The shared operator, running."""
    if not shared_operator.running:
        shared_operator.start()
    return shared_operator


@pytest.fixture
def world(operator_cluster: Cluster, operator_kubeconfig: Path, tmp_path: Path) -> Iterator[World]:
    """A namespace that enforces the restricted Pod Security standard."""
    name = f"op-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    operator_cluster.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    operator_cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
    volume = tmp_path / "volume"
    volume.mkdir()
    for folder in tmp_path.parents[:2]:  # the trainer's user has to get in
        folder.chmod(0o755)
    yield World(operator_cluster, name, volume)
    operator_cluster.request("DELETE", f"/api/v1/namespaces/{name}")
    operator_cluster.request("DELETE", f"/api/v1/persistentvolumes/volume-{name}")
