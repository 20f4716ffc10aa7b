"""A proxy as a company has one: it takes CONNECT alone, and resolves names itself. Here all of them lead to one server."""

from __future__ import annotations

import select
import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.serving import running

_BYTES = 1 << 16


@contextmanager
def serve_proxy(target):
    """Serve a proxy on this machine, whose peers are all at a port of it; give its URL, and the hosts that it is asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_CONNECT(self):
            asked.append(self.path)
            with socket.create_connection(("127.0.0.1", target)) as peer:
                self.send_response(200, "Connection established")
                self.end_headers()
                ends = {self.connection: peer, peer: self.connection}
                while True:
                    for one in select.select(list(ends), [], [])[0]:
                        if not (content := one.recv(_BYTES)):
                            self.close_connection = True
                            return
                        ends[one].sendall(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}", asked
