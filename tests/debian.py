"""Programs that the tests need from Debian's packages."""

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
    """Return the path of a program: of the PATH, or of its package, unpacked once into the user's cache folder.

    That needs no root, and `prometheus`, installed, would start a server on the machine.
    """
    if found := shutil.which(program):
        return Path(found)
    folder = cache_folder() / "debian" / package
    if not folder.is_dir():
        _fetch(package, folder, program)
    return folder / "usr/bin" / program


def install(program: str, package: str) -> None:
    """See to it that a program, which needs more than its own package, is on the PATH; root installs it.

    Raises
    ------
    MissingProgramError
        It is not there, and cannot be installed.
    """
    if shutil.which(program):
        return
    wanted = f"{program} is needed: apt-get install {package}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise MissingProgramError(wanted)
    print(f"Installing Debian's package {package} ...", file=sys.stderr, flush=True)
    options = ("--yes", "--no-install-recommends", "install", package)
    if _apt(*options):  # a fresh machine has no lists of packages
        _apt("update")
        if error := _apt(*options):
            raise MissingProgramError(f"{wanted} ({error})")


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
                    _apt("update")
                if error := _apt("download", package, folder=aside):
                    raise MissingProgramError(
                        f"{program} is needed, and apt-get cannot fetch the package {package} ({error}): run apt-get"
                        f" update as root, or put {program} on the PATH"
                    )
            (archive,) = Path(aside).glob("*.deb")
            subprocess.run(["dpkg-deb", "--extract", archive, f"{aside}/files"], check=True)
            Path(aside, "files").rename(folder)


def _apt(*arguments: str, folder: str | None = None) -> str:
    """Run apt-get in a folder; return what it says when it fails."""
    command = ["apt-get", "--quiet", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
