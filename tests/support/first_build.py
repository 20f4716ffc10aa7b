"""The first build of Unfreeze whose runs and pods are still met: its source, out of this repository's history."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

COMMIT = "88ce802d9af35b3beed0799e8e8c70c24dbe6262"
REPOSITORY = Path(__file__).parents[2]
_ROOMS = ("crds", "operator", "trainer", "cli")


def extract(folder: Path, *, tests: bool = False) -> Path:
    """Write the source of the first build into a folder, with its tests if asked for.

    Raises
    ------
    RuntimeError
        The history does not reach back to it, as in a shallow clone.
    """
    content = _git("archive", COMMIT, *_ROOMS, *["tests"] * tests)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def text(path: str) -> str:
    """Return a text file of the first build; raises RuntimeError as `extract` does."""
    return _git("show", f"{COMMIT}:{path}").decode()


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which Python imports the build that `extract` has written there."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(str(folder / room) for room in (*_ROOMS, "."))}


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"commit {COMMIT} is not in this clone, and upgrades from it are tested: git fetch --unshallow"
            f" ({done.stderr.decode().strip()})"
        )
    return done.stdout
