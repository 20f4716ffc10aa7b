"""What bringing sources is the same for, wherever they lie: patience, room on the disk, how far it is, what was brought last."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from unfreeze_api.grammar.sizes import size
from unfreeze_trainer.errors import JobError, RetryError, one_line, some_of
from unfreeze_trainer.sources.closed import Closed
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.wanted import Wanted

T = TypeVar("T")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system says of a disk, a quota or a file that takes no more."""
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What a system says of a folder that must not be written."""
_LONGEST_PAUSE = 30.0
_SPARE_BYTES = 64 << 20
"""What is left free on the disk."""
_SAID_SECONDS = 0.3
_LOOKED_UP = ".looked-up"
"""Suffix of what a hub has said a source stands for, until that is here."""


class Bringer:
    """Brings sources into a cache; what is a hub's or a store's is added by who extends it.

    Parameters
    ----------
    cache
        Folder of the cache.
    offline
        Whether only the cache is asked.
    patience
        Seconds of all pauses between tries of a server that does not answer, until another file has come.
    say
        Takes a line of the output.
    noted
        Sources whose pins are known from their hub or store itself; None for all. No other's are written down in the cache for others,
        and nothing is removed from it for them.
    """

    _server = ""
    """What it talks to, in a word."""

    def __init__(
        self,
        cache: str,
        *,
        offline: bool,
        patience: float,
        say: Callable[[Mapping[str, Any]], None],
        noted: Collection[str] | None = None,
    ) -> None:
        self._cache = os.path.realpath(cache)
        self._offline, self._patience, self._say, self._noted = offline, patience, say, noted
        self._whole = 0
        """Files that have come."""

    def pin(self, wanted: Wanted) -> Pin:
        """Return what a source stands for now; offline, what it stood for when it was last brought."""
        raise NotImplementedError

    def fetch(self, wanted: Wanted, pin: Pin) -> str:
        """Bring the files of a source that are not there, check all by their hashes; return where it lies."""
        raise NotImplementedError

    def _folder(self, wanted: Wanted) -> str:
        """Return the folder of the repository or the bucket in the cache."""
        raise NotImplementedError

    def _explained(self, error: Exception, wanted: Wanted) -> JobError | RetryError | None:
        """Return an error in the words of jobs, None for one that is no word of server, network or disk."""
        raise NotImplementedError

    def _record(self, wanted: Wanted) -> Path:
        return record_of(wanted, Path(self._cache, self._folder(wanted)))

    def _recorded(self, wanted: Wanted) -> Pin:
        if (found := _reads(self._record(wanted))) is not None:
            return found
        raise JobError(
            "NotCached",
            f"{wanted.field} {wanted.source}: offline, and it has never been fetched into the cache {self._cache}: run"
            f" `unfreeze fetch FILE` where the {self._server} can be reached",
        )

    def _note(self, wanted: Wanted, pin: Pin) -> None:
        """Write down what a source stands for, where that is known from its hub or store itself."""
        if not self._is_known(wanted, pin):
            return
        record = self._record(wanted)
        _write(record, pin)
        with suppress(OSError):
            record.with_suffix(_LOOKED_UP).unlink()

    def _note_look(self, wanted: Wanted, pin: Pin) -> None:
        """Write down what a hub has just said: who brings it may be another process, after this one's end."""
        _write(self._record(wanted).with_suffix(_LOOKED_UP), pin)

    def _is_known(self, wanted: Wanted, pin: Pin) -> bool:
        """Return whether the pin of a source is its hub's or store's own, and not what a run folder says."""
        if self._noted is None or wanted.source in self._noted:
            return True
        return _reads(self._record(wanted).with_suffix(_LOOKED_UP)) == pin

    def _not_cached(self, where: str, missing: Mapping[str, int], of: str) -> JobError:
        return JobError(
            "NotCached",
            f"{where}: offline, and the cache {self._cache} lacks {some_of(sorted(missing))} {of},"
            f" {size(sum(missing.values()))}: run `unfreeze fetch FILE` where the {self._server} can be reached",
        )

    def _require_room(self, where: str, missing: int) -> None:
        """Raise RetryError DiskFull where the disk of the cache has no room for so many bytes."""
        Path(self._cache).mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(self._cache).free) < missing + _SPARE_BYTES:
            raise RetryError(
                "DiskFull",
                f"{where}: {size(missing)} are to be fetched, and {self._cache} has {size(free)} left: make room there, or"
                " name a smaller model or less data",
            )

    @staticmethod
    def _drop_foreign_links(where: str, root: Path, names: Iterable[str]) -> None:
        """Remove links that somebody has put into a cache in place of files, and that lead out of it.

        Raises
        ------
        JobError
            DataChanged: a folder leads out, and with it whatever would be written or removed there.
        """
        closed = Closed(root, where, "DataChanged")
        for parent in {str(PurePosixPath(name).parent) for name in names} - {"."}:
            closed.folder(parent)
        for name in names:
            try:
                closed.path(name)
            except OSError:  # it is not there
                continue
            except JobError:
                with suppress(OSError):  # of a cache that cannot be written, it is refused when it is read
                    (root / name).unlink()

    def _counter(self, text: str, done: int, total: int) -> Callable[[float], None]:
        """Return what takes note of bytes that have come, and tells of them in lines of the output."""
        lock, state = threading.Lock(), {"done": float(done), "said": 0.0}

        def count(more: float) -> None:
            with lock:
                state["done"] += more
                now = time.monotonic()
                if now - state["said"] >= _SAID_SECONDS:
                    state["said"] = now
                    self._say({"text": text, "done": min(int(state["done"]), total), "total": total})

        count(0)
        return count

    def _patiently(self, wanted: Wanted, call: Callable[[], T]) -> T:
        """Return what a call returns; its errors are put in the words of jobs, those that may pass are tried again."""
        paused, pause, whole = 0.0, 1.0, self._whole
        while True:
            try:
                return call()
            except (JobError, RetryError):
                raise
            except Exception as error:
                found = self._full(error, wanted) or self._not_writable(error, wanted) or self._explained(error, wanted)
                if found is None:
                    raise
                if self._whole > whole:
                    paused, pause, whole = 0.0, 1.0, self._whole
                paused += pause
                if not isinstance(found, RetryError) or found.reason == "DiskFull" or paused > self._patience:
                    raise found from error
                self._say({"text": f"waiting for the {self._server}: {one_line(error, 120)}", "done": 0, "total": 0})
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _full(self, error: Exception, wanted: Wanted) -> RetryError | None:
        full = (cause for cause in causes(error) if isinstance(cause, OSError) and cause.errno in FULL)
        if cause := next(full, None):
            said = f"{self._cache} is full: make room there: {one_line(cause, 200)}"
            return RetryError("DiskFull", f"{wanted.field} {wanted.source}: {said}")
        return None

    def _not_writable(self, error: Exception, wanted: Wanted) -> JobError | None:
        for cause in causes(error):
            if (
                isinstance(cause, OSError)
                and cause.errno in _CLOSED
                and str(cause.filename2 or cause.filename).startswith(self._cache)
            ):
                return JobError(
                    "InvalidJob",
                    f"{wanted.field} {wanted.source}: {self._cache} cannot be written ({cause.strerror}): let this user write"
                    " there, and group 65532 to the claim of spec.sources.cacheClaim",
                )
        return None


def record_of(wanted: Wanted, folder: Path) -> Path:
    """Return the file that says what a source stood for when it was last brought, in the folder of its repository or bucket."""
    key = json.dumps([wanted.source, wanted.is_model, wanted.weights, wanted.beside])
    return folder / "unfreeze" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _reads(record: Path) -> Pin | None:
    """Return the pin in a file, None where there is none."""
    try:
        # A cache that others write to may have a pipe in its place, which nobody would answer at.
        return Pin.model_validate_json(record.read_bytes()) if record.is_file() else None
    except (OSError, ValueError):
        return None


def _write(record: Path, pin: Pin) -> None:
    with suppress(OSError):  # a cache that others have filled may be read-only
        record.parent.mkdir(parents=True, exist_ok=True)
        aside = record.with_suffix(f".{uuid.uuid4().hex}")  # pods have the same process IDs
        aside.write_text(pin.model_dump_json(indent=1) + "\n")
        aside.replace(record)


def is_brought(wanted: Wanted, pin: Pin, folder: Path, root: Path, tell: Callable[[str, int, int], None]) -> bool:
    """Return whether a source lies in a cache as it is pinned, and the cache says so: nobody has to be asked for it then.

    Parameters
    ----------
    wanted, pin
        The source, and what it has to be.
    folder, root
        Of its repository in the cache, and where its files lie there.
    tell
        Hears how far it is.
    """
    try:
        if _reads(record_of(wanted, folder)) != pin:
            return False
        done, closed = 0, Closed(root, wanted.source, "DataChanged")
        for name, file in pin.files.items():
            tell(f"checking {wanted.source}", done, pin.size)
            done += file.size
            if not file.matches(Path(closed.path(name))):
                return False
    except (OSError, ValueError, JobError):  # whoever brings it says what is the matter
        return False
    return True


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
