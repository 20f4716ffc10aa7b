"""The node's pure parts, and its view of the API through a watch that breaks."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from tests.cluster.api import Api, ApiError, Store
from tests.cluster.container import hidden_folders
from tests.cluster.environment import ConfigError, expand, field, quantity, resource_field
from tests.cluster.kubelet_api import _tail_start
from tests.cluster.volumes import VolumeError, _host_path

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("plain", "plain"),
        ("$(A)/$(B)", "1/$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $(A", "$A $(A"),
    ],
)
def test_expand(text: str, want: str) -> None:
    assert expand(text, {"A": "1"}) == want


@pytest.mark.parametrize(
    ("text", "want"), [("1", 1), ("500m", 0.5), ("2Ki", 2048), ("1.5Gi", 1.5 * 1024**3), ("1e3", 1000), ("3k", 3000)]
)
def test_quantity(text: str, want: float) -> None:
    assert quantity(text) == want


def test_a_volume_does_not_hide_an_images_programs() -> None:
    mounts = [{"source": "/state/volumes/tmp", "target": "/tmp", "readOnly": False}]
    brought_back = [{"source": "/tmp/clone", "target": "/tmp/clone", "readOnly": True}]
    assert hidden_folders(("/tmp/clone", "/opt/other"), mounts) == brought_back


def test_a_bad_quantity_is_named() -> None:
    with pytest.raises(ConfigError, match="'2 apples'"):
        quantity("2 apples")


def test_fields() -> None:
    pod = {"metadata": {"name": "p", "labels": {"b": "2", "a": "1"}}, "status": {"podIPs": [{"ip": "1"}, {"ip": "2"}]}}
    assert field(pod, "metadata.name") == "p"
    assert field(pod, "metadata.labels") == 'a="1"\nb="2"'
    assert field(pod, "metadata.annotations['none']") == ""
    assert field(pod, "status.podIPs") == "1,2"
    with pytest.raises(ConfigError, match="the field metadata"):
        field(pod, "metadata.nonsense")


def test_resource_field_is_rounded_up() -> None:
    container = {"resources": {"limits": {"cpu": "1500m"}}}
    assert resource_field({}, {"resource": "limits.cpu"}, container) == "2"


@pytest.mark.parametrize(
    ("content", "lines", "want"),
    [(b"a\nb\nc\n", 2, b"b\nc\n"), (b"a\nb", 1, b"b"), (b"a\n", 9, b"a\n"), (b"a\n", 0, b"")],
)
def test_tail(content: bytes, lines: int, want: bytes) -> None:
    assert content[_tail_start(content, lines) :] == want


def test_host_path_of_the_wrong_type(tmp_path: Any) -> None:
    with pytest.raises(VolumeError, match="is not a directory"):
        _host_path({"path": str(tmp_path / "none"), "type": "Directory"})


class BrokenApi:
    """Answers lists in turn; its watches send what they are told to and then end or fail."""

    server = ""

    def __init__(self, lists: list[list[Json]], watches: list[list[Json | Exception]]) -> None:
        self.lists = lists
        self.watches = watches

    async def get(self, _path: str) -> Json:
        if not self.lists:
            await asyncio.Event().wait()
        return {"metadata": {"resourceVersion": "1"}, "items": self.lists.pop(0)}

    async def watch(self, _path: str, _version: str) -> AsyncGenerator[Json, None]:
        for event in self.watches.pop(0) if self.watches else []:
            if isinstance(event, Exception):
                raise event
            yield event
        if not self.watches:
            await asyncio.Event().wait()


def item(name: str, uid: str = "u") -> Json:
    return {"metadata": {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": "2"}}


@pytest.mark.parametrize("failure", [{"type": "ERROR", "object": {"code": 410}}, ApiError(500, "", "down")])
async def test_a_store_lists_again_and_tells_what_it_missed(failure: Json | Exception) -> None:
    lists = [[item("kept"), item("gone"), item("again", "u1")], [item("kept"), item("again", "u2")]]
    watches: list[list[Json | Exception]] = [[{"type": "ADDED", "object": item("late")}, failure], []]
    told: list[tuple[str, str]] = []
    enough = asyncio.Event()

    def changed(kind: str, obj: Json) -> None:
        told.append((kind, obj["metadata"]["name"]))
        if len(told) == 9:
            enough.set()

    store = Store(cast(Api, BrokenApi(lists, watches)), "/", changed)
    task = asyncio.ensure_future(store.run())
    await asyncio.wait_for(enough.wait(), 10)
    task.cancel()
    assert told[:4] == [("ADDED", "kept"), ("ADDED", "gone"), ("ADDED", "again"), ("ADDED", "late")]
    assert sorted(told[4:6]) == [("DELETED", "gone"), ("DELETED", "late")]
    assert told[6:] == [("MODIFIED", "kept"), ("DELETED", "again"), ("ADDED", "again")]
    assert sorted(name for _, name in store.items) == ["again", "kept"]
