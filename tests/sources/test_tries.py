"""What bringing does where some objects come and others fail, and what it leaves; the store lies in memory."""

import io
import os
import time

import pytest
from pyarrow.fs import FileInfo, FileType

from unfreeze_api.sources.hf import parse
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources import bringer
from unfreeze_trainer.sources.hub import Hub
from unfreeze_trainer.sources.pins import Pin, PinnedFile
from unfreeze_trainer.sources.store import Store
from unfreeze_trainer.sources.wanted import Wanted

FILES = {f"p/part-{number}.csv": b"text,label\n%d,1\n" % number for number in range(20)}


class Object(io.BytesIO):
    """An object as pyarrow opens it."""

    def metadata(self):
        return {"ETag": b"1"}

    def size(self):
        return len(self.getvalue())


class Objects:
    """A bucket, and what is asked of it; `failing` never comes."""

    def __init__(self, files, failing=None):
        self.files, self.failing, self.opened, self.listed = files, failing, [], []

    def connect(self):
        return self

    def get_file_info(self, what):
        if isinstance(what, str):
            return FileInfo(what, FileType.Directory if what.endswith("/p") else FileType.NotFound)
        self.listed.append((what.base_dir, what.recursive))
        below = what.base_dir.removesuffix("/") + "/"
        found = [FileInfo(f"b/{name}", FileType.File, size=len(content)) for name, content in self.files.items()]
        return [
            one
            for one in found
            if one.path.startswith(below) and (what.recursive or "/" not in one.path.removeprefix(below))
        ]

    def open_input_file(self, path):
        name = path.removeprefix("b/")
        self.opened.append(name)
        if name == self.failing:
            raise OSError("it breaks off")
        return Object(self.files[name])

    def explain(self, error, where, _):
        return RetryError("StoreUnreachable", f"{where}: {error}") if "breaks off" in str(error) else None


def wanted(path="p"):
    return Wanted(
        field="spec.data.train.source", source=f"s3://b/{path}", path="", is_model=False, weights=True, beside=False
    )


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(bringer.time, "sleep", lambda _: None)

    def made(objects):
        return Store(str(tmp_path), objects, offline=False, patience=20, say=lambda _: None)

    return made


def left(tmp_path):
    return list(tmp_path.glob("s3--b/incoming/*"))


def test_what_has_come_does_not_come_again_and_one_that_always_fails_ends_the_try(store, tmp_path):
    objects = Objects(dict(FILES), failing="p/part-3.csv")
    with pytest.raises(RetryError, match="it breaks off"):
        store(objects).pin(wanted())
    assert all(objects.opened.count(name) <= 2 for name in FILES if name != objects.failing), (
        "read, and looked at again"
    )
    assert not left(tmp_path)
    objects.failing = None
    pin = store(objects).pin(wanted())
    assert pin.files.keys() == FILES.keys()
    for name in FILES:
        (tmp_path / "s3--b" / "snapshots" / pin.revision / name).unlink()
    objects.failing, objects.opened = "p/part-3.csv", []
    with pytest.raises(RetryError, match="it breaks off"):
        store(objects).fetch(wanted(), pin)
    assert all(objects.opened.count(name) <= 2 for name in FILES if name != objects.failing)
    assert not left(tmp_path)


def test_words_to_choose_from_may_stand_in_a_folder(store):
    objects = Objects({f"p/{name}/x.csv": b"a\n" for name in ("train", "extra", "other")})
    assert list(store(objects).pin(wanted("p/{train,extra}/x.csv")).files) == ["p/extra/x.csv", "p/train/x.csv"]
    assert objects.listed[0] == ("b/p", True)
    store(objects := Objects(FILES)).pin(wanted("p/part-{1,2}.csv"))
    assert objects.listed == [("b/p", False)]


def test_what_another_brings_now_is_left_and_what_is_long_dead_is_removed(store, tmp_path):
    now, dead = tmp_path / "s3--b" / "incoming" / "now", tmp_path / "s3--b" / "incoming" / "dead"
    for folder in (now, dead):
        folder.mkdir(parents=True)
        (folder / "part").write_bytes(b"half")
        old = time.time() - 7200
        os.utime(folder, (old, old))
    os.utime(dead / "part", (old, old))
    store(Objects(FILES)).pin(wanted())
    assert left(tmp_path) == [now]


def test_a_link_in_place_of_the_folder_for_what_comes_is_removed_and_not_followed(store, tmp_path):
    old, folder = tmp_path / "another" / "run", tmp_path / "s3--b"
    for one in (old, folder):
        one.mkdir(parents=True)
    os.utime(old, (0, 0))
    (folder / "incoming").symlink_to(tmp_path / "another")
    store(Objects(FILES)).pin(wanted())
    assert old.is_dir()
    assert not (folder / "incoming").is_symlink()


def test_a_link_in_place_of_the_lock_harms_nothing(store, tmp_path):
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "s3--b").mkdir()
    (tmp_path / "s3--b" / ".lock").symlink_to(target)
    assert store(Objects(FILES)).pin(wanted()).files.keys() == FILES.keys()
    assert target.read_text() == "kept"


def test_a_cache_that_must_not_be_written_is_said(store, tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(JobError, match=rf"{tmp_path} cannot be written .*group 65532.*cacheClaim") as caught:
        store(Objects(FILES)).pin(wanted())
    assert caught.value.reason == "InvalidJob"


def test_what_another_pod_has_just_brought_of_a_hub_is_taken_as_it_is(tmp_path, monkeypatch):
    hub, forced = Hub(str(tmp_path), offline=False, patience=0, say=lambda _: None), {}

    def downloaded(_, __, name, ___, *, force):
        forced[name] = force
        return str(tmp_path / name)

    monkeypatch.setattr(hub, "_download", downloaded)
    pin = Pin(revision="0" * 40, files={name: PinnedFile(size=4, hash=f"sha256:{'0' * 64}") for name in "abc"})
    (tmp_path / "a").write_bytes(b"full")
    (tmp_path / "b").write_bytes(b"no")
    for name in pin.files:
        hub._one(parse("org/name"), pin, name, tmp_path, None)
    assert forced == {"a": False, "b": True, "c": False}
    hub._one(parse("org/name"), pin, "a", tmp_path, None, again=True)
    assert forced["a"], "its hash was another"
