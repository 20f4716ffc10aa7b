"""Fixtures of the trainer's tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from tests.trainer import ranks
from unfreeze_trainer import forks


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave all combinations to those who ask for them: -m matrix."""
    if "matrix" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("matrix")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("matrix")]


@contextmanager
def unchanged_environment() -> Iterator[None]:
    """Take back what an engine in this process has said of its process group, and the group: later tests would join it."""
    before = dict(os.environ)
    joined = dist.is_initialized()
    yield
    os.environ.clear()
    os.environ.update(before)
    if not joined and dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    with unchanged_environment():
        yield


@pytest.fixture(autouse=True, scope="module")
def own_environment_of_a_module() -> Iterator[None]:
    """As `own_environment`, for what the fixtures of a module do."""
    with unchanged_environment():
        yield


@pytest.fixture(autouse=True, scope="module")
def put_aside() -> None:
    """Leave out what is there when a module begins where garbage is looked for: engines do that at each change of phase."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", name="ranks")
def two_ranks(tmp_path_factory) -> Iterator[ranks.Ranks]:
    """Two ranks of one process group, which all tests share."""
    two = ranks.Ranks(tmp_path_factory.mktemp("ranks"))
    yield two
    two.kill()


FORKED = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.feature_extraction_auto",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.pipelines",
    "peft",
    "timm",
)
"""What a job's fork server has imported, whatever the job: `agent.libraries` chooses from it."""


@pytest.fixture(autouse=True, scope="session")
def forked_verification() -> Iterator[None]:
    """Have this process load exports as a worker does, in forks of a process that has imported plain libraries alone.

    One such process serves all tests; the first that loads an export starts it. `test_forks` is about fresh ones too.
    """
    started = []

    @cache
    def server() -> forks.ForkServer | None:
        process, ways = forks.start(FORKED)
        started.extend([process] if process else [])
        return forks.ForkServer(ways[0]) if ways else None

    with patch.object(forks.ForkServer, "inherited", server):
        yield
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True, scope="session")
def one_core(request: pytest.FixtureRequest) -> None:
    """Compute on one thread: for tensors of some hundred elements two threads wait for each other most of the time.

    On the other core the process begins that ranks are forked from, if a test needs them.
    """
    torch.set_num_threads(1)
    if any("ranks" in item.fixturenames for item in request.session.items):
        ranks.prepare()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Train in this process as a worker does: on one thread."""
    with unchanged_environment():
        os.environ["OMP_NUM_THREADS"] = "1"  # without it Accelerate would choose the number
        torch.set_num_threads(1)  # which it may have chosen before
        yield


@pytest.fixture(scope="module")
def loaded_here() -> Iterator[None]:
    """Load exports with the plain libraries in this process: fresh ones are started by `test_export` and `test_local`."""
    from unfreeze_trainer.models import export, plain

    with patch.object(export, "reload", plain.plain_outputs):
        yield


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> tuple[dict[str, torch.Tensor], dict]:
    """What a run of `interrupted` leaves behind that nothing disturbs."""
    from tests.trainer.complete import complete
    from tests.trainer.interrupted import finished, run_in

    folder = tmp_path_factory.mktemp("undisturbed")
    with unchanged_environment():
        os.environ["OMP_NUM_THREADS"] = "1"
        complete(run_in(folder))
    return finished(folder)
