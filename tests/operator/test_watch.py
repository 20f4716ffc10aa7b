"""The audit notices what kopf's watch cannot tell: an unfinished first listing, and deletions in a gap."""

from dataclasses import replace

from tests.operator.fakes import job
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.cluster.watch import Audit


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
