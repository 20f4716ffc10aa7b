"""A job is waited for through broken connections: here the API server is one of a few lines."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import ApiClient, Configuration

import unfreeze
from unfreeze import cluster


class Api(BaseHTTPRequestHandler):
    """Has a job that has succeeded once somebody has watched it; of a watch nothing is heard, not even its end."""

    watches = 0

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if "watch=" in self.path:
            self.wfile.flush()
            type(self).watches += 1
            self.server.over.wait()
            return
        phase = "Succeeded" if self.watches else "Running"
        metadata = {"name": "job", "namespace": "team", "resourceVersion": "7"}
        spec = {"output": {"destination": "pvc://results/run"}}
        self.wfile.write(json.dumps({"metadata": metadata, "spec": spec, "status": {"phase": phase}}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setattr(cluster, "_WATCHED_SECONDS", 1)
    monkeypatch.setattr(cluster, "_LATE_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(Api, "watches", 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.over = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_address[1]}"
    yield unfreeze.Submitted("job", "team", ApiClient(Configuration(host=host)))
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.mark.timeout(20)
def test_a_watch_that_has_died_without_a_word_is_begun_again(job):
    unfreeze.wait(job, timeout=10, progress=False)
    assert Api.watches == 1
