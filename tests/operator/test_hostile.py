"""Hostile input does no harm: jobs as large and as deep as the API server takes, and trainers that answer nonsense."""

import asyncio
import contextlib
import gzip
import json
import sys

import pytest
from aiohttp import web

from tests.operator.process import free_port
from tests.operator.world import spec, until
from unfreeze_api.contracts.budget import MAX_PROGRESS_BYTES
from unfreeze_api.contracts.progress import Progress
from unfreeze_operator.cluster import poller as module
from unfreeze_operator.cluster.poller import ProgressPoller
from unfreeze_operator.settings.options import Settings

KEY = ("ns", "job")


@pytest.mark.cluster
def test_a_job_of_half_a_mebibyte_runs_like_any_other_and_one_of_more_is_refused(operator, world):
    body, more = spec(), spec()
    body["template"]["env"] += [{"name": f"E{number}", "value": "€" * 1350} for number in range(127)]
    more["template"]["env"] += [{"name": f"E{number}", "value": "€" * 2800} for number in range(127)]
    assert 500_000 < len(json.dumps(body, ensure_ascii=False).encode()) < 512 * 1024
    assert len(json.dumps(more, ensure_ascii=False).encode()) > 1 << 20
    world.create("large", body)
    world.create("larger", more)
    world.create("small")
    assert world.wait_phase("Failed", "larger")["failure"]["reason"] == "Refused"
    world.wait_phase("Succeeded", "small")
    world.wait_phase("Succeeded", "large")


@pytest.mark.cluster
def test_what_is_too_large_is_refused_when_it_is_applied(operator, world):
    body = spec()
    body["template"]["env"] += [{"name": f"E{number}", "value": "\U0001f9ca" * 4096} for number in range(127)]
    manifest = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}, "spec": body}
    code, answer = world.cluster.request("POST", world.path("finetunejobs"), manifest)
    assert code >= 400
    assert "too large" in answer["message"]


@pytest.mark.cluster
@pytest.mark.parametrize("depth", [200, 5000])
def test_a_deep_template_is_cut_before_it_reaches_the_operator(operator, world, depth):
    """Without validation of fields, as old clients send it; kubectl's own default refuses it."""
    deep = '{"a":' * depth + "{}" + "}" * depth
    required = f'{{"requiredDuringSchedulingIgnoredDuringExecution": {deep}}}'
    body = spec()
    manifest = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}, "spec": body}
    text = json.dumps(manifest).replace('"template": {', f'"template": {{"affinity": {{"nodeAffinity": {required}}}, ')
    strict = world.cluster.kubectl("create", "-n", world.namespace, "-f", "-", stdin=text, check=False)
    assert strict == ""
    assert world.list("finetunejobs") == []
    world.cluster.kubectl("create", "--validate=false", "-n", world.namespace, "-f", "-", stdin=text, check=False)
    stored = world.list("finetunejobs")
    assert "aaaa" not in json.dumps(stored).replace('"a": {', "a")
    world.create("other")
    world.wait_phase("Succeeded", "other")
    assert operator.running


@pytest.mark.cluster
def test_an_open_field_that_is_too_deep_makes_an_invalid_job_and_no_more(operator, world):
    # The API server takes 10,000. Python 3.12 has a limit of its own, which cannot be raised.
    depth = 1_000 if sys.version_info[:2] == (3, 12) else 9_000
    body = {**spec(), "adapter": {"type": "PEFT", "peft": {"method": "LOHA", "config": {"deep": "HERE"}}}}
    manifest = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}, "spec": body}
    text = json.dumps(manifest).replace('"HERE"', '{"a":' * depth + "1" + "}" * depth)
    world.cluster.kubectl("create", f"--raw={world.path('finetunejobs')}", "-f", "-", stdin=text)
    process = operator.pid
    failure = ("get", "-n", world.namespace, "ftj/job", "--output=jsonpath={.status.failure}")
    until(lambda: "InvalidSpec" in world.cluster.kubectl(*failure), "an invalid job")
    assert "nested deeper than 8 levels" in world.cluster.kubectl(*failure)
    world.create("other")
    world.wait_phase("Succeeded", "other")
    assert (operator.running, operator.pid) == (True, process)


NONSENSE = {
    "nothing": b"",
    "no JSON": b"\xff\xfe\x00",
    "another type": b"[1]",
    "deep": b'{"metrics":' + b'{"a":' * 100_000,
    "long": b'{"phaseName": "' + b"x" * (2 * MAX_PROGRESS_BYTES),
    "endless names": json.dumps({"metrics": {"x" * 200: 1}}).encode(),
    "too many series": json.dumps({"learningRates": {str(number): 1 for number in range(5000)}}).encode(),
    "too many phases": json.dumps(
        {"phases": [{"name": "p", "steps": 1, "seconds": 1, "trainableParameters": 1}] * 2000}
    ).encode(),
    "too many results": json.dumps({"results": {str(number): 1 for number in range(65)}}).encode(),
    "negative": b'{"step": -1}',
    "astronomical": b'{"step": 1' + b"0" * 30 + b"}",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=list(NONSENSE))
def test_a_trainer_that_answers_nonsense_is_a_trainer_that_does_not_answer(answer, monkeypatch):
    assert asyncio.run(asked(answer, monkeypatch)) is None


def test_a_trainer_cannot_send_the_operator_elsewhere(monkeypatch):
    elsewhere = web.HTTPFound("http://169.254.169.254/latest/meta-data/")
    assert asyncio.run(asked(elsewhere, monkeypatch)) is None


@pytest.mark.parametrize("answer", [b'{"step": 7}', b'{"step": 7, "command": "rm"}'])
def test_a_trainer_that_keeps_to_the_contract_is_heard(answer, monkeypatch):
    assert asyncio.run(asked(answer, monkeypatch)) == Progress(step=7)


@pytest.mark.parametrize("pieces", [1, 3])
def test_an_answer_of_128_kib_is_read_to_its_end(pieces, monkeypatch):
    text = b'{"step": 7}'.ljust(MAX_PROGRESS_BYTES)
    cut = [text[start : start + len(text) // pieces + 1] for start in range(0, len(text), len(text) // pieces + 1)]
    assert asyncio.run(asked(cut, monkeypatch)).step == 7
    assert asyncio.run(asked([*cut, b" "], monkeypatch)) is None


def raw(head, *pieces):
    """Return an answer as it comes over the wire, whatever HTTP says of it."""
    return [f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".replace(";", "\r\n").encode(), *pieces]


SAID = b'{"step": 7, "metrics": {"accuracy": 0.5}}'
HALF = b'{"step": 7}, "metrics": {"accuracy": 0.5}}'
UNFIT = {
    "partial content": raw(f"206 Partial Content;Content-Length: {len(SAID)}", SAID),
    "no success": raw(f"203 Non-Authoritative;Content-Length: {len(SAID)}", SAID),
    "an error with a body": raw(f"500 Internal Server Error;Content-Length: {len(SAID)}", SAID),
    "gzip": raw(f"200 OK;Content-Encoding: gzip;Content-Length: {len(gzip.compress(SAID))}", gzip.compress(SAID)),
    "an encoding that is none": raw(f"200 OK;Content-Encoding: x;Content-Length: {len(SAID)}", SAID),
    "less than it says": raw(f"200 OK;Content-Length: {len(SAID) + 1}", SAID),
    "cut at a brace": raw("200 OK;Content-Length: 4000", HALF[:11]),
    "cut at a brace, in chunks": raw("200 OK;Transfer-Encoding: chunked", b"b\r\n" + HALF[:11] + b"\r\n"),
    "a brace at the end of a packet": raw("200 OK", HALF[:11], HALF[11:]),
    "a brace at the limit": raw("200 OK", HALF[:11].ljust(MAX_PROGRESS_BYTES), HALF[11:]),
}


@pytest.mark.parametrize("wire", UNFIT.values(), ids=list(UNFIT))
def test_what_is_not_a_whole_answer_is_none(wire, monkeypatch):
    assert asyncio.run(asked_raw(wire, monkeypatch)) is None


@pytest.mark.parametrize(
    "wire",
    [
        raw(f"200 OK;Content-Length: {len(SAID)}", *(SAID[at : at + 1] for at in range(len(SAID)))),
        raw(f"200 OK;Content-Length: {len(SAID)}", SAID[:31], SAID[31:]),
        raw(
            "200 OK;Transfer-Encoding: chunked",
            b"b\r\n" + SAID[:11] + b"\r\n",
            b"1e\r\n" + SAID[11:] + b"\r\n0\r\n\r\n",
        ),
    ],
)
def test_an_answer_in_several_packets_is_whole(wire, monkeypatch):
    assert asyncio.run(asked_raw(wire, monkeypatch)) == Progress(step=7, metrics={"accuracy": 0.5})


async def asked_raw(wire, monkeypatch):
    """Let a poller ask a server that writes these packets; return what it takes from two of them."""
    asks = asyncio.Queue()

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for packet in wire:
            with contextlib.suppress(ConnectionError):
                writer.write(packet)
                await writer.drain()
        writer.close()
        asks.put_nowait(None)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    monkeypatch.setattr(module, "HTTP_PORT", server.sockets[0].getsockname()[1])
    said = await twice(asks)
    server.close()
    return said


async def twice(asks):
    poller = ProgressPoller(Settings("image", progress_interval=0.01), lambda _: None)
    poller.watch(KEY, "uid", "127.0.0.1", ready=True)
    pulling = asyncio.create_task(poller.run())
    for _ in range(3):  # one comes after the one before has been dealt with
        await asks.get()
    assert not pulling.done()
    pulling.cancel()
    return poller.newest(KEY, "uid")


async def asked(answer, monkeypatch):
    """Let a poller ask a trainer that gives one answer for ever; return what it takes from two of them."""
    asks = asyncio.Queue()

    async def handle(request):
        asks.put_nowait(None)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, bytes):
            return web.Response(body=answer)
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in answer:
            await response.write(piece)
        return response

    server = web.Application()
    server.router.add_get("/progress", handle)
    runner = web.AppRunner(server)
    await runner.setup()
    port = free_port()
    monkeypatch.setattr(module, "HTTP_PORT", port)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    said = await twice(asks)
    await runner.cleanup()
    return said
