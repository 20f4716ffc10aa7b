"""Object stores for the tests: real servers of this machine, built from their Go modules or given by a package."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from tests.cluster import binaries

KEY, SECRET = "AKIAPLANTED", "planted+s3/secret0123456789"
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own account."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command, port, **options):
    """Run a server until it is no longer needed; it is there when it listens."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **options) as process:
        try:
            while True:
                assert process.poll() is None, f"{command[0]} has ended with {process.returncode}"
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            yield
        finally:
            process.kill()


@contextmanager
def s3(folder: Path):
    """Serve S3 from a folder by versitygw; yield its address."""
    port, program = free_port(), binaries.tool("versitygw")
    folder.mkdir(exist_ok=True)
    secrets = {"ROOT_ACCESS_KEY_ID": KEY, "ROOT_SECRET_ACCESS_KEY": SECRET}
    with running([program, "--quiet", "--port", f"127.0.0.1:{port}", "posix", folder], port, env=os.environ | secrets):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def gs():
    """Serve Google Cloud Storage by fake-gcs-server; yield its address. It takes every credential, and none."""
    port, program = free_port(), binaries.tool("fake-gcs-server")
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-log-level", "error"]
    with running([program, *options], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def az(folder: Path):
    """Serve Azure Blob Storage from a folder by Azurite; yield its address."""
    port, program = free_port(), binaries.azurite()
    options = ["--silent", "--skipApiVersionCheck", "--location", folder, "--blobPort", str(port)]
    with running([binaries.node(), program, *options], port):
        yield f"http://127.0.0.1:{port}"


def client_of(scheme, url):
    """Return a client that may write."""
    host = url.removeprefix("http://")
    if scheme == "s3":
        return s3_client(url)
    if scheme == "gs":
        return pafs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=host, project_id="p")
    places = {
        f"{kind}_storage_{part}": value
        for kind in ("blob", "dfs")
        for part, value in (("scheme", "http"), ("authority", host))
    }
    return pafs.AzureFileSystem(ACCOUNT, account_key=ACCOUNT_KEY, **places)


def environment_of(scheme, url):
    """Return what a client that may read has in its environment."""
    return {
        "s3": {"AWS_ENDPOINT_URL_S3": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
        "gs": {"STORAGE_EMULATOR_HOST": url},
        "az": {
            "AZURE_STORAGE_ENDPOINT": url,
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        },
    }[scheme]


def s3_client(url):
    """Return a client that may write."""
    host = url.removeprefix("http://")
    return pafs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, scheme="http", endpoint_override=host, allow_bucket_creation=True
    )


def put(client, bucket, files):
    client.create_dir(bucket)
    for name, content in files.items():
        with client.open_output_stream(f"{bucket}/{name}") as stream:
            stream.write(content)


class Relay:
    """Stands between a client and a server: counts what comes back, and breaks connections off."""

    def __init__(self, url):
        self._there = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        """Bytes that the server has sent."""
        self.asked = []
        """First line of each request that began a connection, or came in one piece."""
        self.cut = []
        """After how many bytes of the answers each of the next connections breaks off."""
        self.hold = threading.Event()
        """Answers wait until it is set."""
        self.hold.set()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client):
        left = self.cut.pop(0) if self.cut else None
        with client, socket.create_connection((self._there.hostname, self._there.port)) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    try:
                        block = ready.recv(1 << 16)
                    except OSError:
                        return
                    if not block:
                        return
                    if ready is client:
                        self.asked.append(block.partition(b"\r\n")[0].decode(errors="replace"))
                        server.sendall(block)
                        continue
                    self.hold.wait()
                    self.sent += len(block)
                    if left is not None and (left := left - len(block)) < 0:
                        return
                    with suppress(OSError):
                        client.sendall(block)

    def close(self):
        self._listener.close()
