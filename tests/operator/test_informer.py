"""The informer against what a real server rarely does: gaps, expired versions, silence, late answers."""

import asyncio

import pytest

from tests.operator.fakes import pod
from tests.operator.virtual_time import run
from unfreeze_operator.cluster.api import REQUEST_SECONDS, ApiError
from unfreeze_operator.cluster.informer import REMEMBERED_SECONDS, Cache, Kind, Reflector
from unfreeze_operator.objects.resources import FORMER_WORKLOADS, JOB_LABEL, PODS, WORKLOADS
from unfreeze_operator.objects.views import has_termination_message, pod_view


def raw(name, version, phase="Running", uid=""):
    manifest = pod(0, phase, name=name)
    manifest["metadata"] |= {"resourceVersion": str(version), "uid": uid or f"uid-{name}"}
    return manifest


def event(type_, name, version, **fields):
    return {"type": type_, "object": raw(name, version, **fields)}


GONE = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
BOOKMARK = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}}


class Server:
    """Answers lists and watches from a script; at its end everything stays as it is."""

    def __init__(self, lists, watches):
        self.lists, self.watches, self.asked = list(lists), list(watches), []

    async def list(self, *_, **__):
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        items, version, *more = answer
        return {"items": items, "metadata": {"resourceVersion": str(version), "continue": more[0] if more else ""}}

    async def watch(self, _, params, **__):
        self.asked.append(params["resourceVersion"])
        if not self.watches:
            await asyncio.Event().wait()
        for answer in self.watches.pop(0):
            if isinstance(answer, BaseException):
                raise answer
            yield answer


async def test_reflectors_read_one_page_at_a_time():
    """Raw pages of all kinds at once would take more memory than all views."""
    most = active = 0

    class Slow(Server):
        async def list(self, *_, **__):
            nonlocal most, active
            active += 1
            most = max(most, active)
            for _ in range(5):
                await asyncio.sleep(0)
            active -= 1
            return await super().list()

    pages = asyncio.Lock()
    servers = [Slow([([raw("a", 1)], 2, "more"), ([raw("b", 1)], 2)], []) for _ in range(3)]
    reflectors = [Reflector(s, Kind(PODS, pod_view), Cache(print), None, silence=90, pages=pages) for s in servers]
    tasks = [asyncio.create_task(reflector.run()) for reflector in reflectors]
    for reflector in reflectors:
        await reflector.synced.wait()
    for task in tasks:
        task.cancel()
    assert most == 1
    assert [len(reflector._cache) for reflector in reflectors] == [2] * 3


def follow(server, *, optional=False):
    """Run a reflector to the end of the server's script; return its cache and the keys that changed."""

    async def scenario():
        changes = []
        cache = Cache(changes.append)
        reflector = Reflector(server, Kind(PODS, pod_view, optional=optional), cache, None, silence=90)
        task = asyncio.create_task(reflector.run())
        await asyncio.sleep(1000)
        assert not task.done(), task.exception()
        assert reflector.synced.is_set()
        task.cancel()
        return {view.name: view.phase for view in cache.all()}, changes

    # The timer above keeps virtual time going; what waits for ever must not look like a dead end.
    return run(scenario())


def test_list_then_watch():
    events = [event("ADDED", "b", 6), event("MODIFIED", "a", 7, phase="Failed"), event("DELETED", "b", 8)]
    server = Server([([raw("a", 5)], 5)], [events])
    assert follow(server)[0] == {"a": "Failed"}
    assert server.asked == ["5", "8"]


@pytest.mark.parametrize("how", [[GONE], [ApiError(410, "Expired", "too old")]])
def test_a_relist_notices_what_was_deleted_in_the_gap(how):
    server = Server([([raw("a", 5), raw("b", 5)], 5), ([raw("b", 5)], 90)], [how])
    found, changes = follow(server)
    assert found == {"b": "Running"}
    assert changes == [("ns", "job")] * 3
    assert server.asked == ["5", "90"]


def test_a_list_that_outlives_its_snapshot_begins_again():
    pages = [([raw("a", 5)], 5, "token"), ApiError(410, "Expired", "too old"), ([raw("b", 6)], 6)]
    assert follow(Server(pages, []))[0] == {"b": "Running"}


def test_a_bookmark_moves_the_start_of_the_next_watch():
    server = Server([([], 5)], [[BOOKMARK]])
    follow(server)
    assert server.asked == ["5", "77"]


def test_silence_and_broken_connections_go_on_from_where_they_were():
    server = Server([([], 5)], [[event("ADDED", "a", 9), TimeoutError()], [ConnectionResetError()]])
    assert follow(server)[0] == {"a": "Running"}
    assert server.asked == ["5", "9", "9"]


@pytest.mark.parametrize("status", [403, 404])
def test_a_kind_that_cannot_be_seen_for_a_while_is_seen_again(status):
    """As when somebody takes a right away for a minute: the objects are still there."""
    refusal = ApiError(status, "", "")
    server = Server([([raw("a", 5)], 5), refusal, ([raw("a", 5)], 9)], [[GONE]])
    found, changes = follow(server, optional=True)
    assert found == {"a": "Running"}
    assert changes == [("ns", "job")] * 3
    cache = Cache(lambda _: None)
    for view in (pod_view(raw("a", 5)), pod_view(raw("b", 6))):
        cache.put(view)
    cache.clear("other")
    assert len(cache) == 2
    cache.clear("ns")
    cache.put(pod_view(raw("b", 6)))
    assert [view.name for view in cache.of(("ns", "job"))] == ["b"]


def test_a_kind_is_asked_for_in_its_former_version_where_the_server_has_no_other():
    """As of Kueue, which is updated beside an operator that runs."""
    asked = []

    class Versions(Server):
        async def list(self, path, **options):
            asked.append(path.split("/")[3])
            return await super().list(path, **options)

    absent = ApiError(404, "", "")
    script = [absent, absent, absent, ([raw("a", 5)], 5), absent, ([raw("a", 6)], 9)]
    server = Versions(script, [[GONE]])

    async def scenario():
        cache = Cache(print)
        kind = Kind(WORKLOADS, pod_view, optional=True, former=FORMER_WORKLOADS)
        task = asyncio.create_task(Reflector(server, kind, cache, None, silence=90).run())
        await asyncio.sleep(1000)
        task.cancel()
        return [view.version for view in cache.all()]

    assert run(scenario()) == [6]
    assert asked == ["v1beta2", "v1beta1"] * 2 + ["v1beta1", "v1beta2"]


def test_a_kind_that_can_be_listed_but_not_watched_is_asked_for_with_pauses():
    """A list that is served says nothing of the watch: without a pause the two versions would take turns as fast as they can."""
    asked = 0

    class Unwatched(Server):
        async def list(self, path, **options):
            nonlocal asked
            asked += 1
            return await super().list(path, **options)

        async def watch(self, *_, **__):
            raise ApiError(404, "", "")
            yield

    server = Unwatched([([raw("a", 5)], 5)] * 1000, [])

    async def scenario():
        kind = Kind(WORKLOADS, pod_view, optional=True, former=FORMER_WORKLOADS)
        task = asyncio.create_task(Reflector(server, kind, Cache(print), None, silence=90).run())
        await asyncio.sleep(600)
        task.cancel()

    run(scenario())
    assert 2 < asked < 100


@pytest.mark.parametrize("how", [[], [GONE]], ids=["ends", "expires"])
def test_a_watch_that_ends_at_once_is_asked_for_with_pauses(how):
    """As by a server that ends in good order, or a balancer without one behind it: it would be asked as fast as it can answer."""
    server = Server([([raw("a", 5)], 5)] * 5000, [how] * 5000)
    assert follow(server)[0] == {"a": "Running"}
    assert 20 < len(server.asked) < 250
    assert len(server.asked) + len(server.watches) == 5000


def test_a_server_that_is_not_there_yet_is_tried_again():
    server = Server([ApiError(503, "", "starting"), ConnectionRefusedError(), ([raw("a", 5)], 5)], [])
    assert follow(server)[0] == {"a": "Running"}


def test_what_means_nothing_wakes_nobody():
    server = Server([([raw("a", 5)], 5)], [[event("MODIFIED", "a", 6), event("MODIFIED", "a", 7)]])
    assert follow(server)[1] == [("ns", "job")]


def test_an_object_that_cannot_be_read_stops_nobody():
    odd = event("ADDED", "odd", 6)
    odd["object"]["metadata"]["creationTimestamp"] = "yesterday"
    server = Server([([raw("a", 5), odd["object"]], 5)], [[odd, event("ADDED", "b", 7)]])
    assert follow(server)[0] == {"a": "Running", "b": "Running"}


def test_an_own_write_is_seen_at_once_and_no_late_answer_brings_back_the_dead():
    changes = []
    cache = Cache(changes.append)
    cache.put(pod_view(raw("a", 5)))
    cache.put(pod_view(raw("a", 4, phase="Failed")))
    assert [view.phase for view in cache.of(("ns", "job"))] == ["Running"]
    cache.remove(pod_view(raw("a", 6)))
    cache.put(pod_view(raw("a", 5)))
    assert cache.of(("ns", "job")) == []


@pytest.mark.parametrize("suffix", ["", "-train"])
@pytest.mark.parametrize("name", ["job", "job-train", "other"])
def test_a_jobs_objects_are_found_by_its_label_whatever_their_name(suffix, name):
    cache = Cache(lambda _: None, suffix=suffix)
    cache.put(pod_view(raw(name, 5)))
    assert [view.name for view in cache.of(("ns", "job"))] == [name]
    assert cache.of(("ns", name)) == cache.of(("ns", "job")) * (name == "job")
    cache.put(pod_view(raw(name, 6, phase="Failed")))
    assert [view.phase for view in cache.of(("ns", "job"))] == ["Failed"]
    cache.remove(pod_view(raw(name, 7)))
    assert cache.of(("ns", "job")) == []
    assert not cache._others


def test_the_end_of_a_namesake_does_not_touch_its_successor():
    cache = Cache(lambda _: None)
    cache.put(pod_view(raw("a", 9, uid="new")))
    cache.remove(pod_view(raw("a", 8, uid="old")))
    assert [view.uid for view in cache.all()] == ["new"]


def test_what_was_written_after_a_list_survives_it():
    cache = Cache(lambda _: None)
    cache.put(pod_view(raw("mine", 12)))
    cache.replace(None, [], 10)
    assert len(cache) == 1
    cache.replace("other", [], 20)
    assert len(cache) == 1
    cache.replace("ns", [], 20)
    assert len(cache) == 0


def test_termination_messages_are_kept_until_somebody_has_read_them():
    key, changes = ("ns", "job"), []
    cache = Cache(changes.append, keep=has_termination_message)
    ended = pod(0, "Failed", name="a", code=143, message="words")
    ended["metadata"] |= {"resourceVersion": "6", "uid": "uid-a"}
    cache.put(pod_view(raw("a", 5)))
    cache.remove(pod_view(ended))
    assert [view.message for view in cache.departed(key)] == ["words"]
    assert changes == [key, key]
    read = cache.departed(key)
    cache.put(pod_view(raw("b", 7)))
    cache.remove(pod_view(raw("b", 8)))
    assert len(cache.departed(key)) == 1, "a pod without an end says nothing"
    cache.forget(key, read)
    assert cache.departed(key) == []


def test_what_was_written_here_is_not_read_again_when_the_watch_brings_it():
    read = []

    def view(manifest):
        read.append(manifest["metadata"]["resourceVersion"])
        return pod_view(manifest)

    server = Server(
        [([raw("a", 5)], 5)], [[event("MODIFIED", "a", 5), event("MODIFIED", "a", 4), event("MODIFIED", "a", 6)]]
    )
    cache = Cache(lambda _: None)

    async def scenario():
        task = asyncio.create_task(Reflector(server, Kind(PODS, view), cache, None, silence=90).run())
        await asyncio.sleep(1000)
        task.cancel()

    run(scenario())
    assert [known.version for known in cache.all()] == [6]
    assert read == ["5", "6"]


def test_what_was_without_its_label_for_a_while_is_back():
    server = Server([([raw("a", 5)], 7)], [[event("DELETED", "a", 8), event("ADDED", "a", 9)]])
    assert follow(server)[0] == {"a": "Running"}


def test_an_answer_of_before_the_end_changes_nothing():
    cache = Cache(lambda _: None)
    cache.put(pod_view(raw("a", 5)))
    cache.remove(pod_view(raw("a", 9)), 9)
    cache.put(pod_view(raw("a", 8)))
    assert len(cache) == 0


def test_ends_are_remembered_as_long_as_an_answer_can_be_under_way_and_no_longer():
    now = 0.0
    cache = Cache(lambda _: None, clock=lambda: now)
    for number in range(3_000):
        cache.remove(pod_view(raw(f"a{number}", 9)))
    cache.put(pod_view(raw("a0", 8)))
    assert len(cache) == 0
    now = REQUEST_SECONDS + 1.0
    cache.remove(pod_view(raw("a1", 9)))
    now = REMEMBERED_SECONDS + 1
    cache.remove(pod_view(raw("b", 9)))
    assert {*cache._gone} == {"uid-a1", "uid-b"}


def test_the_job_of_a_label_that_somebody_changed_is_told():
    changes = []
    cache = Cache(changes.append)
    cache.put(pod_view(raw("a", 1)))
    other = raw("a", 2)
    other["metadata"]["labels"][JOB_LABEL] = "other"
    cache.put(pod_view(other))
    assert changes == [("ns", "job"), ("ns", "other"), ("ns", "job")]
