"""/healthz and /readyz: sick when a part that should run for ever has ended, ready when the caches are in sync."""

import asyncio

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
