"""Builds images with buildah, on a minimal Debian: no registry of images and no daemon is needed, but root is."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.cluster.cluster import REPOSITORY
from tests.debian import cache_folder, install

Json = dict[str, Any]
SUITE = "bookworm"
BASE = "localhost/debian"
CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Certificates that somebody added to this machine: behind a proxy with one of its own, builds need it too."""


class Builder:
    """Images and containers of a folder of their own.

    Parameters
    ----------
    folder
        Where buildah keeps them; some hundred MB.
    """

    def __init__(self, folder: Path) -> None:
        install("buildah", "buildah")
        self._options = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        self._driver = "overlay"
        try:
            self.run("images")
        except subprocess.CalledProcessError:  # this file system does not carry overlays
            shutil.rmtree(folder / "storage", ignore_errors=True)
            self._driver = "vfs"

    def run(self, *arguments: str | Path) -> str:
        """Run buildah and return what it prints; what it says when it fails is in the error."""
        command = ["buildah", *self._options, "--storage-driver", self._driver, *map(str, arguments)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode:
            error = subprocess.CalledProcessError(done.returncode, command)
            error.add_note(done.stdout[-3000:] + done.stderr[-3000:])
            raise error
        return done.stdout.strip()

    def import_base(self) -> None:
        """Make the image BASE of a minimal Debian."""
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, _debian(), "/")
        for certificate in CERTIFICATES.glob("*.crt"):
            self.run("copy", "--quiet", container, certificate, f"{CERTIFICATES}/")
        self.run("commit", "--quiet", "--rm", container, BASE)

    def build(self, target: str) -> str:
        """Build a target of the Dockerfile on BASE, and return the image's name."""
        name = f"localhost/unfreeze-{target}"
        arguments = (
            "--isolation",
            "chroot",
            "--jobs",
            "2",
            "--build-arg",
            f"BASE={BASE}",
            "--target",
            target,
            "--tag",
            name,
        )
        self.run("build", *arguments, "--file", REPOSITORY / "Dockerfile", REPOSITORY)
        return name

    def inspect(self, image: str) -> Json:
        """Return an image's description as OCI has it."""
        description: Json = json.loads(self.run("inspect", "--type", "image", image))["OCIv1"]
        return description

    def layers(self, image: str) -> list[int]:
        """Return the sizes of an image's layers, uncompressed, in bytes; the base's first."""
        with tempfile.TemporaryDirectory() as folder:
            self.run("push", "--quiet", "--disable-compression", image, f"dir:{folder}")
            manifest = json.loads(Path(folder, "manifest.json").read_text())
        return [int(layer["size"]) for layer in manifest["layers"]]

    def mount(self, image: str) -> Path:
        """Return the folder of an image's files, as a container has them."""
        return Path(self.run("mount", self.run("from", image)))

    def close(self) -> None:
        """Take down all containers."""
        self.run("rm", "--all")


def _debian() -> Path:
    """Return an archive of a minimal Debian, made once and kept in the user's cache."""
    archive = cache_folder() / "debian" / f"{SUITE}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.is_file():
            install("debootstrap", "debootstrap")
            with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
                _check("debootstrap", "--variant=minbase", SUITE, f"{folder}/root")
                _check("tar", "--create", "--file", f"{folder}/archive", "--directory", f"{folder}/root", ".")
                Path(folder, "archive").rename(archive)
    return archive


def _check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
