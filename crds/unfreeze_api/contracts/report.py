"""report.json: what a finished run leaves behind for people and programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.contracts.progress import Metrics, PhaseResult
from unfreeze_api.grammar.model import Model


class Pinned(Model):
    """Something that the run started from, and the hashes that tell whether it is still the same."""

    source: str
    """As in the manifest."""
    revision: str | None = None
    """Commit of a model hub that it was downloaded at, where the folder tells."""
    pins: dict[str, Any] = Field(default={})
    """Hashes of its files."""


class DataReport(Model):
    """The data of the run."""

    sources: dict[str, str]
    """Source of each split that has one of its own, as in the manifest."""
    splits: dict[str, int]
    """Samples of each split."""
    held_out_seed: int | None = None
    """What drew the splits that have no source of their own; None where each has one."""
    overlaps: dict[str, int] = Field(default={})
    """Samples that are measured on and stand in another split too, like `test in train: 12`."""
    skipped: dict[str, int] = Field(default={})
    """Samples of each split that could not be read and were left out (data.onError Skip); those of a file that several
    splits share count as train's, unless they are pictures."""
    unseen_words: dict[str, int] = Field(default={})
    """Words of each split that have a tag and that the model does not see: they lie beyond maxLength, or are nothing to the
    tokenizer."""
    labels: list[str]
    """Labels in the order of the model's outputs."""
    pins: dict[str, Any] = Field(default={})
    """Hashes of the files."""


class Results(Model):
    """Metrics of the finished model: the weights of the best validation."""

    validation: Metrics = Field(default={})
    """On the validation data."""
    test: Metrics = Field(default={})
    """On the test data, measured once."""


MAJORITY, GAIN_LOW, GAIN_HIGH = "validation.majority", "validation.gainLow", "validation.gainHigh"
"""How `Usefulness` travels among the results of /progress: whoever knows nothing of it takes them for metrics."""


LOST = "forgotten"
"""What metrics of a phase, and validation metrics of the finished model, call what its base has lost, by the first gauge."""


class Usefulness(Model):
    """Whether the finished model is better than always guessing one class, the same labels or the mean, on the validation data."""

    better: bool
    """Whether the interval lies above 0."""
    majority: float
    """What the best such guess has of the metric that is compared."""
    gain_low: float
    """Lower end of the 95 % interval of the difference."""
    gain_high: float
    """Upper end of it."""
    message: str
    """All figures and what to do, for people."""
    compared: str | None = None
    """What is compared where samples have several labels, or numbers; None is accuracy or balanced accuracy, as the metric says."""

    def figures(self) -> dict[str, float]:
        """Return what the results of /progress say of it."""
        return {MAJORITY: self.majority, GAIN_LOW: self.gain_low, GAIN_HIGH: self.gain_high}


class Rollback(Model):
    """A return to an earlier step, with lower learning rates: those before destroyed what the model had learned."""

    step: int = Field(ge=0)
    """Step at which that was found."""
    to: int = Field(ge=0)
    """Step that the training went on from; 0 is its start."""
    phase_index: int = Field(ge=0)
    """Index of the phase: its learning rates are lower from then on, and those of the phases after it."""
    factor: float = Field(gt=0, le=1)
    """What all rollbacks up to this one multiply these learning rates by."""
    message: str
    """What was found, with figures, for people."""


class World(Model):
    """What it ran on."""

    world_size: int = Field(ge=1)
    """Workers that trained together."""
    nodes: int = Field(ge=1)
    """Pods."""
    engine: str
    """DDP, FSDP or DeepSpeed."""
    zero_stage: int = 0
    """ZeRO stage, 0 without DeepSpeed."""
    offload: str = "None"
    """What lay in the host's memory: None, Optimizer or OptimizerAndParameters."""
    device: str
    """Type of the device, like cpu or cuda."""
    precision: str
    """Type of the computation."""


class Export(Model):
    """A model that was written."""

    kind: str
    """What it is: Model, Adapter or Merged."""
    folder: str
    """Its folder below the run's."""
    usage: str = ""
    """Lines of Python that load it with the plain library and predict, with the paths that the run had."""


class Report(Model):
    """What a finished run leaves behind."""

    schema_version: Literal[1] = 1
    outcome: str = "Succeeded"
    """Always Succeeded: a run that failed leaves no report."""
    usefulness: Usefulness | None = None
    """Whether the model is better than always guessing one class."""
    warnings: list[str] = Field(default=[])
    """What of the job made little sense for its data."""
    decisions: list[Decision] = Field(default=[])
    """What the run has decided by what it measured, the newest at the end."""
    job: str
    """NAMESPACE/NAME of the job."""
    fingerprint: str
    """Of the job, without names, paths and distribution."""
    finished: datetime
    """When it was done, in UTC."""
    seconds: float = Field(ge=0)
    """Time of all phases together."""
    strategy: str
    """Type of the strategy."""
    metric: str
    """Validation metric that chose the best step."""
    best_step: int = Field(ge=0)
    """Step that the finished weights are from."""
    results: Results
    """Metrics of the finished model."""
    phases: list[PhaseResult]
    """What was trained, phase by phase."""
    rollbacks: list[Rollback] = Field(default=[])
    """When the training went back with lower learning rates, if it did."""
    unused_parameters: list[str] = Field(default=[])
    """Weights that the model has and does not use: they got no gradient, and are what they were in the base."""
    exports: list[Export]
    """Where the finished model lies."""
    base: Pinned
    """The pretrained model."""
    data: DataReport
    """The data."""
    world: World
    """What it ran on."""
    versions: dict[str, str]
    """Versions of the libraries."""
