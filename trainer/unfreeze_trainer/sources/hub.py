"""Repositories of a hub come into a cache of huggingface_hub, by its client: pinned, whole and checked, or not at all.

Belongs into the process of `fetcher` alone, which has the hub's token and the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile
from tqdm.auto import tqdm

from unfreeze_api.sources.hf import Reference
from unfreeze_trainer.errors import JobError, RetryError, some_of
from unfreeze_trainer.sources.bringer import Bringer
from unfreeze_trainer.sources.explain import explained, named
from unfreeze_trainer.sources.pins import MAX_FILES, Pin, PinnedFile, is_plain
from unfreeze_trainer.sources.selection import data_files, model_files
from unfreeze_trainer.sources.wanted import Wanted

_COMMIT = re.compile("[0-9a-f]{40}")
_PARALLEL = 8
_SMALL_BYTES = 64 << 20
"""Largest index of weights."""


class Hub(Bringer):
    """Repositories, as a cache has them or gets them.

    Parameters
    ----------
    cache
        Folder in the form of huggingface_hub's cache.
    offline
        Whether only the cache is asked.
    patience
        Seconds of all pauses between tries of a hub that does not answer, until another file has come.
    say, noted
        As of Bringer.
    """

    _server = "hub"

    def __init__(
        self,
        cache: str,
        *,
        offline: bool,
        patience: float,
        say: Callable[[Mapping[str, Any]], None],
        noted: Collection[str] | None = None,
    ) -> None:
        super().__init__(cache, offline=offline, patience=patience, say=say, noted=noted)
        self._api = HfApi()

    def pin(self, wanted: Wanted) -> Pin:
        """Return what a source stands for now; offline, what it stood for when it was last brought."""
        if self._offline:
            return self._recorded(wanted)
        where, reference = named(wanted)
        pin = self._patiently(wanted, lambda: self._look_up(wanted, where, reference))
        self._note_look(wanted, pin)
        return pin

    def fetch(self, wanted: Wanted, pin: Pin) -> str:
        """Bring the files of a source that are not there, check all by their hashes; return where it lies."""
        reference = named(wanted)[1]
        root = Path(Reference(reference.kind, reference.repository, "", "").at(self._cache, pin.revision))
        self._drop_foreign_links(f"{wanted.field} {wanted.source}", root, pin.files)
        self._patiently(wanted, lambda: self._bring(wanted, pin, root))
        self._check(wanted, pin, root)
        self._note(wanted, pin)
        return reference.at(self._cache, pin.revision)

    def _look_up(self, wanted: Wanted, where: str, reference: Reference) -> Pin:
        name, kind = reference.repository, reference.kind
        commit = self._api.repo_info(name, repo_type=kind, revision=reference.revision).sha
        if commit is None or not _COMMIT.fullmatch(commit):
            raise JobError("RevisionNotFound", f"{where}: the hub gives no commit for {reference.revision}: {commit!r}")
        files = self._list(where, reference, commit)
        root = Path(Reference(reference.kind, name, "", "").at(self._cache, commit))

        def read(path: str) -> bytes:
            if files[path].size > _SMALL_BYTES:
                raise JobError("InvalidModel", f"{where}: {path} has {files[path].size:,} bytes, too many for an index")
            self._drop_foreign_links(where, root, [path])
            return Path(self._download(reference, commit, path, _Meter)).read_bytes()

        if wanted.is_model:
            names = model_files(files, where, weights=wanted.weights, read=read)
        else:
            names = data_files(files, reference, where, beside=wanted.beside, read=read)
        return Pin(revision=commit, files={path: files[path] for path in names})

    def _list(self, where: str, reference: Reference, commit: str) -> dict[str, PinnedFile]:
        """Return every file of a commit; names that lead elsewhere are refused."""
        found: dict[str, PinnedFile] = {}
        for entry in self._api.list_repo_tree(
            reference.repository, recursive=True, revision=commit, repo_type=reference.kind
        ):
            if not isinstance(entry, RepoFile):
                continue
            if not is_plain(entry.path):
                raise JobError(
                    "NotFound", f"{where}: the hub lists a file {entry.path[:200]!r}, which is no path below a folder"
                )
            sha256 = entry.lfs.sha256 if entry.lfs else None
            size = entry.lfs.size if entry.lfs else entry.size
            found[entry.path] = PinnedFile(size=size, hash=f"sha256:{sha256}" if sha256 else f"git:{entry.blob_id}")
            if len(found) > MAX_FILES:
                raise JobError(
                    "NotFound", f"{where}: the repository has more than {MAX_FILES:,} files; name a smaller one"
                )
        return found

    def _bring(self, wanted: Wanted, pin: Pin, root: Path) -> None:
        missing = {name: file for name, file in pin.files.items() if not file.is_at(root / name)}
        if not missing:
            return
        where, reference = named(wanted)
        size = sum(file.size for file in missing.values())
        if self._offline:
            sizes = {name: file.size for name, file in missing.items()}
            raise self._not_cached(where, sizes, f"of commit {pin.revision}")
        self._require_room(where, size)
        bar = self._meter(f"fetching {wanted.source}", pin.size - size, pin.size)
        pool = ThreadPoolExecutor(_PARALLEL)
        try:
            for one in [pool.submit(self._one, reference, pin, name, root, bar) for name in missing]:
                one.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _one(
        self, reference: Reference, pin: Pin, name: str, root: Path, bar: type[tqdm], *, again: bool = False
    ) -> None:
        # What is there under a commit is taken as it is, unless asked otherwise; another pod may just have brought it.
        force = os.path.lexists(root / name) and (again or not pin.files[name].is_at(root / name))
        found = self._download(reference, pin.revision, name, bar, force=force)
        if Path(found) != root / name:
            raise JobError(
                "DataChanged", f"hf://{reference.repository}: asked for commit {pin.revision}, the hub gave {found}"
            )
        self._whole += 1

    def _download(self, reference: Reference, commit: str, name: str, bar: type[tqdm], *, force: bool = False) -> str:
        return hf_hub_download(
            reference.repository,
            name,
            repo_type=reference.kind,
            revision=commit,
            cache_dir=self._cache,
            tqdm_class=bar,
            force_download=force,
        )

    def _check(self, wanted: Wanted, pin: Pin, root: Path) -> None:
        """Compare every file with its pin; what differs is brought once more."""
        where, reference = named(wanted)
        for again in (False, True):
            done, broken = 0, []
            for name, file in pin.files.items():
                self._say({"text": f"checking {wanted.source}", "done": done, "total": pin.size})
                done += file.size
                if not file.matches(root / name):
                    broken.append(name)
            if not broken:
                return
            if again or self._offline:
                break
            self._patiently(wanted, partial(self._again, broken, reference, pin, root, wanted))
        if self._is_known(wanted, pin):
            self._remove(broken, root)
            of, ending = "the hub lists for it", f"it was removed from {self._cache}"
        else:  # what a run folder says is no reason to take from the cache what other jobs read
            of, ending = "it was pinned with in sources.json of the run", "what the cache has was left"
        raise JobError(
            "DataChanged",
            f"{where}: {some_of(broken)} of commit {pin.revision} differs from the hash that {of}"
            f"{', in the cache' if self._offline else ', also when it was fetched again'}: {ending}."
            " If it comes again, ask whoever runs the hub or mirror",
        )

    @staticmethod
    def _remove(names: list[str], root: Path) -> None:
        """Remove files of a commit, so that nobody finds them in the cache; what other repositories share stays."""
        for name in names:
            with suppress(OSError):
                blob = (root / name).parent / (root / name).readlink()
                (root.parents[1] / "blobs" / blob.name).unlink()
            with suppress(OSError):
                (root / name).unlink()

    def _again(self, names: list[str], reference: Reference, pin: Pin, root: Path, wanted: Wanted) -> None:
        """Bring files once more."""
        bar = self._meter(f"fetching {wanted.source} again", 0, sum(pin.files[name].size for name in names))
        for name in names:
            self._one(reference, pin, name, root, bar, again=True)

    def _folder(self, wanted: Wanted) -> str:
        return named(wanted)[1].folder

    def _explained(self, error: Exception, wanted: Wanted) -> JobError | RetryError | None:
        return explained(error, wanted, self._api)

    def _meter(self, text: str, done: int, total: int) -> type[tqdm]:
        """Return a progress bar that tells of bytes in lines of the output."""
        return type("_Counting", (_Meter,), {"count": staticmethod(self._counter(text, done, total))})


class _Meter(tqdm):  # type: ignore[misc]
    """A progress bar without a bar."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **{**named, "disable": True})

    @staticmethod
    def count(more: float) -> None:
        """Take note of bytes."""

    def update(self, n: float | None = 1) -> None:
        """Count bytes that are written; the client calls it."""
        self.count(n or 0)

    def update_transfer(self, n: float | None = 1) -> None:
        """Take no note of bytes that have come: by Xet these are others than are written, and by HTTP the same."""

    def set_transfer_postfix_str(self, postfix: str, *, refresh: bool = False) -> None:
        """Show no rate."""
