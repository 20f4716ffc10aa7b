"""pytest fixtures: load them by ``pytest_plugins = ["tests.cluster.fixtures"]`` in tests/conftest.py."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import REPOSITORY, Cluster
from tests.cluster.config import Config, Image

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster_config() -> Config:
    """Settings of the shared cluster: any image has the programs of this virtual environment, absent/... has none.

    Its nodes offer accelerators that are none; what asks for them gets a processor. A trainer that was promised no
    number of processors uses one: two pods would take both of a small machine each.
    """
    env = {"OMP_NUM_THREADS": "1"}
    programs = Image(path=(str(Path(sys.executable).parent),), folders=(str(REPOSITORY),), env=env)
    return Config(nodes=2, resources={"nvidia.com/gpu": "8"}, images={"absent/*": None, "*": programs})


@pytest.fixture(scope="session")
def cluster(cluster_config: Config) -> Iterator[Cluster]:
    """A cluster of two nodes that all tests of the run share."""
    with Cluster(cluster_config) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own; deleted after it, without waiting."""
    name = f"test-{next(_numbers)}"
    cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    # Pods are refused until the namespace has its ServiceAccount.
    cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
    yield name
    cluster.request("DELETE", f"/api/v1/namespaces/{name}")
