"""Where a run may write: not where it reads, and not over what another hand made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.sources.closed import require_in_claim

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import Location, ResolvedJob

OUTPUTS = (
    *("model", "adapter", "checkpoints", "predictions"),
    *("evaluation.json", "history.csv", "label-issues.csv", "report.html", "report.json"),
)
"""What a run writes under names that others use too."""
MARKER = "unfreeze.json"
"""File in an export that tells which run made it: {"fingerprint": ..., "kind": ..., "files": ..., "described": ...}."""


def check_apart(job: ResolvedJob) -> None:
    """Compare where a job reads with where it writes, through links and mounts.

    Two claims that are one volume, or two mounts of one folder, are recognised where both show the same device and inode.

    Raises
    ------
    JobError
        InvalidJob: a source lies inside of the destination, or the destination inside of a source; or one of them leads out
        of its volume claim.
    """
    if job.cache:
        check_cache_apart(job, job.cache)
    _require_apart("output.destination", job.output, job)


def check_cache_apart(job: ResolvedJob, cache: Location) -> None:
    """Raise JobError if a cache of features lies among what a job reads or writes, or that within it."""
    _require_apart("sources.featureCache.destination", cache, job)
    for one, other in ((cache, job.output), (job.output, cache)):
        if _contains(Path(one.path), Path(other.path)):
            raise JobError(
                "InvalidJob",
                f"sources.featureCache.destination {cache.source} and output.destination {job.output.source} contain each other: choose a"
                " sources.featureCache.destination beside it",
            )


def _require_apart(written: str, place: Location, job: ResolvedJob) -> None:
    destination = Path(place.path)
    require_in_claim(written, place.source, place.path)
    for field, path, source in _sources(job):
        require_in_claim(field, source, path)
        read = Path(path)
        if _contains(destination, read):
            how = "lies inside of"
        elif _contains(read, destination):
            how = "contains"
        else:
            continue
        raise JobError(
            "InvalidJob",
            f"{field} {source} {how} {written} {place.source} ({os.path.realpath(destination)}): the run would"
            f" write among what it reads. Choose an {written} beside it",
        )


def _sources(job: ResolvedJob) -> Iterator[tuple[str, str, str]]:
    """Yield field, path and source of everything that a job reads."""
    yield from ((field, path, source) for field, source, path in job.model.bases)
    yield from ((field, dataset.path, dataset.source) for field, dataset in job.data.sources)
    for index, stage in enumerate(job.stages or ()):
        if encoder := stage.text_encoder:
            yield f"stages[{index}].textEncoder", encoder.path, encoder.source
        for field, dataset in stage.data.sources:
            yield f"stages[{index}].{field}", dataset.path, dataset.source


def _contains(outer: Path, inner: Path) -> bool:
    """Return whether a path is another one or lies below it, by name or by what the file system says they are."""
    outer, inner = Path(os.path.realpath(outer)), Path(os.path.realpath(inner))
    if inner.is_relative_to(outer):
        return True
    try:
        return any(parent.samefile(outer) for parent in (inner, *inner.parents) if parent.exists())
    except OSError:  # there is nothing at `outer`
        return False


def foreign_outputs(folder: Path, *, fingerprint: str | None, unmarked: bool = False) -> list[str]:
    """Return the names in a run folder that this run has not made and would write over.

    Parameters
    ----------
    fingerprint
        Of the run that the folder belongs to; None while it belongs to none.
    unmarked
        Whether exports without a marker may be the run's own, if their card says that Unfreeze made them.
    """
    found = [name for name in OUTPUTS if _is_there(folder / name)]
    if fingerprint is None:
        return found
    exports = [name for name in found if name in ("model", "adapter")]
    return [name for name in exports if not _made_by(folder / name, fingerprint, unmarked=unmarked)]


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir()))


def _made_by(export: Path, fingerprint: str, *, unmarked: bool) -> bool:
    try:
        found = json.loads((export / MARKER).read_bytes())
    except FileNotFoundError:
        return unmarked and _has_card(export)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("fingerprint") == fingerprint


def _has_card(export: Path) -> bool:
    try:
        return "trained with Unfreeze." in (export / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def require_own(folder: Path, names: list[str]) -> None:
    """Raise ForeignRunFolder if a run folder holds outputs that this run has not made."""
    if names:
        raise JobError(
            "ForeignRunFolder",
            f"{folder} holds {', '.join(names)}, which this job has not made and would write over: choose another"
            " output.destination, or move what lies there elsewhere",
        )
