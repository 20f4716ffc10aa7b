"""Brings what a job reads to where job.json says that it lies: a file a scheme, under its name in the API.

Such a file has `fetch(source, path)`, which leaves the content of a source at a path, raises JobError where it cannot, and
does nothing where it lies there already. What lies on a disk (pvc, file) needs none.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import Location, ResolvedJob


def fetch_sources(job: ResolvedJob) -> None:
    """Bring a job's model and data, once in each pod, before anything is read.

    Raises
    ------
    JobError
        As the scheme says.
    """
    for place in _read(job):
        scheme = place.source.partition("://")[0]
        name = f"{__name__}.{scheme}"
        if scheme.isidentifier() and importlib.util.find_spec(name):
            importlib.import_module(name).fetch(place.source, Path(place.path))


def _read(job: ResolvedJob) -> Iterator[Location]:
    yield job.model
    yield job.data.train
    for part in (job.data.validation, job.data.test):
        if part is not None and part.dataset is not None:
            yield part.dataset
