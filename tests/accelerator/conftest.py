"""What the tests on an accelerator share.

They need a CUDA GPU and are left out by all but `python -m bench.accelerator`, which asks for them by `-m accelerator`. With
UNFREEZE_REHEARSAL=1 they run on CPUs: a rehearsal shows that the programme runs, and nothing of an accelerator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tests.trainer import ranks as processes

REHEARSAL = "UNFREEZE_REHEARSAL"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what needs an accelerator to those who ask for it: -m accelerator."""
    if "accelerator" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("accelerator")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("accelerator")]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Compute as the trainer's tests do, which says why."""
    torch.set_num_threads(1)
    processes.prepare()


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Ranks]:
    """A rank for each accelerator, of one process group; one on the CPU in a rehearsal."""
    count = torch.cuda.device_count()
    if not count and not os.environ.get(REHEARSAL):
        pytest.fail(f"no CUDA GPU is here; {REHEARSAL}=1 rehearses on the CPU")
    found = processes.Ranks(tmp_path_factory.mktemp("ranks"), world=max(1, count))
    yield found
    found.kill()
