"""What a pod serves: /healthz, /progress (JSON), /activity (a line for people), /metrics (Prometheus)."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from unfreeze_api.contracts import series
from unfreeze_api.contracts.progress import Progress

MAX_CONNECTIONS = 32
"""Connections at a time, each with a thread of its own: probe, operator and Prometheus need three."""
CONNECTION_SECONDS = 10.0
"""Longest life of a connection, from its first byte to the last of its one answer."""
_ROOM_SECONDS = 1.0


class Server(ThreadingHTTPServer):
    """Serves a pod's progress; port 0 takes a free one.

    Nobody can hold it up: each connection has one answer and a time limit, and where there are too many the oldest goes,
    since an honest one takes milliseconds.
    """

    daemon_threads = True
    request_queue_size = 64
    poll_seconds = 5.0

    def __init__(
        self, host: str, port: int, progress: Callable[[], Progress], activity: Callable[[], str] = lambda: ""
    ) -> None:
        super().__init__((host, port), _Handler)
        self.progress, self.activity = progress, activity
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._open: dict[socket.socket, float] = {}
        """When each connection began, the oldest first."""
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, once there is a place."""
        if not self._places.acquire(blocking=False):
            self._end_oldest()
            if not self._places.acquire(timeout=_ROOM_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and free the place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def service_actions(self) -> None:
        """End what has lived too long; the base calls it at each poll."""
        over = time.monotonic() - CONNECTION_SECONDS
        with self._lock:
            for request, began in self._open.items():
                if began < over:
                    _end(request)

    def _end_oldest(self) -> None:
        with self._lock:
            oldest = next(iter(self._open), None)
            if oldest is not None:
                _end(oldest)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
        self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that have left before their answer; the base prints a traceback of each."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Serve in a thread of its own."""
        options = {"poll_interval": self.poll_seconds}
        threading.Thread(target=self.serve_forever, name="http", daemon=True, kwargs=options).start()


def _end(request: socket.socket) -> None:
    """Wake up whoever reads from a connection, or writes to it."""
    with contextlib.suppress(OSError):  # it has just ended by itself
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = CONNECTION_SECONDS
    """Of each read and write."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(HTTPStatus.OK, "text/plain; charset=utf-8", b"ok\n")
        elif path == "/progress":
            self._answer(HTTPStatus.OK, "application/json", self.server.progress().for_operators().to_json().encode())
        elif path == "/activity":
            self._answer(HTTPStatus.OK, "text/plain; charset=utf-8", self.server.activity().encode())
        elif path == "/metrics":
            self._answer(
                HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", render_metrics(self.server.progress())
            )
        else:
            self._answer(
                HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"try /healthz, /progress, /activity or /metrics\n"
            )

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - overrides; probes would fill the log
        pass


def render_metrics(progress: Progress) -> bytes:
    """Return a pod's series in Prometheus' text format; a series without a value is left out."""
    from prometheus_client import CollectorRegistry, generate_latest  # a quarter of a second that only scrapes pay

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(progress))
    return generate_latest(registry)


class _Collector:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kinds = {"Gauge": GaugeMetricFamily, "Counter": CounterMetricFamily}
        for name, figure in series.at("pod").items():
            values = list(figure.values(self._progress))
            if values or figure.label:
                labels = [figure.label.name] if figure.label else []
                family = kinds[figure.kind](series.POD_PREFIX + name, figure.about, labels=labels)
                for own, value in values:
                    family.add_metric(own, value)
                yield family
