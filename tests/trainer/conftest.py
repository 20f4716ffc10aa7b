"""Fixtures of the trainer's tests."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch


@contextmanager
def unchanged_environment() -> Iterator[None]:
    """Take back what an engine in this process has said of its process group: programs of later tests would join it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    with unchanged_environment():
        yield


@pytest.fixture(autouse=True, scope="module")
def own_environment_of_a_module() -> Iterator[None]:
    """As `own_environment`, for what the fixtures of a module do."""
    with unchanged_environment():
        yield


def run_group(module: str, folder: Path) -> None:
    """Run a module with a folder in two ranks of one process group."""
    command = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, *command, "-m", module, folder], stdout=log, stderr=log, env=environment, check=False
        )
    assert done.returncode == 0, first_traceback((folder / "log").read_text())


def first_traceback(log: str) -> str:
    """Return where ranks first went wrong: what follows are those that waited for them, and the launcher."""
    found = re.search(r"Traceback \(most recent call last\).*?\n(\[rank\d\]: )?\w[\w.]*(: [^\n]*)?\n", log, re.DOTALL)
    return found[0][-5000:] if found else log[-5000:]


@pytest.fixture(scope="session")
def group(tmp_path_factory) -> Path:
    """What two ranks left behind that went through every case of `engine_group`, in one process group."""
    from tests.trainer.engine_group import write_inputs

    folder = tmp_path_factory.mktemp("engines")
    write_inputs(folder)
    run_group("tests.trainer.engine_group", folder)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Train in this process as a worker does: on one thread, and each phase change collects what is left of garbage."""
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> tuple[dict[str, torch.Tensor], dict]:
    """What a run of `interrupted` leaves behind that nothing disturbs."""
    from tests.trainer.interrupted import finished, run_in
    from unfreeze_trainer.worker import train

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    with unchanged_environment():
        train(run_in(folder))
    return finished(folder)
