"""The queue in virtual time: once each, one worker a key, later, and again after failures."""

import asyncio

from tests.operator.virtual_time import run
from unfreeze_operator.cluster.queue import Queue


def now():
    return round(asyncio.get_running_loop().time(), 3)


async def work(queue, handler, until, workers=3):
    task = asyncio.create_task(queue.run(handler, workers))
    await asyncio.sleep(until)
    assert not task.done(), task.exception()
    task.cancel()


def make(errors=None):
    told = [] if errors is None else errors
    return Queue(lambda key, error, pause: told.append((key, str(error), pause)), backoff=(1, 8), jitter=lambda: 1)


def test_a_key_waits_at_most_once():
    async def scenario():
        seen = []
        queue = make()

        async def handler(key):
            seen.append(key)

        for key in "aabab":
            queue.add(key)
        assert len(queue) == 2
        await work(queue, handler, 1)
        assert sorted(seen) == ["a", "b"]

    run(scenario())


def test_one_worker_a_key_and_once_more_when_asked_meanwhile():
    async def scenario():
        queue, seen, active = make(), [], 0

        async def handler(key):
            nonlocal active
            active += 1
            assert active == 1
            seen.append(now())
            await asyncio.sleep(5)
            active -= 1

        queue.add("a")
        asyncio.get_running_loop().call_later(1, queue.add, "a")
        asyncio.get_running_loop().call_later(2, queue.add, "a")
        await work(queue, handler, 30)
        assert seen == [0, 5]

    run(scenario())


def test_other_keys_do_not_wait_for_a_slow_one():
    async def scenario():
        queue, seen = make(), []

        async def handler(key):
            if key == "slow":
                await asyncio.sleep(100)
            seen.append((key, now()))

        for key in ("slow", "a", "b"):
            queue.add(key)
        await work(queue, handler, 10)
        assert seen == [("a", 0), ("b", 0)]

    run(scenario())


def test_it_comes_back_exactly_when_asked_to():
    async def scenario():
        queue, seen = make(), []

        async def handler(key):
            seen.append(now())
            return 60.5 if len(seen) == 1 else None

        queue.add("a")
        await work(queue, handler, 1000)
        assert seen == [0, 60.5]

    run(scenario())


def test_the_newest_reconcile_decides_when_to_come_back():
    async def scenario():
        queue, seen = make(), []

        async def handler(key):
            seen.append(now())
            return {1: 60, 2: None}.get(len(seen))

        queue.add("a")
        asyncio.get_running_loop().call_later(10, queue.add, "a")
        await work(queue, handler, 1000)
        assert seen == [0, 10]

    run(scenario())


def test_what_happens_meanwhile_makes_no_pause_longer():
    async def scenario():
        queue, seen = make(), []

        async def handler(key):
            seen.append(now())
            if seen[-1] < 2:
                raise ValueError("broken")

        queue.add("a")
        for number in range(1, 9):
            asyncio.get_running_loop().call_later(number / 10, queue.add, "a")
        await work(queue, handler, 1000)
        assert seen == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1, 3]

    run(scenario())


def test_failures_are_retried_with_growing_pauses_and_told():
    async def scenario():
        errors, seen = [], []
        queue = make(errors)

        async def handler(key):
            seen.append(now())
            if len(seen) < 6:
                raise ValueError("broken")

        queue.add("a")
        await work(queue, handler, 1000)
        assert seen == [0, 1, 3, 7, 15, 23]
        assert errors[0] == ("a", "broken", 1)

    run(scenario())


def test_a_success_forgets_failures():
    async def scenario():
        queue, seen = make(), []

        async def handler(key):
            seen.append(now())
            if len(seen) in (1, 3):
                raise ValueError("broken")
            return 10 if len(seen) == 2 else None

        queue.add("a")
        await work(queue, handler, 1000)
        assert seen == [0, 1, 11, 12]

    run(scenario())


def test_the_server_may_ask_for_a_longer_pause():
    async def scenario():
        queue, seen = make(), []

        async def handler(key):
            seen.append(now())
            if len(seen) == 1:
                error = ValueError("slow down")
                error.retry_after = 30
                raise error

        queue.add("a")
        await work(queue, handler, 1000)
        assert seen == [0, 30]

    run(scenario())


def test_urgent_keys_go_first_in_their_order():
    async def scenario():
        seen = []
        queue = Queue(lambda *_: None, urgent=str.isupper)

        async def handler(key):
            seen.append(key)

        for key in "aBcD":
            queue.add(key)
        assert len(queue) == 4
        await work(queue, handler, 1, workers=1)
        assert "".join(seen) == "BDac"

    run(scenario())


def test_moments_that_nobody_waits_for_any_more_take_no_memory():
    async def scenario():
        seen = []
        queue = make()

        async def handler(key):
            seen.append((now(), key))
            return 3600.0 if now() < 100 else None

        task = asyncio.create_task(queue.run(handler, 3))
        for _ in range(100):
            for key in range(20):
                queue.add(key)
            await asyncio.sleep(1)
        assert len(queue._timers) <= 100 + 2 * 20
        await asyncio.sleep(3700)
        assert seen[2000:] == [(3699.0, key) for key in range(20)]
        task.cancel()

    run(scenario())
