"""Finds or builds the control plane's programs: kube-apiserver, -controller-manager, -scheduler, kubectl, etcd.

Run it alone with ``python3 tests/cluster/binaries.py`` (standard library only, so that it can run before a
virtual environment exists). It prints where each program is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KUBERNETES_VERSION = "v1.36.3"
MODULE_DIR = Path(__file__).parent / "build"
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}


class BinariesError(RuntimeError):
    """The programs can neither be found nor built; the message says what to do."""


def find_or_build() -> dict[str, Path]:
    """Return the path of every program by name; build those that no earlier source has.

    The order is KUBEBUILDER_ASSETS (envtest's folder, which lacks some of them), then the user's cache
    folder, then a build from the Go module proxy into that cache.
    """
    found = _from_envtest()
    cache = cache_dir()
    missing = [name for name in PACKAGES if name not in found]
    if any(not (cache / name).is_file() for name in missing):
        _build(cache, missing)
    return found | {name: cache / name for name in missing}


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "unfreeze" / "cluster" / KUBERNETES_VERSION


def _from_envtest() -> dict[str, Path]:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return {}
    found = {name: Path(assets) / name for name in PACKAGES if (Path(assets) / name).is_file()}
    server = found.get("kube-apiserver")
    minor = KUBERNETES_VERSION.rpartition(".")[0]
    if server is None:
        return {}
    version = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    if f" {minor}." not in version:
        _say(f"KUBEBUILDER_ASSETS is ignored: it holds {version.strip()}, the tests need {minor}.x.")
        return {}
    return found


def _build(cache: Path, names: list[str]) -> None:
    """Build into a folder aside, then rename, so that an interrupted build leaves no half a program."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise BinariesError(
            f"{', '.join(names)} {KUBERNETES_VERSION} must be built and Go is not installed: install Go 1.21 "
            "or newer (https://go.dev/dl), or put the five programs into " + str(cache)
        )
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be building: wait for it and use its result
        names = [name for name in names if not (cache / name).is_file()]
        if not names:
            return
        _say(
            f"Building {', '.join(names)} ({KUBERNETES_VERSION}) from the Go module proxy into {cache}, "
            "once: about 5 minutes on 2 cores."
        )
        started = time.monotonic()
        for interrupted in cache.glob(".build-*"):  # nobody else builds while this process holds the lock
            shutil.rmtree(interrupted)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".build-") as aside:
            _go_build(go, Path(aside), names)
            for name in names:
                built = PACKAGES[name].removesuffix("/v3").rpartition("/")[2]
                (Path(aside) / built).rename(cache / name)
        _say(f"Built in {time.monotonic() - started:.0f} s.")


def _go_build(go: str, target: Path, names: list[str]) -> None:
    """One `go build` for all, because they share most of their packages."""
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES_VERSION[1:].split(".")
    stamp = f"-X {version}.gitVersion={KUBERNETES_VERSION} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    command = [go, "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-gcflags=all=-dwarf=false"]
    command += ["-ldflags", f"-s -w {stamp}", "-o", f"{target}/", *(PACKAGES[name] for name in names)]
    # Without debug information, which -s -w would drop anyway, and with a lazier garbage collector the compiler
    # needs a third less time; it takes up to 0.6 GB for each core.
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOGC": "400"}
    result = subprocess.run(command, cwd=MODULE_DIR, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        errors = [line for line in result.stderr.splitlines() if "go: downloading" not in line]
        raise BinariesError("go build failed in " + str(MODULE_DIR) + ":\n" + "\n".join(errors[-30:]))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    try:
        paths = find_or_build()
    except BinariesError as error:
        _say(f"error: {error}")
        return 1
    for name, path in paths.items():
        print(f"{name}\t{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
