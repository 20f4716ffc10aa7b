"""A registry on this machine: as much of the OCI distribution protocol as a pull by digest uses, with what was sent counted."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.serving import running

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass
class Registry:
    """Manifests and blobs by digest, and how many bytes of each were sent."""

    url: str = ""
    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Media type and bytes."""
    sent: Counter[str] = field(default_factory=Counter)

    def push(self, files: Mapping[str, bytes]) -> str:
        """Keep an image of one layer, with files by their paths in it; return the manifest's digest."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        plain = packed.getvalue()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
            "config": {},
        }
        parts = [
            self._described(_CONFIG, json.dumps(config).encode()),
            self._described(_LAYER, gzip.compress(plain, 1, mtime=0)),
        ]
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": parts[0], "layers": parts[1:]}
        return str(self._described(_MANIFEST, json.dumps(manifest).encode())["digest"])

    def _described(self, kind: str, content: bytes) -> dict[str, Any]:
        digest = _digest(content)
        self.content[digest] = (kind, content)
        return {"mediaType": kind, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def serve_images() -> Iterator[Registry]:
    """Serve a registry on this machine."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            digest = self.path.rpartition("/")[2]
            kind, content = registry.content.get(digest, ("", b""))
            known = self.path.startswith("/v2/") and digest in registry.content
            self.send_response(200 if known else 404)
            if known:
                self.send_header("Content-Type", kind)
                self.send_header("Docker-Content-Digest", digest)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            registry.sent[digest] += len(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.url = f"http://127.0.0.1:{server.server_port}"
    with running(server):
        yield registry
