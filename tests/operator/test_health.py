"""/healthz and /readyz: sick when a part that should run for ever has ended, ready when the caches are in sync."""

import asyncio
import threading

import aiohttp
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from tests.operator.process import free_port
from unfreeze_operator.telemetry.health import Health
from unfreeze_operator.telemetry.metrics import Metrics


async def test_a_dead_part_makes_the_process_sick():
    health = Health(Metrics())
    part = asyncio.create_task(asyncio.sleep(0), name="watch of pods")
    health.watch(part)
    assert (await health._healthz(None)).status == 200
    await part
    answer = await health._healthz(None)
    assert (answer.status, answer.text) == (503, "ended: watch of pods\n")


async def test_ready_when_in_sync():
    health = Health(Metrics())
    assert (await health._readyz(None)).status == 503
    health.synced = True
    assert (await health._readyz(None)).status == 200


async def test_the_metrics_page_does_not_hold_up_the_event_loop():
    """What it is made of waits for something that the loop does meanwhile."""
    metrics, looped = Metrics(), threading.Event()

    class Patient(Collector):
        def describe(self):
            return []

        def collect(self):
            assert looped.wait(30)
            return []

    metrics.registry.register(Patient())
    page = asyncio.create_task(Health(metrics)._metrics_page(None))
    await asyncio.sleep(0)
    looped.set()
    assert (await page).status == 200


def test_one_page_is_made_for_all_who_ask_meanwhile_and_for_a_while(monkeypatch):
    asyncio.run(asked_by_many(monkeypatch))


async def asked_by_many(monkeypatch):
    metrics, made, go, begun = Metrics(), [], threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Counting(Collector):
        def describe(self):
            return []

        def collect(self):
            made.append(1)
            loop.call_soon_threadsafe(begun.set)
            assert go.wait(30)
            return []

    metrics.registry.register(Counting())
    health, clock = Health(metrics), [0.0]
    monkeypatch.setattr(loop, "time", lambda: clock[0])
    first = [asyncio.ensure_future(health._metrics_page(None)) for _ in range(50)]
    await begun.wait()
    first[0].cancel()  # a client that leaves takes the page from nobody
    clock[0] = 2.0
    go.set()
    assert {answer.status for answer in await asyncio.gather(*first[1:])} == {200}
    assert len(made) == 1
    clock[0] = 21.9
    assert (await health._metrics_page(None)).status == 200
    assert len(made) == 1, "it took two seconds, and stands for twenty"
    clock[0] = 22.0
    await health._metrics_page(None)
    assert len(made) == 2
    clock[0] = 100.0
    for _ in range(2):
        await asyncio.sleep(0)
    assert health._page is None, "nobody asks for it any more, and it has megabytes"


async def test_the_page_is_sent_as_what_it_is_to_several_at_once():
    health, port = Health(Metrics()), free_port()
    serving = asyncio.create_task(health.serve("127.0.0.1", port))
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                answers = [await session.get(f"http://127.0.0.1:{port}/metrics") for _ in range(2)]
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0)
        texts = [await answer.text() for answer in answers]
    serving.cancel()
    assert {answer.headers["Content-Type"] for answer in answers} == {CONTENT_TYPE_LATEST}
    assert texts[0] == texts[1]
    assert "unfreeze_leading 0.0" in texts[0].splitlines()
