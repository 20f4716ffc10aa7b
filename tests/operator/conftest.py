"""A control plane for the operator's tests, an operator that they share, and one of a test's own."""

from __future__ import annotations

import itertools
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import REPOSITORY, Cluster
from tests.cluster.config import Config, Image
from tests.cluster.proxy import Proxy
from tests.operator.process import ForkedOperator, OperatorProcess, install
from tests.operator.world import World

_numbers = itertools.count(1)


def open_up(folder: Path) -> None:
    """Let the trainer's user into a folder of pytest's."""
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)


def trainer_image() -> Image:
    """Return an image whose `unfreeze-trainer` is the fake one, for a user other than root.

    The interpreter of the virtual environment may lie in a home folder that nobody else may enter; then the system's
    own of the same version reads the same packages.
    """
    real = Path(sys.executable).resolve()
    open_to_all = all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents)
    python = real if open_to_all else Path(f"/usr/bin/python3.{sys.version_info.minor}")
    packages = f"{REPOSITORY / 'crds'}:{sysconfig.get_path('purelib')}"
    env = {"FAKE_PYTHON": str(python), "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
    return Image(path=(str(REPOSITORY / "tests/operator/image"),), env=env, folders=(str(REPOSITORY),))


@pytest.fixture(scope="package")
def operator_cluster() -> Iterator[Cluster]:
    """Two nodes with eight accelerators each, on which every image but one is the fake trainer.

    Of these tests' own: they change the CRD and the operator's rights.
    """
    config = Config(
        nodes=2,
        resources={"nvidia.com/gpu": "8"},
        images={"registry.example/none:*": None, "*": trainer_image()},
        audit=True,
    )
    with Cluster(config) as running:
        yield running


@pytest.fixture(scope="package")
def operator_kubeconfig(operator_cluster: Cluster) -> Path:
    return install(operator_cluster, REPOSITORY)


@pytest.fixture(scope="package")
def shared_operator(
    operator_cluster: Cluster, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    process = ForkedOperator(operator_kubeconfig, tmp_path_factory.mktemp("operator"))
    yield process
    process.stop()


@pytest.fixture
def operator(shared_operator: OperatorProcess) -> OperatorProcess:
    """The shared operator, running."""
    if not shared_operator.running:
        shared_operator.start()
    return shared_operator


@pytest.fixture
def lone_operator(
    shared_operator: OperatorProcess, operator_kubeconfig: Path, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """An operator of the test's own, not started yet; no other one runs."""
    shared_operator.stop()
    process = ForkedOperator(operator_kubeconfig, tmp_path)
    yield process
    process.kill()


@pytest.fixture
def worlds(operator_cluster: Cluster, operator_kubeconfig: Path, tmp_path: Path) -> Iterator[Callable[[], World]]:
    """A function that makes namespaces which enforce the restricted Pod Security standard."""
    made: list[str] = []

    def make() -> World:
        name = f"op-{next(_numbers)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        operator_cluster.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        made.append(name)
        operator_cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
        volume = tmp_path / f"volume-{name}"
        volume.mkdir()
        open_up(tmp_path)
        return World(operator_cluster, name, volume)

    yield make
    for name in made:
        operator_cluster.request("DELETE", f"/api/v1/namespaces/{name}")
        operator_cluster.request("DELETE", f"/api/v1/persistentvolumes/volume-{name}")


@pytest.fixture
def world(worlds: Callable[[], World]) -> World:
    """One such namespace."""
    return worlds()


@pytest.fixture
def proxy(operator_cluster: Cluster) -> Iterator[Proxy]:
    """Makes faults between an operator that goes through it and the API server."""
    with Proxy(operator_cluster.server, operator_cluster.folder / "pki/ca.crt") as running:
        yield running


@pytest.fixture
def faulty_operator(lone_operator: OperatorProcess, proxy: Proxy, tmp_path: Path) -> OperatorProcess:
    """An operator of the test's own behind the proxy, not started yet; no other one runs."""
    lone_operator.kubeconfig = proxy.kubeconfig(lone_operator.kubeconfig, tmp_path / "kubeconfig")
    lone_operator.options = ("--watch-silence=2",)
    return lone_operator
