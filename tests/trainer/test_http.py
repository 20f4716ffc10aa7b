"""What a pod's server prints: nothing of clients that leave, everything of errors of its own."""

import socket
import struct
import threading

import pytest

from unfreeze_api.progress import Progress
from unfreeze_trainer.agent.http import Server


@pytest.fixture
def served():
    """A function that serves one answer and returns when the server is done with it, whatever becomes of the client."""
    servers = []

    def ask(progress, leave=False):
        server = Server("127.0.0.1", 0, progress)
        done, shutdown = threading.Event(), server.shutdown_request
        server.shutdown_request = lambda request: (shutdown(request), done.set())
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
