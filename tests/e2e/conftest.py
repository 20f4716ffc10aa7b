"""The whole way: the operator installed by its manifests, the real trainer, real weights and data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from examples.prepare import prepare
from tests.charts.release import install
from tests.cluster.cluster import Cluster
from tests.cluster.config import Config
from tests.cluster.registry import Registry, serve_images
from tests.e2e.watched import Watched, watch
from tests.hub import Hub, serve
from tests.operator.world import World

QUESTIONS = 240


@pytest.fixture(scope="package")
def registry() -> Iterator[Registry]:
    """A registry on this machine, from which the nodes pull what is called registry.example/..."""
    with serve_images() as served:
        yield served


@pytest.fixture(scope="package")
def cluster(cluster_config: Config, registry: Registry) -> Iterator[Cluster]:
    """Of these tests' own: Helm takes no CRD over that another test has made."""
    with Cluster(replace(cluster_config, registries={"registry.example": registry.url})) as running:
        yield running


@pytest.fixture(scope="package")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM and the TREC questions, as the examples have them, and a small share of the questions."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    for name in ("train", "test"):
        lines = (folder / f"data/trec-{name}.csv").read_text().splitlines(keepends=True)
        (folder / f"data/{name}.csv").write_text("".join(lines[: QUESTIONS + 1]))
    return folder


@pytest.fixture(scope="package")
def hub() -> Iterator[Hub]:
    """A hub on this machine, whose network the pods share."""
    with serve() as served:
        yield served


@pytest.fixture(scope="package")
def installed(cluster: Cluster, hub: Hub) -> Cluster:
    """The cluster with the operator running on it, whose jobs may read from the hub."""
    install(cluster, trainer={"sources": {"hf": {"endpoint": hub.url}, "oci": {}}})
    return cluster


@contextmanager
def workplace(cluster: Cluster, namespace: str, prepared: Path, folder: Path) -> Iterator[World]:
    """Give a namespace a volume in a folder, with models and data on it."""
    volume = folder / "volume"
    for name in ("models", "data"):
        shutil.copytree(prepared / name, volume / name)
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)  # pytest's folders are for their owner alone
    yield World(cluster, namespace, volume)
    cluster.request("DELETE", f"/api/v1/persistentvolumes/volume-{namespace}")


@pytest.fixture(scope="package")
def watched(installed: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A job that succeeded and one that failed under a Prometheus, in a namespace of their own."""
    folder, name = tmp_path_factory.mktemp("watched"), "watched"
    installed.create("/api/v1/namespaces", {"metadata": {"name": name}})
    installed.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
    with workplace(installed, name, prepared, folder) as world, watch(installed, world, folder) as watched:
        yield watched
    installed.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def world(installed: Cluster, namespace: str, prepared: Path, tmp_path: Path) -> Iterator[World]:
    """A namespace with models and data on its volume."""
    with workplace(installed, namespace, prepared, tmp_path) as world:
        yield world
