"""Objects of a store come into a cache by pyarrow.fs: pinned by their content, whole and checked, or not at all.

A bucket keeps no earlier content, and what an ETag says of the content is each store's own. So pod 0 pins objects by fetching
them: the SHA-256 of what came is what every pod and every later start must get. Belongs into the process of `fetcher` alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from pyarrow import NativeFile
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from unfreeze_api.sources import bucket
from unfreeze_api.sources.bucket import Place
from unfreeze_trainer.errors import JobError, RetryError, some_of
from unfreeze_trainer.sources.bringer import Bringer
from unfreeze_trainer.sources.pins import MAX_FILES, Pin, PinnedFile, is_plain
from unfreeze_trainer.sources.selection import data_files, model_files
from unfreeze_trainer.sources.wanted import Wanted

_PARALLEL = 8
_BLOCK = 8 << 20
_SMALL_BYTES = 64 << 20
"""Largest index of weights."""
_TRIES = 3
"""How often an object is read that is replaced meanwhile."""
_LOOK_SECONDS = 0.5
_LEFT_SECONDS = 3600
"""How long nothing has come into a folder whose process is dead: not every file system has locks between machines."""


class Scheme(Protocol):
    """What a scheme's file in `schemes` says of its store."""

    def connect(self) -> FileSystem:
        """Return the store; JobError Unauthorized without credentials that it cannot do without."""

    def explain(self, error: BaseException, where: str, bucket: str) -> JobError | RetryError | None:
        """Return an error of the client in the words of jobs, None for one that is no word of the store."""


class Store(Bringer):
    """Buckets of one scheme, as a cache has them or gets them; parameters as of Bringer."""

    _server = "store"

    def __init__(
        self,
        cache: str,
        scheme: Scheme,
        *,
        offline: bool,
        patience: float,
        say: Callable[[Mapping[str, Any]], None],
        noted: Collection[str] | None = None,
    ) -> None:
        super().__init__(cache, offline=offline, patience=patience, say=say, noted=noted)
        self._scheme = scheme
        self._connected: FileSystem | None = None

    def pin(self, wanted: Wanted) -> Pin:
        """Return what a source stands for now, and bring it; offline, what it stood for when it was last brought."""
        if self._offline:
            return self._recorded(wanted)
        with self._alone(wanted):
            found = self._patiently(wanted, lambda: self._look_up(wanted))
            if known := self._patiently(wanted, lambda: self._unchanged(wanted, found)):
                return known
            sizes = {name: one.size for name, one in found.items()}
            come: dict[str, PinnedFile] = {}
            with self._aside(wanted) as aside:
                return self._patiently(wanted, lambda: self._bring_new(wanted, sizes, come, aside))

    def fetch(self, wanted: Wanted, pin: Pin) -> str:
        """Bring the files of a source that are not there, check all by their hashes; return where it lies."""
        place = bucket.parse(wanted.source)
        if pin.revision != _revision(pin.files):  # else it could put files among those of another revision
            raise JobError(
                "DataChanged",
                f"{wanted.field} {wanted.source}: its pin, in sources.json of the run, is not as it was made",
            )
        root = Path(Place(place.scheme, place.bucket, "").at(self._cache, pin.revision))
        if broken := self._broken(wanted, pin.files, root):
            with self._alone(wanted):  # another may have brought them meanwhile
                broken = self._broken(wanted, broken, root)
                if broken and self._offline:
                    sizes = {name: file.size for name, file in broken.items()}
                    raise self._not_cached(f"{wanted.field} {wanted.source}", sizes, "as they were pinned")
                if broken:
                    come: dict[str, PinnedFile] = {}
                    with self._aside(wanted) as aside:
                        self._patiently(wanted, lambda: self._bring_again(wanted, broken, root, come, aside))
        self._note(wanted, pin)
        return place.at(self._cache, pin.revision)

    def _folder(self, wanted: Wanted) -> str:
        return bucket.parse(wanted.source).folder

    def _explained(self, error: Exception, wanted: Wanted) -> JobError | RetryError | None:
        place = bucket.parse(wanted.source)
        return self._scheme.explain(error, f"{wanted.field} {wanted.source}", place.bucket)

    @property
    def _system(self) -> FileSystem:
        self._connected = self._connected or self._scheme.connect()
        return self._connected

    # What a source names.

    def _look_up(self, wanted: Wanted) -> dict[str, FileInfo]:
        """Return the objects of a source, by their keys."""
        place, where = bucket.parse(wanted.source), f"{wanted.field} {wanted.source}"
        if not wanted.is_model:
            listed = self._list_data(wanted, place, where)
            return {name: listed[name] for name in data_files(listed, place, where, beside=wanted.beside)}
        listed = self._list(place, place.path, where, recursive=True)
        prefix = f"{place.path}/"

        def read(name: str) -> bytes:
            info = listed[prefix + name]
            if info.size > _SMALL_BYTES:
                raise JobError("InvalidModel", f"{where}: {name} has {info.size:,} bytes, too many for an index")
            with self._open(place, prefix + name, where) as file:
                return bytes(file.read())

        names = [name.removeprefix(prefix) for name in listed]
        if not names:
            raise self._nothing(place, where)
        return {
            prefix + name: listed[prefix + name]
            for name in model_files(names, where, weights=wanted.weights, read=read)
        }

    def _list_data(self, wanted: Wanted, place: Place, where: str) -> dict[str, FileInfo]:
        """Return the objects that may belong to a data set, no more of them than that takes."""
        parent = str(PurePosixPath(place.path).parent).removeprefix(".")
        if "{" in parent:  # words to choose from may stand anywhere
            return self._list(place, place.path.partition("{")[0].rpartition("/")[0], where, recursive=True)
        if place.is_pattern:
            return self._list(place, parent, where, recursive=False)
        info = self._system.get_file_info(f"{place.bucket}/{place.path}")
        if info.type is FileType.NotFound:
            return self._list(place, parent, where, recursive=False)
        if info.type is FileType.Directory:
            return self._list(place, place.path, where, recursive=True)
        return self._list(place, parent, where, recursive=True) if wanted.beside else {place.path: info}

    def _list(self, place: Place, folder: str, where: str, *, recursive: bool) -> dict[str, FileInfo]:
        """Return the objects below a folder by their keys; keys that are no plain paths are refused."""
        selector = FileSelector(f"{place.bucket}/{folder}", recursive=recursive, allow_not_found=True)
        found: dict[str, FileInfo] = {}
        for info in self._system.get_file_info(selector):
            name = info.path.removeprefix(f"{place.bucket}/")
            if not is_plain(name.removesuffix("/")):
                raise JobError(
                    "NotFound", f"{where}: the bucket has a key {name[:200]!r}, which is no path below a folder"
                )
            if info.type is FileType.File:
                found[name] = info
            if len(found) > MAX_FILES:
                raise JobError("NotFound", f"{where}: there are more than {MAX_FILES:,} objects; name fewer")
        return found

    def _nothing(self, place: Place, where: str) -> JobError:
        """Return the error about a model that is not there, with names like its own."""
        parent = str(PurePosixPath(place.path).parent).removeprefix(".")
        root = f"{place.bucket}/{parent}".rstrip("/") + "/"
        found: list[FileInfo] = []
        for recursive in (False, True):  # a store may list no folders
            selector = FileSelector(root.rstrip("/"), allow_not_found=True, recursive=recursive)
            found = found or self._system.get_file_info(selector)
        below = {info.path.removeprefix(root).partition("/")[0] for info in found}
        names = sorted(f"{parent}/{name}" if parent else name for name in below)
        near = get_close_matches(place.path, names, n=3, cutoff=0.5) or names
        there = f"; there are {some_of(near)}" if near else ""
        return JobError("NotFound", f"{where}: the bucket {place.bucket} has nothing below {place.path}{there}")

    def _unchanged(self, wanted: Wanted, found: Mapping[str, FileInfo]) -> Pin | None:
        """Return what a source stood for when it was last brought, if the store still has the same."""
        try:
            known = self._recorded(wanted)
        except JobError:
            return None
        if {name: file.size for name, file in known.files.items()} != {name: one.size for name, one in found.items()}:
            return None
        place, where = bucket.parse(wanted.source), f"{wanted.field} {wanted.source}"

        def state(name: str) -> str:
            with self._open(place, name, where) as source:
                return _state(source)

        with ThreadPoolExecutor(_PARALLEL) as pool:
            states = dict(zip(found, pool.map(state, found), strict=True))
        return known if all(states[name] == file.etag for name, file in known.files.items()) else None

    # How it comes.

    def _bring_new(self, wanted: Wanted, sizes: Mapping[str, int], come: dict[str, PinnedFile], aside: Path) -> Pin:
        """Bring objects whose content is not known yet; return what came, at this try and earlier ones."""
        place = bucket.parse(wanted.source)
        self._bring(wanted, sizes, lambda name, _: aside / "whole" / name, come, aside)
        files = {name: come[name] for name in sizes}
        pin = Pin(revision=_revision(files), files=files)
        root = Path(Place(place.scheme, place.bucket, "").at(self._cache, pin.revision))
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / "whole" / name).replace(root / name)
        self._note(wanted, pin)
        return pin

    def _bring_again(
        self, wanted: Wanted, files: Mapping[str, PinnedFile], root: Path, come: dict[str, PinnedFile], aside: Path
    ) -> None:
        """Bring objects that must be what they were."""

        def target(name: str, found: PinnedFile) -> Path:
            if (found.size, found.hash) != (files[name].size, files[name].hash):
                raise JobError(
                    "DataChanged",
                    f"{wanted.field} {wanted.source}: {name} is no longer what it was when the run began: restore it, or start"
                    " another run in another destination",
                )
            return root / name

        self._bring(wanted, {name: file.size for name, file in files.items()}, target, come, aside)

    def _bring(
        self,
        wanted: Wanted,
        sizes: Mapping[str, int],
        target: Callable[[str, PinnedFile], Path],
        come: dict[str, PinnedFile],
        aside: Path,
    ) -> None:
        """Bring objects that have not come yet, put each where it belongs once it is whole, and note what it is in `come`."""
        place, where = bucket.parse(wanted.source), f"{wanted.field} {wanted.source}"
        left = [name for name in sizes if name not in come]
        total, missing = sum(sizes.values()), sum(sizes[name] for name in left)
        self._require_room(where, missing)
        count = self._counter(f"fetching {wanted.source}", total - missing, total)

        def one(name: str) -> None:
            come[name] = self._download(place, name, where, target, count, aside=aside / uuid.uuid4().hex)
            self._whole += 1

        pool = ThreadPoolExecutor(_PARALLEL)
        try:
            for task in [pool.submit(one, name) for name in left]:
                task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _download(
        self,
        place: Place,
        name: str,
        where: str,
        target: Callable[[str, PinnedFile], Path],
        count: Callable[[float], None],
        *,
        aside: Path,
    ) -> PinnedFile:
        """Bring one object, in one state of it, and put it into place whole."""
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(_TRIES):
                digest, size = hashlib.sha256(), 0
                with self._open(place, name, where) as source, aside.open("wb") as file:
                    before = _state(source)
                    while block := source.read(_BLOCK):
                        file.write(block)
                        digest.update(block)
                        size += len(block)
                        count(len(block))
                with self._open(place, name, where) as source:
                    same = _state(source) == before and size == source.size()
                if same:
                    found = PinnedFile(size=size, hash=f"sha256:{digest.hexdigest()}", etag=before)
                    place_at = target(name, found)
                    place_at.parent.mkdir(parents=True, exist_ok=True)
                    aside.replace(place_at)
                    return found
                count(-size)
        finally:
            aside.unlink(missing_ok=True)
        raise RetryError(
            "DataChanged", f"{where}: {name} is replaced again and again while it is read; wait until it is written"
        )

    def _open(self, place: Place, name: str, where: str) -> NativeFile:
        try:
            return self._system.open_input_file(f"{place.bucket}/{name}")
        except FileNotFoundError:
            raise JobError("NotFound", f"{where}: the bucket {place.bucket} no longer has {name}") from None

    def _broken(self, wanted: Wanted, files: Mapping[str, PinnedFile], root: Path) -> dict[str, PinnedFile]:
        """Return the files that are missing or differ from their pins; who has them open keeps what he has."""
        self._drop_foreign_links(f"{wanted.field} {wanted.source}", root, files)
        done, total, broken = 0, sum(file.size for file in files.values()), {}
        for name, file in files.items():
            self._say({"text": f"checking {wanted.source}", "done": done, "total": total})
            done += file.size
            if not file.matches(root / name):
                broken[name] = file
        return broken

    def _incoming(self, wanted: Wanted) -> Path:
        return Path(self._cache, self._folder(wanted), "incoming")

    @contextmanager
    def _aside(self, wanted: Wanted) -> Iterator[Path]:
        """Name a folder for what comes, which nothing is left of."""
        folder = self._incoming(wanted) / uuid.uuid4().hex
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _alone(self, wanted: Wanted) -> Iterator[None]:
        """Let one process at a time bring what lies in a bucket, and clear what one that was killed has left."""
        folder = Path(self._cache, self._folder(wanted))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if found := self._full(error, wanted):
                raise found from error
            yield  # a cache that others have filled may be read-only
            return
        with os.fdopen(file, "r+") as lock:
            if self._locked(lock, wanted):
                self._clear(self._incoming(wanted))
            yield

    @staticmethod
    def _clear(folder: Path) -> None:
        """Remove what nothing has come into for long."""
        with suppress(OSError):
            if folder.is_symlink():  # a neighbour's: what it leads to is nobody's to clear
                folder.unlink()
                return
            for entry in folder.iterdir():
                with suppress(OSError):
                    if entry.is_symlink():
                        entry.unlink()
                        continue
                    latest = max(part.lstat().st_mtime for part in (entry, *entry.rglob("*")))
                    if time.time() - latest > _LEFT_SECONDS:
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _locked(self, lock: IO[str], wanted: Wanted) -> bool:
        """Wait for the lock of a bucket; return False where the file system has none, and each fetches for itself."""
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f"waiting for another process that fetches {wanted.source}"
                self._say({"text": text, "done": 0, "total": 0})
                time.sleep(_LOOK_SECONDS)
            except OSError:
                return False
            else:
                return True


def _revision(files: Mapping[str, PinnedFile]) -> str:
    """Return the name of what objects hold."""
    text = json.dumps(sorted((name, file.hash) for name, file in files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _state(source: Any) -> str:
    """Return what the store calls the state of an object: its ETag, else when it was changed."""
    metadata = {key.lower(): value.decode() for key, value in source.metadata().items()}
    return metadata.get("etag") or metadata.get("last-modified", "")
