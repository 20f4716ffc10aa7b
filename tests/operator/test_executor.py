"""Making a child whose earlier creation was carried out, but whose answer nobody heard."""

from __future__ import annotations

import pytest

from unfreeze_operator.cluster.api import ApiError
from unfreeze_operator.cluster.executor import Delayed, Executor
from unfreeze_operator.objects.actions import Create
from unfreeze_operator.objects.resources import SERVICES


def service(uid: str, /, **meta) -> dict:
    owner = {"apiVersion": "v1", "kind": "FineTuneJob", "name": "job", "uid": uid, "controller": True}
    own = {"namespace": "ns", "name": "job", "labels": {"a": "b"}, "ownerReferences": [owner]}
    return {"metadata": {**own, **meta}}


class Taken:
    """An API whose object is there already."""

    def __init__(self, there: dict) -> None:
        self._there = there

    async def create(self, _path, _manifest):
        raise ApiError(409, "AlreadyExists", "it is there")

    async def get(self, _path):
        return self._there

    async def merge(self, _path, change):
        assert change["metadata"]["uid"] == "s1"
        self._there["metadata"] |= change["metadata"]
        return self._there


class Kept(list):
    put = list.append


def making(there: dict) -> tuple[Executor, Kept]:
    kept = Kept()
    return Executor(Taken(there), {SERVICES: kept}), kept


async def test_a_child_that_is_there_already_is_the_one_that_was_to_be_made():
    executor, kept = making(service("u1"))
    await executor.execute(Create(SERVICES, service("u1")))
    assert kept == [service("u1")]


async def test_labels_that_somebody_took_away_are_put_back():
    executor, kept = making(service("u1", uid="s1", labels={"c": "d"}))
    await executor.execute(Create(SERVICES, service("u1")))
    assert kept == [service("u1", uid="s1")]


@pytest.mark.parametrize(
    ("there", "reason"),
    [(service("u2"), "NameTaken"), (service("u1", deletionTimestamp="2026-01-01T00:00:00Z"), "WaitingForDeletion")],
)
async def test_anything_else_of_that_name_is_waited_for(there, reason):
    executor, kept = making(there)
    with pytest.raises(Delayed) as delayed:
        await executor.execute(Create(SERVICES, service("u1")))
    assert delayed.value.reason == reason
    assert kept == []


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_a_job_is_not_refused_for_labels_that_cannot_be_put_back(status, monkeypatch):
    async def refuse(*_):
        raise ApiError(status, "Invalid", "a policy denied it")

    monkeypatch.setattr(Taken, "merge", refuse)
    executor, kept = making(service("u1", uid="s1", labels={}))
    with pytest.raises(Delayed) as delayed:
        await executor.execute(Create(SERVICES, service("u1")))
    assert (delayed.value.reason, kept) == ("Forbidden", [])


async def test_a_webhook_that_does_not_answer_is_said(monkeypatch):
    """Kueue's, say, while it is upgraded: nobody could tell else why there is no Job."""
    said = 'Internal error occurred: failed calling webhook "mjob.kb.io": no endpoints available for service "kueue"'
    told = iter((said, "etcdserver: leader changed"))

    async def fail(*_):
        raise ApiError(500, "InternalError", next(told))

    monkeypatch.setattr(Taken, "create", fail)
    executor, _ = making(service("u1"))
    with pytest.raises(Delayed, match="failed calling webhook") as delayed:
        await executor.execute(Create(SERVICES, service("u1")))
    assert delayed.value.reason == "Forbidden"
    with pytest.raises(ApiError, match="leader changed"):
        await executor.execute(Create(SERVICES, service("u1")))


async def test_a_quota_that_others_are_charged_to_is_no_object_in_the_way(monkeypatch):
    """As the API server answers where many objects are made in a namespace with a ResourceQuota at once."""

    async def conflict(*_):
        raise ApiError(
            409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "jobs": the object has been modified'
        )

    async def nothing(*_):
        raise ApiError(404, "NotFound", "not found")

    monkeypatch.setattr(Taken, "create", conflict)
    monkeypatch.setattr(Taken, "get", nothing)
    executor, _ = making(service("u1"))
    with pytest.raises(Delayed, match="resourcequotas") as delayed:
        await executor.execute(Create(SERVICES, service("u1")))
    assert delayed.value.reason == "Changed", "nothing to tell: it said that the Service was just deleted"
