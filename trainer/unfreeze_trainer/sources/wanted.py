"""What a job reads, and how what lies elsewhere is brought."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from unfreeze_trainer.data.suffixes import JSON, PACKED

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import Location, ResolvedJob

_Place = TypeVar("_Place", bound="Location")
PATIENCE_SECONDS = 600.0
"""Pauses between tries of a hub that does not answer, all together, before the pod fails and is retried elsewhere."""
_TABLES_OF_PATHS = tuple(f"{suffix}{packed}" for suffix in (".csv", ".tsv", *JSON) for packed in ("", *PACKED))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A source that a job reads."""

    field: str
    """Of the spec, for messages."""
    source: str
    """As the manifest has it."""
    path: str
    """Where job.json says that it lies."""
    is_model: bool
    weights: bool = True
    """Whether a model's weights are read."""
    beside: bool = False
    """Whether a table names files that lie beside it."""


@dataclass(frozen=True)
class Bringing:
    """How sources are brought."""

    cache: str | None = None
    """Folder of the hub's files; None for the one that job.json names."""
    stores: str | None = None
    """Folder of the files of object stores; None for the one that job.json names."""
    offline: bool | Collection[str] = False
    """Whether only what is there already is used; or of which schemes."""
    patience: float = PATIENCE_SECONDS
    """Seconds of all pauses between tries of a network that does not answer."""
    credentials: Mapping[str, str] | None = field(default=None, repr=False)
    """Of hubs and stores, by environment variable; None for what the environment has."""
    tell: Callable[[str, int, int], None] = lambda _what, _done, _total: None
    """Hears what is done, and how many bytes of how many are there."""

    def is_offline(self, scheme: str) -> bool:
        """Return whether only what is there already is used of a scheme, by the name under which the platform opens it."""
        return self.offline if isinstance(self.offline, bool) else scheme in self.offline


def sources_of(job: ResolvedJob) -> Iterator[Wanted]:
    """Yield every source that a job reads."""
    from unfreeze_api.tasks import task_type

    weights = job.model.initialization != "Random"
    for field_, source, path in job.model.bases:
        yield Wanted(f"spec.{field_}", source, path, is_model=True, weights=weights)
    reads_text = task_type(job.task.type).reads_text
    for field_, place in job.data.sources:
        beside = not reads_text and place.source.lower().endswith(_TABLES_OF_PATHS)
        yield Wanted(f"spec.{field_}", place.source, place.path, is_model=False, beside=beside)
    for index, stage in enumerate(job.stages or ()):
        if encoder := stage.text_encoder:
            yield Wanted(f"spec.stages[{index}].textEncoder", encoder.source, encoder.path, is_model=True)
        reads_text = task_type(stage.task.type).reads_text
        for field_, place in stage.data.sources:
            beside = not reads_text and place.source.lower().endswith(_TABLES_OF_PATHS)
            name = f"spec.stages[{index}].{field_}"
            yield Wanted(name, place.source, place.path, is_model=False, beside=beside)


def relocated(job: ResolvedJob, paths: dict[str, str]) -> ResolvedJob:
    """Return a job whose sources lie at other paths.

    Parameters
    ----------
    paths
        By source; what is not among them stays.
    """

    def moved(place: _Place) -> _Place:
        path = paths.get(place.source)
        return place.model_copy(update={"path": path}) if path else place

    model = job.model
    if model.towers:
        model = model.model_copy(update={"tower_paths": [paths.get(one.source) or one.path for one in model.towers]})
    if model.candidates:
        places = zip(model.candidates, model.candidate_paths or [], strict=True)
        model = model.model_copy(update={"candidate_paths": [paths.get(source) or path for source, path in places]})
    if not paths:
        return job
    stages = [
        one.model_copy(update={"text_encoder": one.text_encoder and moved(one.text_encoder)})
        for one in job.stages or ()
    ]
    update = {"model": moved(model), "stages": stages or None}
    return job.model_copy(update=update).with_data(lambda _, place: moved(place))
