"""The pull of progress in virtual time: bounded, spread, and patient with leaders that do not answer."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from tests.operator.virtual_time import run
from unfreeze_api.contracts.progress import Progress
from unfreeze_operator.cluster import poller as module
from unfreeze_operator.cluster.poller import MAX_PAUSE_SECONDS, MAX_SILENCE_SECONDS, PULL_SECONDS, ProgressPoller
from unfreeze_operator.settings.options import Settings

SETTINGS = Settings(trainer_image="t", progress_interval=2, progress_rate=100, progress_concurrency=64)


class Leaders:
    """Answers by address: after how many seconds, or never."""

    def __init__(self, monkeypatch, *, seconds=0.1):
        self.seconds, self.silent, self.slow, self.asked, self.active, self.most = seconds, set(), {}, [], 0, 0
        monkeypatch.setattr(module, "ask", self.answer)

    async def answer(self, _session, url):
        ip = url.removeprefix("http://").partition(":")[0]
        self.asked.append((ip, asyncio.get_running_loop().time()))
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(PULL_SECONDS if ip in self.silent else self.slow.get(ip, self.seconds))
        finally:
            self.active -= 1
        if ip in self.silent:
            raise TimeoutError
        return Progress(step=1)

    def times(self, ip):
        return [time for asked, time in self.asked if asked == ip]


def key(ip):
    """Return the key of a leader's job; those of 10.1.*.* are another namespace's."""
    return ("other" if ip.startswith("10.1.") else "ns", ip)


async def pull(seconds, ips, *, meanwhile=()):
    """Watch leaders for a while; `meanwhile` are (second, function of the poller)."""
    changed = []
    poller = ProgressPoller(SETTINGS, changed.append)
    for ip in ips:
        poller.watch(key(ip), f"uid-{ip}", ip, ready=True)
    task = asyncio.create_task(poller.run())
    for second, do in meanwhile:
        asyncio.get_running_loop().call_later(second, do, poller)
    await asyncio.sleep(seconds)
    assert not task.done(), task.exception()
    task.cancel()
    return changed


def many(number):
    return [f"10.0.0.{n}" for n in range(number)]


def test_a_new_leader_is_asked_at_once_and_then_at_each_interval(monkeypatch):
    leaders = Leaders(monkeypatch)
    assert run(pull(20.5, many(1))) == [key("10.0.0.0")], "the same answer again is no change"
    first, *later = leaders.times("10.0.0.0")
    assert first < 0.1
    assert 8 <= len(later) <= 11


@pytest.mark.slow
def test_never_more_at_once_than_allowed(monkeypatch):
    leaders = Leaders(monkeypatch, seconds=4)
    run(pull(30, many(1000)))
    assert leaders.most == SETTINGS.progress_concurrency


@pytest.mark.slow
def test_many_leaders_are_spread_over_time_from_the_start_on(monkeypatch):
    leaders = Leaders(monkeypatch)
    run(pull(40, many(1000)))
    seconds = Counter(int(time) for _, time in leaders.asked)
    assert max(seconds.values()) < 1.6 * SETTINGS.progress_rate
    assert len(leaders.asked) == pytest.approx(40 * SETTINGS.progress_rate, rel=0.1)


def test_a_silent_leader_is_asked_ever_less(monkeypatch):
    leaders = Leaders(monkeypatch)
    leaders.silent = {"10.0.0.0"}
    run(pull(3600, many(1)))
    times = leaders.times("10.0.0.0")
    assert len(times) < 25
    assert times[-1] - times[-2] > 0.9 * MAX_PAUSE_SECONDS


@pytest.mark.slow
def test_silent_leaders_do_not_hold_up_the_others(monkeypatch):
    leaders = Leaders(monkeypatch)
    leaders.silent = set(many(1000)[:900])
    run(pull(200, many(1000)))
    pauses = [
        b - a for ip in many(1000)[900:] for a, b in zip(leaders.times(ip)[5:], leaders.times(ip)[6:], strict=False)
    ]
    assert pauses
    assert max(pauses) < 12, "an interval of ten seconds at this number, with its jitter"


def pauses(leaders, ips, first=0):
    """Return the times from each question to the next one, of some leaders from a second on."""
    times = [[time for time in leaders.times(ip) if time >= first] for ip in ips]
    assert all(len(asked) > 3 for asked in times)
    return [later - earlier for asked in times for earlier, later in pairwise(asked)]


@pytest.mark.slow
def test_leaders_that_answer_just_in_time_do_not_hold_up_the_others(monkeypatch):
    leaders = Leaders(monkeypatch)
    leaders.slow = dict.fromkeys(many(1000)[:900], PULL_SECONDS - 0.1)
    run(pull(300, many(1000)))
    assert max(pauses(leaders, many(1000)[900:], first=100)) < 12, "the interval at this number, with its jitter"


def test_a_leader_that_is_quick_again_has_its_place_again(monkeypatch):
    leaders = Leaders(monkeypatch)
    leaders.slow = dict.fromkeys(many(60), PULL_SECONDS - 0.1)
    run(pull(400, many(60), meanwhile=[(100, lambda _: leaders.slow.pop("10.0.0.0"))]))
    assert max(pauses(leaders, many(1), first=200)) < 3
    assert min(pauses(leaders, many(60)[1:], first=200)) > 6


@pytest.mark.slow
def test_a_namespace_cannot_take_all_places(monkeypatch):
    """Not even by leaders that are always new: those have done nothing wrong yet."""
    leaders = Leaders(monkeypatch)
    crowd = many(200)
    leaders.slow = dict.fromkeys(crowd, PULL_SECONDS - 0.1)
    renewed = [
        (second, lambda poller, n=second: [poller.watch(key(ip), f"{ip} {n}", ip, ready=True) for ip in crowd])
        for second in range(3, 150, 3)
    ]
    run(pull(150, [*crowd, "10.1.0.1"], meanwhile=renewed))
    assert max(pauses(leaders, ["10.1.0.1"], first=20)) < PULL_SECONDS + 3
    assert leaders.most <= SETTINGS.progress_concurrency


def test_a_leader_that_becomes_ready_again_is_asked_at_once(monkeypatch):
    leaders = Leaders(monkeypatch)
    leaders.silent = {"10.0.0.0"}

    def ready(value):
        return lambda poller: poller.watch(key("10.0.0.0"), "uid-10.0.0.0", "10.0.0.0", ready=value)

    meanwhile = [(900, ready(False)), (1000, lambda _: leaders.silent.clear()), (1000, ready(True))]
    run(pull(1020, many(1), meanwhile=meanwhile))
    after = [time for time in leaders.times("10.0.0.0") if time >= 1000]
    assert after[0] < 1000.1
    assert 7 <= len(after) <= 11, "once each interval again, and by one timer alone"


def test_a_leader_that_is_heard_of_again_is_believed_soon(monkeypatch):
    """Its job counts as lost while it is silent, however long that is."""
    leaders, changed = Leaders(monkeypatch), []

    async def scenario():
        poller = ProgressPoller(SETTINGS, lambda _: changed.append(asyncio.get_running_loop().time()))
        poller.watch(key("a"), "uid", "a", ready=True)
        task = asyncio.create_task(poller.run())
        await asyncio.sleep(1)
        leaders.silent.add("a")
        await asyncio.sleep(1000)
        leaders.silent.discard("a")
        await asyncio.sleep(100)
        task.cancel()

    run(scenario())
    assert len(changed) == 3, "its first answer, its silence, its next answer"
    assert 1001 < changed[-1] < 1001 + 1.1 * MAX_SILENCE_SECONDS + PULL_SECONDS


def test_a_pod_whose_address_has_changed_is_asked_there(monkeypatch):
    leaders = Leaders(monkeypatch)
    moved = (10, lambda poller: poller.watch(key("10.0.0.0"), "uid-10.0.0.0", "10.0.0.9", ready=True))
    run(pull(20, many(1), meanwhile=[moved]))
    assert max(leaders.times("10.0.0.0")) < 10 <= min(leaders.times("10.0.0.9")) < 10.1


def test_two_unanswered_questions_are_told_and_so_is_the_next_answer(monkeypatch):
    leaders, seen = Leaders(monkeypatch), []

    def note(poller):
        seen.append((poller.silent(key("a"), "uid-a"), poller.silent(key("b"), "uid-b")))

    async def scenario():
        leaders.silent.add("b")  # has never answered: it may just begin
        steps = [(1, lambda _: leaders.silent.add("a")), (9, note), (18, note)]
        steps += [(19, lambda _: leaders.silent.discard("a")), (40, note)]
        return await pull(40.5, ["a", "b"], meanwhile=steps)

    changed = run(scenario())
    assert seen == [(False, False), (True, False), (False, False)]
    assert changed == [key("a")] * 3, "its first answer, its silence, its next answer"
