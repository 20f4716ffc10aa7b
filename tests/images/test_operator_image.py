"""The operator's image as the Dockerfile makes it: what is in it, how large it is, and that it runs as it is deployed."""

from __future__ import annotations

import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import REPOSITORY, Cluster
from tests.images.builder import BASE, Builder
from tests.operator.process import free_port, install
from tests.operator.world import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
MOST_BYTES = 150_000_000
USER = 65532
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
# As a container runtime does, and as the Deployment asks: no root, a ServiceAccount, nowhere to write.
START = f"""
set -e
root=$1 account=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root{ACCOUNT}"
mount --bind "$account" "$root{ACCOUNT}"
mount -o remount,ro "$root/run"
mount -o remount,bind,ro "$root"
exec chroot --userspec={USER}:{USER} "$root" "$@"
"""


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    builder = Builder(tmp_path_factory.mktemp("images"))
    builder.import_base()
    yield builder
    builder.close()


@pytest.fixture(scope="module")
def image(builder: Builder) -> str:
    return builder.build("operator")


@pytest.fixture(scope="module")
def files(builder: Builder, image: str) -> Path:
    return builder.mount(image)


def test_its_own_layers_are_small(builder: Builder, image: str):
    base = builder.layers(BASE)
    layers = builder.layers(image)
    assert layers[: len(base)] == base
    assert sum(layers[len(base) :]) < MOST_BYTES


def test_it_says_what_it_is_and_runs_as_nobody(builder: Builder, image: str):
    config = builder.inspect(image)["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["unfreeze-operator"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == "unfreeze-operator"
    assert {"description", "licenses", "version", "revision"} <= labels.keys()


def test_it_has_neither_compiler_nor_torch_nor_installers(files: Path):
    paths = ":".join(
        str(files / place) for place in ("usr/bin", "usr/local/bin", "opt/unfreeze/bin", "opt/unfreeze/own/bin")
    )
    found = [name for name in ("gcc", "cc", "g++", "make", "pip", "pip3", "uv") if shutil.which(name, path=paths)]
    assert found == []
    (packages,) = files.glob("opt/unfreeze/lib/python3*/site-packages")
    assert not {"torch", "transformers", "numpy", "pip", "setuptools"} & {path.name for path in packages.iterdir()}


def test_its_versions_are_those_of_the_lock(files: Path):
    locked = dict(
        line.split(" ;")[0].split("==") for line in (REPOSITORY / "requirements.lock").read_text().splitlines()
    )
    names = [
        path.name.removesuffix(".dist-info")
        for path in files.glob("opt/unfreeze/lib/python3*/site-packages/*.dist-info")
    ]
    installed = dict(name.replace("_", "-").lower().rsplit("-", 1) for name in names)
    assert {"kopf", "kubernetes", "pydantic"} <= installed.keys()
    assert {name: version for name, version in installed.items() if locked[name] != version} == {}


def test_it_runs_on_a_read_only_root_and_becomes_ready(
    builder: Builder, image: str, cluster: Cluster, files: Path, tmp_path: Path
):
    install(cluster, REPOSITORY)
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(cluster.service_account_token("unfreeze-system", "unfreeze-operator"))
    Path(shutil.copy(cluster.folder / "pki/ca.crt", account)).chmod(0o444)
    port = free_port()
    config = builder.inspect(image)["config"]
    address = urllib.parse.urlsplit(cluster.server)
    api = (f"KUBERNETES_SERVICE_HOST={address.hostname}", f"KUBERNETES_SERVICE_PORT={address.port}")
    program = ["env", "-i", *config["Env"], *api, *config["Entrypoint"]]
    program += ["--trainer-image=none", "--http-host=127.0.0.1", f"--http-port={port}"]
    log = (tmp_path / "log").open("wb")
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", START, "sh", files, account, *program]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: _ready(process, port, tmp_path / "log"), "the operator of the image is ready", 120)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in status
    finally:
        process.terminate()
    assert process.wait(60) == 0, (tmp_path / "log").read_text()


def _ready(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
