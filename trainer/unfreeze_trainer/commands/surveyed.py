"""What a survey of data says: `unfreeze data --output json` is one of these."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.grammar.model import Model


class Column(Model):
    """A column of a table."""

    name: str
    """In the table."""
    holds: str
    """What it looks like."""
    read_as: str = ""
    """Field of `columns` that names it; empty where the job does not read it."""
    missing: int
    """Rows without a value."""
    distinct: int | None = None
    """Different values; None of bytes."""
    examples: list[str] = Field(default=[])
    """Its first values, cut short."""


class Spread(Model):
    """How some figure is spread over samples."""

    least: float
    """The smallest."""
    median: float
    """Half of the samples have less."""
    mean: float
    """The mean."""
    most_have: float
    """Of 100 samples 95 have no more."""
    most: float
    """The largest."""


class Repeated(Model):
    """Samples that are not the first of their kind."""

    samples: int
    """How many."""
    conflicting: int
    """How many of these stand elsewhere with another label, number or other tags."""


class SplitSurvey(Model):
    """A split, as the job would have it."""

    source: str
    """As in the manifest."""
    samples: int
    """That it has."""
    labels: dict[str, int] = Field(default={})
    """Samples, or words, with each label, the most frequent first."""
    without_label: int | None = None
    """Samples without any label, where they may have several."""
    values: dict[str, Spread] = Field(default={})
    """Of each number to predict."""
    lengths: dict[str, Spread] = Field(default={})
    """Of the inputs, by unit: characters, words, tokens, seconds; width and height in pixels."""
    kinds: dict[str, int] = Field(default={})
    """Pictures of each mode, clips of each sampling rate."""
    files_read: int | None = None
    """Pictures or clips that were read whole."""
    repeated: Repeated | None = None
    """Within the split."""


class SourceSurvey(Model):
    """A file or folder."""

    source: str
    """As in the manifest."""
    rows: int
    """That can be read."""
    left_out: int = 0
    """That cannot."""
    broken: list[str] = Field(default=[])
    """What is wrong with the first of these."""
    columns: list[Column] = Field(default=[])
    """Of a table."""


class Survey(Model):
    """What a job would read."""

    task: str
    """Type of the task."""
    decided: list[str] = Field(default=[])
    """What was decided where no job says it."""
    sources: dict[str, SourceSurvey] = Field(default={})
    """By the splits that they are named for."""
    splits: dict[str, SplitSurvey] = Field(default={})
    """train, validation and test."""
    repeated: dict[str, Repeated] = Field(default={})
    """Samples of one split that stand in another: `test in train`."""
    warnings: list[str] = Field(default=[])
    """What to look at before training."""
    problem: str = ""
    """What would end the job; empty if nothing is known to."""
