"""Who may read /metrics where tokens are reviewed: as the API server says, asked seldom."""

import asyncio
from types import SimpleNamespace

import pytest

from unfreeze_operator.cluster.api import ApiError
from unfreeze_operator.telemetry.health import Health
from unfreeze_operator.telemetry.metrics import Metrics
from unfreeze_operator.telemetry.review import ACCESS_PATH, IDENTITY_PATH, MAX_KEPT, TokenReview


class Server:
    """An API server that knows some tokens, each with the name of its account; `reader` may read."""

    def __init__(self, **accounts):
        self.accounts, self.asked, self.error = accounts, [], None

    async def create(self, path, manifest):
        self.asked.append(path)
        if self.error is not None:
            raise self.error
        if path == IDENTITY_PATH:
            name = self.accounts.get(manifest["spec"]["token"])
            user = {"username": name, "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}}
            return {"status": {"authenticated": True, "user": user} if name else {"error": "unknown"}}
        assert path == ACCESS_PATH
        spec = manifest["spec"]
        assert spec["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
        assert (spec["uid"], spec["groups"], spec["extra"]) == ("1", ["g"], {"k": ["v"]})
        return {"status": {"allowed": spec["user"] == "reader"}}


async def status(health, header=None):
    headers = {} if header is None else {"Authorization": header}
    return (await health._metrics_page(SimpleNamespace(headers=headers))).status


@pytest.mark.parametrize(
    ("header", "code", "questions"),
    [
        (None, 401, 0),
        ("", 401, 0),
        ("Bearer ", 401, 0),
        ("Basic good", 401, 0),
        ("Bearer " + "x" * 10_000, 401, 0),
        ("Bearer strange", 401, 1),
        ("Bearer other", 403, 2),
        ("Bearer good", 200, 2),
        ("bearer good", 200, 2),
    ],
)
def test_who_may_read(header, code, questions):
    async def ask():
        server = Server(good="reader", other="stranger")
        health = Health(Metrics(), TokenReview(server))
        assert await status(health, header) == code
        assert await status(health, header) == code
        assert len(server.asked) == questions, "a judgement stands for a while"
        assert (await health._healthz(None)).status == 200, "probes need no token"

    asyncio.run(ask())


async def test_a_judgement_ends(monkeypatch):
    server, clock = Server(good="reader"), [0.0]
    review = TokenReview(server)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    assert (await review("Bearer good")).status == 200
    server.accounts.clear()
    clock[0] = 59.0
    assert (await review("Bearer good")).status == 200
    clock[0] = 60.0
    assert (await review("Bearer good")).status == 401


async def test_without_the_api_server_nobody_reads():
    server = Server(good="reader")
    server.error = ApiError(403, "Forbidden", "may not")
    health = Health(Metrics(), TokenReview(server))
    assert await status(health, "Bearer good") == 503
    server.error = None
    assert await status(health, "Bearer good") == 200


async def test_strangers_fill_no_memory():
    review = TokenReview(Server())
    await asyncio.gather(*(review(f"Bearer {number}") for number in range(MAX_KEPT + 50)))
    assert len(review._known) == MAX_KEPT
