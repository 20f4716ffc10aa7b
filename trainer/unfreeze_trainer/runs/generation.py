"""Generations of a run folder: the pods that were started last may write, all earlier ones no longer can.

The right to write is a folder, `.generation-N`. Pod 0 makes it when it starts; everything is written aside in it, and
renamed out of it when it is complete. The next pod 0 makes `.generation-N+1`, takes everything out of the older folder
and removes that: what an earlier pod renames from then on is not there any more.

Notes
-----
This is a fencing token (Kleppmann, "How to do distributed locking", 2016) that the storage itself checks: between a look
at a lease and the rename after it a process may sleep for hours, but a rename without a source fails whenever it comes.
It takes a volume on which making a folder, removing an empty one and renaming are atomic, as POSIX and NFS have them.
Object stores that are mounted as folders have no atomic rename: there a late writer can still do harm.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from unfreeze_trainer.errors import JobError

GENERATION_ENV = "UNFREEZE_GENERATION"
"""Environment variable with the number that pod 0's agent took for its workers, however often they start again."""
_PREFIX = ".generation-"
_PULSE, _OWNER = "alive", "owner.json"
"""Files in a generation's folder: one whose content changes for as long as its agent lives, one that says whose it is."""


class Superseded(JobError):  # noqa: N818 - a later start is right, and this one over
    """Pods that were started later write to this run folder now; nothing of this process reaches it any more."""


class Generation:
    """The right to write to a run folder, from `take` or `of_worker`. Methods raise Superseded once it is lost."""

    def __init__(self, run_folder: Path, number: int) -> None:
        self.number = number
        self._run_folder, self._folder = run_folder, run_folder / f"{_PREFIX}{number}"

    @classmethod
    def take(cls, run_folder: Path) -> Generation:
        """Become the newest generation of a run folder, and put an end to all earlier ones.

        What they have committed stays; what they were writing is deleted. The newest generation's folder is never
        removed, so that numbers do not come back.
        """
        run_folder.mkdir(parents=True, exist_ok=True)
        while True:
            own = cls(run_folder, _newest(run_folder) + 1)
            try:
                own._folder.mkdir()
            except FileExistsError:
                continue
            if _newest(run_folder) == own.number:
                break
            own._folder.rmdir()  # others have had this number and gone on meanwhile
        for number in sorted(_numbers(run_folder)):
            if number < own.number:
                own._end(cls(run_folder, number))
        return own

    @classmethod
    def of_worker(cls, run_folder: Path) -> Generation:
        """Return the generation of this worker's pod, or take one where there is no agent that has."""
        if GENERATION_ENV not in os.environ:
            return cls.take(run_folder)
        own = cls(run_folder, int(os.environ[GENERATION_ENV]))
        own.check()
        for entry in own._folder.iterdir():  # of a worker of this pod that was killed
            if entry.name not in (_PULSE, _OWNER):
                _delete(entry)
        return own

    def _end(self, earlier: Generation) -> None:
        while earlier._folder.exists():
            try:
                for entry in earlier._folder.iterdir():
                    # Out of that folder before it is deleted: half of it must not be renamed into place.
                    self._take_in(entry, f"left-by-{earlier.number}-{entry.name}")
                earlier._folder.rmdir()
            except FileNotFoundError:  # somebody else ends it too
                self.check()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # it has just written something more
                    raise

    def check(self) -> None:
        """Raise Superseded if there is a later generation. This is a look; `commit` and `discard` are sure."""
        newest = _newest(self._run_folder)
        if newest > self.number:
            raise Superseded(
                "Superseded",
                f"another start of this job writes to {self._run_folder} now (generation {newest}; this one was"
                f" {self.number}). Either this pod's node was cut off and its pod replaced: then nothing is left to do"
                " here. Or two jobs have the same output.destination: give each its own",
            )

    def sign(self, owner: str) -> None:
        """Say whose this generation is."""
        with self.fenced():
            aside = self.aside(f"{_OWNER}.new")
            aside.write_text(owner)
            aside.replace(self._folder / _OWNER)

    def beat(self) -> None:
        """Show that this generation lives; FileNotFoundError if it is over."""
        (self._folder / _PULSE).write_text(secrets.token_hex(8))

    def rest(self) -> None:
        """Show that nobody of this generation is left."""
        with suppress(OSError):
            (self._folder / _PULSE).unlink()

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Run what writes aside: what fails because the generation is over is reported as Superseded."""
        try:
            yield
        except Exception:
            self.check()
            raise

    def aside(self, name: str) -> Path:
        """Return a path to write a file or a folder at before it is committed; nothing is there."""
        self.check()
        _delete(self._folder / name)
        return self._folder / name

    def commit(self, aside: Path, final: Path) -> None:
        """Rename what was written aside into place, once all of it is on the disk.

        A file is replaced in one step. A folder that is replaced is missing for a moment.
        """
        with self.fenced():
            for entry in (aside, *aside.rglob("*")):
                sync(entry)
        self._place(aside, final)

    def _place(self, aside: Path, final: Path) -> None:
        replaced = self._folder / f"replaced-{final.name}"
        with self.fenced():
            final.parent.mkdir(exist_ok=True)
            _refuse_link(final.parent, self._run_folder)
            if final.is_dir() and not final.is_symlink():
                final.replace(replaced)
            aside.replace(final)
            sync(final.parent)
            _delete(replaced)

    def move(self, path: Path, final: Path) -> None:
        """Rename a file or a folder of the run."""
        aside = self.aside(path.name)
        with self.fenced():
            path.replace(aside)
        self._place(aside, final)

    def discard(self, path: Path) -> None:
        """Delete a file or a folder of the run."""
        with self.fenced():
            self._take_in(path, f"discarded-{path.name}")

    def _take_in(self, path: Path, name: str) -> None:
        path.replace(self._folder / name)
        _delete(self._folder / name)


def owner_of(run_folder: Path) -> bytes | None:
    """Return what the newest generation of a run folder has signed with; None if it has not."""
    return _of_newest(run_folder, _OWNER)


def pulse(run_folder: Path) -> bytes | None:
    """Return what changes while the newest generation of a run folder lives; None if its agent has left, or had none.

    A file is opened again each time: NFS asks the server then, and not for the attributes of a folder.
    """
    return _of_newest(run_folder, _PULSE)


def _of_newest(run_folder: Path, name: str) -> bytes | None:
    try:
        return (run_folder / f"{_PREFIX}{_newest(run_folder)}" / name).read_bytes()
    except OSError:
        return None


@contextmanager
def append(path: Path) -> Iterator[TextIO]:
    """Open a file of the run for more lines, the first of them after one that a crash has cut; OSError if it is a link."""
    with open(path, "a+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)) as file:
        if (end := file.tell()) and os.pread(file.fileno(), 1, end - 1) != b"\n":
            file.write("\n")
        yield file


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_no_links(run_folder: Path) -> None:
    """Raise JobError ForeignRunFolder if something that a run reads or writes is a link: what it leads to is not the run's.

    The run folder itself may be one, and what a run has no name for.
    """
    entries = [run_folder / name for name in _NAMES] + list(run_folder.glob(f"{_PREFIX}*"))
    for entry in entries:
        _refuse_link(entry, run_folder)
        with suppress(FileNotFoundError, NotADirectoryError):  # a file; or others delete and rename meanwhile
            entries += entry.iterdir()


_NAMES = (
    *("checkpoints", "model", "adapter", "logs", "predictions", "rungs", "evidence", "stages"),
    *("events.jsonl", "evaluation.json", "history.csv", "label-issues.csv"),
    *(
        "ranking.json",
        "rates.json",
        "recipe.json",
        "report.html",
        "report.json",
        "rollbacks.json",
        "spent.json",
        "stages.json",
        "tracking.json",
    ),
)


def _refuse_link(path: Path, run_folder: Path) -> None:
    if path != run_folder and path.is_symlink():
        raise JobError(
            "ForeignRunFolder",
            f"{path} is a link, and nothing in a run folder is followed elsewhere: remove it, or choose another"
            " output.destination",
        )


def _numbers(run_folder: Path) -> list[int]:
    names = [path.name.removeprefix(_PREFIX) for path in run_folder.glob(f"{_PREFIX}*")]
    return [int(name) for name in names if name.isdecimal()]


def _newest(run_folder: Path) -> int:
    return max(_numbers(run_folder), default=0)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
