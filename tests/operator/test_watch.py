"""The audit notices what kopf's watch cannot tell: an unfinished first listing, and deletions in a gap."""

import asyncio
from dataclasses import replace

from tests.operator.fakes import job
from tests.operator.virtual_time import run
from unfreeze_operator.cluster.api import ApiError
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.cluster.watch import Audit, until_reachable


class Server:
    def __init__(self, *pages, version=50):
        self.pages, self.version = list(pages), version

    async def list(self, *_, **__):
        uids = self.pages.pop(0)
        items = [{"metadata": {"uid": uid}} for uid in uids] or None  # null, as a real server has it
        token = "more" if self.pages else ""
        return {"items": items, "metadata": {"resourceVersion": str(self.version), "continue": token}}


def known(*uids, version=1):
    cache = Cache(lambda _: None)
    for uid in uids:
        cache.put(replace(job(uid=uid, name=uid), version=version))
    return cache


async def test_a_job_that_was_deleted_in_a_gap_is_forgotten():
    cache = known("a", "b")
    assert await Audit(Server(["a"], []), cache, ()).compare(None) == 0
    assert [view.uid for view in cache.all()] == ["a"]


async def test_the_last_job_too():
    cache = known("a")
    await Audit(Server([]), cache, ()).compare(None)
    assert len(cache) == 0


async def test_a_job_that_came_after_the_list_stays():
    cache = known("a", version=51)
    await Audit(Server([]), cache, ()).compare(None)
    assert len(cache) == 1


async def test_jobs_that_the_watch_has_not_brought_yet_are_counted():
    assert await Audit(Server(["a"], ["b", "c"]), known("a"), ()).compare(None) == 2


async def test_other_namespaces_are_not_touched():
    cache = known("a")
    await Audit(Server([]), cache, ("elsewhere",)).compare("elsewhere")
    assert len(cache) == 1


class Namespaces:
    """A server on which they come and go; `there` is a set, or an error."""

    def __init__(self, *there):
        self.there = list(there)

    async def list(self, path, **_):
        namespace = path.split("/")[-2]
        if namespace == "a":
            self.now = self.there.pop(0) if len(self.there) > 1 else self.there[0]
        if isinstance(self.now, Exception):
            raise self.now
        if namespace not in self.now:
            raise ApiError(403, "Forbidden", "may not")


def test_a_namespace_that_is_gone_is_left_out_until_it_is_there_again():
    """With it went the Role in it."""

    async def look(server, known=(), seconds=100.0):
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        return await until_reachable(server, ("a", "b"), stop, known), stop.is_set()

    assert run(look(Namespaces({"a"}))) == (("a",), False)
    assert run(look(Namespaces(set(), TimeoutError(), ApiError(500, "", ""), {"b"}))) == (("b",), False)
    assert run(look(Namespaces({"a"}, {"a"}, {"a", "b"}), ("a",))) == (("a", "b"), False)
    assert run(look(Namespaces(set(), {"a"}), ("a", "b"))) == (("a", "b"), True), "it stops where nothing more comes"
