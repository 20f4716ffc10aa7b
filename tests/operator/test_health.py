"""/healthz and /readyz: sick when a part that should run for ever has ended, ready when the caches are in sync."""

import asyncio
import threading

from prometheus_client.registry import Collector

from unfreeze_operator.health import Health
from unfreeze_operator.metrics import Metrics


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
