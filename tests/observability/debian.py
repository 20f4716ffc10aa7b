"""Programs that the tests need from Debian's packages, unpacked into the user's cache folder.

Unpacked, not installed: that needs no root, and installing `prometheus` would start a server on the machine.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


class MissingProgramError(RuntimeError):
    """A program can neither be found nor fetched; the message says what to do."""


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "unfreeze"


def find(program: str, package: str) -> Path:
    """Return the path of a program: of the PATH, or of its package in the cache, which is fetched once."""
    if found := shutil.which(program):
        return Path(found)
    folder = cache_folder() / "debian" / package
    if not folder.is_dir():
        _fetch(package, folder, program)
    return folder / "usr/bin" / program


def _fetch(package: str, folder: Path, program: str) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise MissingProgramError(f"{program} is needed: put it on the PATH (Debian has it in the package {package})")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be fetching it: wait for it and use its result
        if folder.is_dir():
            return
        print(f"Fetching Debian's package {package} into {folder}, once ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as aside:
            if _apt("download", package, folder=aside):
                if os.geteuid() == 0:  # a fresh machine has no lists of packages
                    _apt("update", folder=aside)
                if error := _apt("download", package, folder=aside):
                    raise MissingProgramError(
                        f"{program} is needed, and apt-get cannot fetch the package {package} ({error}): run apt-get"
                        f" update as root, or put {program} on the PATH"
                    )
            (archive,) = Path(aside).glob("*.deb")
            subprocess.run(["dpkg-deb", "--extract", archive, f"{aside}/files"], check=True)
            Path(aside, "files").rename(folder)


def _apt(*arguments: str, folder: str) -> str:
    """Run apt-get in a folder; return what it says when it fails."""
    command = ["apt-get", "--quiet", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
