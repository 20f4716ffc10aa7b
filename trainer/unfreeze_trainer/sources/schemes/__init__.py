"""Brings what a job reads to where the trainer reads it: a file a scheme, under its name in the API.

Such a file has `fetch(wanted, pins, how)`, which brings sources, raises JobError where it cannot, does nothing where they are
there already, and returns the paths of those that lie elsewhere than job.json says. What may change between two looks has
`pin(wanted, how)` too, which says once what each source stands for. What lies on a disk (pvc, file) needs no file.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from unfreeze_trainer.sources.splits import with_splits
from unfreeze_trainer.sources.wanted import Bringing, Wanted, relocated, sources_of

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.sources.pins import Pin


def pinned_sources(job: ResolvedJob) -> list[Wanted]:
    """Return what a job reads that has to be pinned."""
    return [wanted for module, found in _brought(job) if hasattr(module, "pin") for wanted in found]


def pin_sources(job: ResolvedJob, how: Bringing, known: Mapping[str, Pin]) -> dict[str, Pin]:
    """Return what the sources of a job stand for, by source.

    Parameters
    ----------
    job, how
        Whose, and how the network may be used.
    known
        Pins of an earlier start, which stay as they are.

    Raises
    ------
    JobError, RetryError
        As the scheme says.
    """
    pins = {wanted.source: known[wanted.source] for wanted in pinned_sources(job) if wanted.source in known}
    for module, found in _brought(job):
        new = [wanted for wanted in found if wanted.source not in pins]
        if new and hasattr(module, "pin"):
            pins |= module.pin(new, how)
    return pins


def fetch_sources(job: ResolvedJob, how: Bringing | None = None, pins: Mapping[str, Pin] | None = None) -> ResolvedJob:
    """Bring a job's model and data, once in each pod, before anything is read; return the job with where they lie.

    Parameters
    ----------
    job, how
        Whose, and how.
    pins
        Of `pin_sources`.

    Raises
    ------
    JobError, RetryError
        As the scheme says.
    """
    paths: dict[str, str] = {}
    for module, found in _brought(job):
        paths |= module.fetch(found, pins or {}, how or Bringing())
    return with_splits(relocated(job, paths), pins or {})


def _brought(job: ResolvedJob) -> Iterator[tuple[ModuleType, list[Wanted]]]:
    """Yield the module of each scheme that brings something, with what it brings."""
    by_scheme: dict[str, list[Wanted]] = {}
    for wanted in sources_of(job):
        by_scheme.setdefault(wanted.source.partition("://")[0], []).append(wanted)
    for scheme, found in by_scheme.items():
        name = f"{__name__}.{scheme}"
        if scheme.isidentifier() and importlib.util.find_spec(name):
            yield importlib.import_module(name), found
