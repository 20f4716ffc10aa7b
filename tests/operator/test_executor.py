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
