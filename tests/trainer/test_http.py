"""What a pod's server prints: nothing of clients that leave, everything of errors of its own."""

import contextlib
import socket
import struct
import threading
import urllib.request

import pytest

from unfreeze_api.contracts.progress import Progress
from unfreeze_trainer.agent import http
from unfreeze_trainer.agent.http import Server


@pytest.fixture
def served():
    """A function that serves one answer and returns when the server is done with it, whatever becomes of the client."""
    servers = []

    def ask(progress, leave=False):
        server = Server("127.0.0.1", 0, progress)
        done, shutdown = threading.Event(), server.shutdown_request
        server.shutdown_request = lambda request: (shutdown(request), done.set())
        server.poll_seconds = 0.01
        servers.append(server)
        server.start()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /progress HTTP/1.1\r\nConnection: close\r\n\r\n")
            if leave:  # at once, with a reset
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                left.set()
            assert done.wait(30)

    left = threading.Event()
    ask.left = left
    yield ask
    for server in servers:
        server.shutdown()  # a thread that serves a socket that is closed never rests
        server.server_close()


def test_a_client_that_leaves_is_not_worth_a_word(served, capfd):
    def progress():
        served.left.wait(30)
        return Progress()

    served(progress, leave=True)
    assert capfd.readouterr().err == ""


def test_an_error_of_its_own_is_told(served, capfd):
    def progress():
        raise ValueError("no progress to be had")

    served(progress)
    assert "no progress to be had" in capfd.readouterr().err


@pytest.fixture
def server(monkeypatch):
    """A function that starts a server with limits of the test's."""
    servers = []

    def start(connections=4, seconds=30.0):
        monkeypatch.setattr(http, "MAX_CONNECTIONS", connections)
        monkeypatch.setattr(http, "CONNECTION_SECONDS", seconds)
        made = Server("127.0.0.1", 0, Progress)
        made.poll_seconds = 0.01
        servers.append(made)
        made.start()
        return made

    yield start
    for made in servers:
        made.shutdown()
        made.server_close()


def connected(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def ended(client):
    """Wait until the server has ended a connection."""
    with contextlib.suppress(ConnectionError):
        while client.recv(4096):
            pass


def test_connections_that_say_nothing_do_not_keep_others_from_their_answer(server, monkeypatch):
    running, most, answer = set(), [], Server.finish_request

    def count(self, *arguments):
        running.add(threading.get_ident())
        most.append(len(running))
        try:
            answer(self, *arguments)
        finally:
            running.discard(threading.get_ident())

    monkeypatch.setattr(Server, "finish_request", count)
    flooded = server(connections=4)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(flooded)) for _ in range(20)]
        with urllib.request.urlopen(f"http://127.0.0.1:{flooded.port}/healthz", timeout=30) as response:
            assert response.read() == b"ok\n"
        for client in silent[:16]:
            ended(client)
    assert max(most) <= 4


@pytest.mark.parametrize("drip", [b"", b"GET /progress HTTP/1.1\r\nX: 1\r\n"])
def test_a_connection_ends_in_time(server, drip):
    with connected(server(seconds=0.1)) as client:
        client.sendall(drip)
        ended(client)


@pytest.mark.slow
def test_a_client_that_does_not_read_ends_in_time(server, monkeypatch):
    writing, done = threading.Event(), threading.Event()
    monkeypatch.setattr(http, "render_metrics", lambda _: writing.set() or b"x" * 100_000_000)
    made = server(seconds=1)
    monkeypatch.setattr(made, "shutdown_request", lambda _: done.set())
    with connected(made) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert writing.wait(30)
        assert done.wait(30)


def test_one_connection_has_one_answer(server):
    with connected(server()) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n" * 2)
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.count(b"HTTP/1.1 200") == 1
