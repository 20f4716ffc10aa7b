"""Data and their columns in job.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from unfreeze_api.contracts.first_fields import FIRST_FIELDS
from unfreeze_api.contracts.resolved.places import Location
from unfreeze_api.grammar.columns import Column, Columned
from unfreeze_api.grammar.model import EXECUTION, Model, Since
from unfreeze_api.sources.base import Places
from unfreeze_api.spec.data import ColumnsSpec, DataSpec, HeldOutSpec
from unfreeze_api.spec.evidence import AnchorSpec
from unfreeze_api.tasks import columns

if TYPE_CHECKING:
    pass


def _as_first_written() -> list[tuple[Column, str]]:
    """Return all columns in the order of the first release: an operator compares the text of job.json with its own."""
    first = list(FIRST_FIELDS["data"]["train"]["columns"])
    return sorted(columns(), key=lambda found: first.index(found[0].name) if found[0].name in first else len(first))


class Columns(Columned, columns=_as_first_written(), named=True):
    """Names of the columns, all given."""

    def renamed(self, own: ColumnsSpec | None) -> Self:
        """Return the names with those that a manifest gives."""
        given = {name: getattr(own, name) for name in type(own).model_fields} if own else {}
        update = {name: value for name, value in given.items() if value is not None}
        # Who names the one column of a held-out part does not want the several of the training data.
        return self.model_copy(update={"values": None} | update if "value" in update else update)


class Dataset(Location):
    """Data with a source of its own."""

    columns: Columns
    label_names: Annotated[dict[str, list[str]] | None, EXECUTION] = None
    """What the whole numbers of columns stand for, as the data set says: filled in by the trainer that has brought it."""


class HeldOut(Model):
    """Data with a source of its own, or a share of the training data."""

    dataset: Dataset | None = None
    fraction: float | None = None

    @classmethod
    def resolve(cls, spec: HeldOutSpec, columns: Columns, places: Places) -> Self:
        """Return it with its place; its columns are those of the training data where nothing else is said."""
        own = spec.source and Dataset.resolve(spec.source, places, columns=columns.renamed(spec.columns))
        return cls(fraction=spec.fraction, dataset=own or None)


class ResolvedData(Model):
    """Training, validation and test data."""

    train: Dataset
    validation: HeldOut
    test: HeldOut | None = None
    on_error: Annotated[Literal["Fail", "Skip"], Since(2)] = "Fail"
    show_values: Annotated[bool, EXECUTION] = False
    """Whether messages outside of a pod's log may quote rows."""
    anchor: Annotated[Dataset | None, EXECUTION] = None
    """Rows that the base is good at, of evidence.forgetting."""

    @classmethod
    def resolve(cls, spec: DataSpec, places: Places, anchor: AnchorSpec | None = None) -> Self:
        """Return the data with its places and the names of its columns."""
        names = Columns().renamed(spec.train.columns)
        return cls(
            train=Dataset.resolve(spec.train.source, places, columns=names),
            validation=HeldOut.resolve(spec.validation, names, places),
            test=spec.test and HeldOut.resolve(spec.test, names, places),
            on_error=spec.on_error or "Fail",
            show_values=bool(spec.show_values),
            anchor=anchor and Dataset.resolve(anchor.source, places, columns=names.renamed(anchor.columns)),
        )

    @property
    def sources(self) -> Iterator[tuple[str, Dataset]]:
        """What has a source of its own, each with its field below spec."""
        yield "data.train.source", self.train
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part and part.dataset:
                yield f"data.{name}.source", part.dataset
        if self.anchor:
            yield "evidence.forgetting.anchor.source", self.anchor

    def moved(self, move: Callable[[str, Dataset], Dataset]) -> Self:
        """Return it with what `move` makes of everything that has a source of its own, by its name: train, validation, test, anchor."""
        found: dict[str, Any] = {"train": move("train", self.train)}
        for name in ("validation", "test"):
            if (part := getattr(self, name)) and part.dataset:
                found[name] = part.model_copy(update={"dataset": move(name, part.dataset)})
        if self.anchor:
            found["anchor"] = move("anchor", self.anchor)
        return self.model_copy(update=found)
