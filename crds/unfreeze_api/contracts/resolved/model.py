"""The pretrained model in job.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from unfreeze_api.contracts.resolved.places import Location
from unfreeze_api.grammar.model import EXECUTION, Since
from unfreeze_api.sources import locate
from unfreeze_api.sources.base import Places
from unfreeze_api.spec.model import Modality, ModelSpec
from unfreeze_api.spec.quantization import QuantizationSpec

if TYPE_CHECKING:
    pass


class Tower(NamedTuple):
    """A pretrained encoder of one modality."""

    modality: Modality
    source: str
    path: str


def tower_keys(modalities: Sequence[str]) -> list[str]:
    """Return what each of several towers is called: its modality in small letters, of further ones of it with a number."""
    names = [modality.lower() for modality in modalities]
    before = [names[:index].count(name) for index, name in enumerate(names)]
    return [f"{name}{count + 1}" if count else name for name, count in zip(names, before, strict=True)]


class ResolvedModel(Location):
    """The pretrained model."""

    dtype: Literal["Float32"]
    initialization: Literal["Pretrained", "Random"]
    quantization: QuantizationSpec | None = None
    frozen_dtype: Annotated[Literal["Float32"] | None, EXECUTION] = None
    """Float32: weights that do not train are float32 too; None: they may keep the type of their files. Nothing that is learned
    depends on it."""
    candidates: Annotated[list[str] | None, Since(2)] = None
    """The bases of which the run chooses one at its start; source and path are empty until then."""
    candidate_paths: Annotated[list[str] | None, EXECUTION] = None
    """The path of each for the trainer."""
    modalities: Annotated[list[Modality] | None, Since(2)] = None
    """What each of several encoders reads; source and path are empty then."""
    tower_sources: Annotated[list[str] | None, Since(2)] = None
    """Where each of them lies."""
    tower_paths: Annotated[list[str] | None, EXECUTION] = None
    """The path of each for the trainer."""
    stage_path: Annotated[str | None, EXECUTION] = None
    """Folder of the weights that the stages before have left, in place of path: filled in by the trainer."""
    stage_tower_paths: Annotated[list[str | None] | None, EXECUTION] = None
    """The same of each of several encoders, None of one that no stage has trained."""

    @property
    def weights_path(self) -> str:
        """Where the weights lie that the training starts from."""
        return self.stage_path or self.path

    @classmethod
    def of(cls, spec: ModelSpec, places: Places) -> Self:
        """Return the model with its place, or with those of its candidates."""
        more: dict[str, Any] = {
            "dtype": "Float32",
            "initialization": spec.initialization,
            "quantization": spec.quantization,
        }
        if spec.dtype == "Float32":
            more["frozen_dtype"] = "Float32"
        if spec.source:
            return cls.resolve(spec.source, places, **more)
        if spec.towers:
            more |= {"modalities": [tower.modality for tower in spec.towers], "tower_sources": spec.sources}
            return cls(source="", path="", tower_paths=[locate(one, places) for one in spec.sources], **more)
        paths = [locate(source, places) for source in spec.sources]
        return cls(source="", path="", candidates=spec.sources, candidate_paths=paths, **more)

    @property
    def towers(self) -> list[Tower]:
        """The encoders, where there are several."""
        parts = (self.modalities or (), self.tower_sources or (), self.tower_paths or ())
        return [Tower(*tower) for tower in zip(*parts, strict=True)]

    @property
    def described(self) -> str:
        """Where the base lies, or each of the towers, for people."""
        return self.source or ", ".join(self.tower_sources or [])

    @property
    def bases(self) -> list[tuple[str, str, str]]:
        """Field below spec, source and path of the base, of each candidate where none is chosen yet, or of each tower."""
        if self.towers:
            return [(f"model.towers[{index}].source", one.source, one.path) for index, one in enumerate(self.towers)]
        if self.source or not self.candidates:
            return [("model.source", self.source, self.path)]
        places = zip(self.candidates, self.candidate_paths or [], strict=True)
        return [(f"model.candidates[{index}].source", *place) for index, place in enumerate(places)]

    def chosen(self, source: str) -> Self:
        """Return it with one of its candidates as its base."""
        path = dict(zip(self.candidates or [], self.candidate_paths or [], strict=True))[source]
        return self.model_copy(update={"source": source, "path": path})
