"""Contracts between trainer pods and operator: `/progress`, the termination message, exit codes, ports and paths."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from math import isfinite
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from unfreeze_api.contracts.decoder import MAX_COUNT, Said
from unfreeze_api.grammar.model import Model
from unfreeze_api.grammar.reading import otherwise
from unfreeze_api.grammar.sizes import share

JOB_FILE_ENV = "UNFREEZE_JOB"
"""Environment variable with the path of job.json."""
JOB_UID_ENV = "UNFREEZE_JOB_UID"
"""Environment variable with the FineTuneJob's UID, which tells it from others of its name and in its run folder."""
CONFIG_FOLDER = "/etc/unfreeze"
"""Where the job's ConfigMap is mounted; it holds job.json."""
CLAIM_FOLDER = "/mnt/claims"
"""Below it each volume claim of the job is mounted under its name."""
SOURCES_FOLDER = "/mnt/sources"
"""Where a pod keeps what it brings over the network."""
IMAGES_FOLDER = "/mnt/images"
"""Below it the operator mounts the images that sources name."""
FETCHER_ENV = "UNFREEZE_FETCHER"
"""Environment variable with the socket of the container that brings sources, where the trainer's own cannot write their cache."""
OFFLINE_ENV = "UNFREEZE_OFFLINE"
"""Environment variable with the schemes of which only what the cache has is used, with commas between them."""
HTTP_PORT = 9470
"""Port on which a pod's agent serves /metrics, /progress and /healthz."""
TERMINATION_MESSAGE_BYTES = 4096
"""What Kubernetes keeps of a termination message."""
_SHORTEST_MESSAGE = 256
_FEWEST_RESULTS = 8
"""That stay where decisions have no room otherwise."""


# JSON has neither NaN nor infinity: a null in their place would make the whole message unreadable.
Metrics = Annotated[
    dict[Annotated[str, Field(max_length=128)], float],
    AfterValidator(lambda values: {name: value for name, value in values.items() if isfinite(value)}),
]
"""Values by name; those of a diverged training that are not finite are left out."""
Finite = Annotated[float | None, AfterValidator(lambda value: value if value is None or isfinite(value) else None)]
"""A number that is absent when it is not finite."""


class ExitCode(IntEnum):
    """How a trainer process ends; everything that is not named here is retried within backoffLimit."""

    DONE = 0
    JOB_ERROR = 2
    """The job itself is wrong (data, model, columns): never retried."""
    STOPPED = 143
    """Asked to stop; a checkpoint is written."""


class CheckpointInfo(Model):
    """The newest complete checkpoint."""

    step: int = Field(ge=0, le=MAX_COUNT)
    """Optimizer step that it was written at."""
    time: datetime
    """When it was complete, in UTC."""


class Recovery(Model):
    """A start that found broken checkpoints."""

    step: int = Field(ge=0, le=MAX_COUNT)
    """Step that the training resumed from; 0 when no checkpoint was whole and it started over."""
    time: datetime
    """When that was, in UTC."""
    message: str = Field(max_length=1024)
    """What was broken, and what the training did."""


class PhaseResult(Model):
    """A phase that has ended."""

    name: str = Field(max_length=128)
    """Name of the phase: its topmost newly trained block."""
    steps: int = Field(ge=0, le=MAX_COUNT)
    """Optimizer steps that it took."""
    seconds: float = Field(ge=0)
    """Time that it took, in seconds, evaluations included."""
    trainable_parameters: int = Field(ge=0, le=MAX_COUNT)
    """Parameters that it trained."""
    metrics: Metrics = Field(default={}, max_length=32)
    """Validation metrics at its end."""


class DecisionInfo(Model):
    """A decision of a run in few words: the part of it that stands in the job's status."""

    type: str = Field(max_length=32, pattern="^[A-Za-z][A-Za-z0-9]*$")
    """What is decided, in one CamelCase word."""
    answer: str = Field(max_length=64)
    """The answer in a word or two."""
    message: str = Field(max_length=1024)
    """The answer in a sentence, with figures."""
    step: int = Field(ge=0, le=MAX_COUNT)
    """Optimizer step at which it was decided."""
    warning: bool | None = None
    """Whether somebody should act on it."""

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from others, in their order: one that is decided again, after a crash, takes the place of the first."""
        return self.step, self.type


class ProgressInfo(Model):
    """How far the training is; the part of /progress that stands in the job's status as it is."""

    percent: int = Field(default=0, ge=0, le=100)
    """Share of all steps that is done."""
    step: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Optimizer steps done so far."""
    total_steps: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Optimizer steps planned in all."""
    epoch: float = Field(default=0, ge=0)
    """Passes over the training data done."""
    phase_index: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Index of the phase, from 0."""
    phase_count: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Number of phases in all."""
    phase_name: str = Field(default="", max_length=128)
    """Name of the phase."""
    loss: Finite = None
    """Training loss, smoothed over the last steps."""
    metrics: Metrics = Field(default={}, max_length=32)
    """Newest metrics of the validation data."""
    samples_per_second: float | None = Field(default=None, ge=0)
    """Samples of all workers together, per second of training."""
    eta_seconds: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    """Seconds that are left, evaluations included."""
    skipped_samples: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    """Samples of all splits that could not be read and were left out, where data.onError is Skip."""
    fetched_bytes: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    """Bytes of the model or data at a hub that the first pod has, while it fetches them."""
    total_bytes: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    """Bytes of what is fetched, in all."""
    stage: str | None = Field(default=None, max_length=64)
    """Which stage of spec.stages this is about, like `1 of 2: domain`; the last one is the job itself."""

    @property
    def fetching(self) -> str:
        """What is fetched, like `fetching 3.1 of 14.9 GiB`; empty when nothing is."""
        return f"fetching {share(self.fetched_bytes or 0, self.total_bytes)}" if self.total_bytes else ""


MOST_DECISIONS = 64
"""Decisions that a progress takes."""
_OF_THE_POD = ("rollbacks", "cache_hits", "cache_reused", "cache_bytes", "cache_saved_seconds")


class Progress(ProgressInfo, Said):
    """What the leader's agent serves as /progress."""

    schema_version: Literal[1] = 1
    activity: Annotated[
        Literal["Starting", "Training", "Evaluating", "Exporting", "Done"],
        otherwise(lambda before: "Training" if before.get("step") else "Starting"),
    ] = Field(default="Starting", alias="state")
    """What the workers are doing; on the wire it is `state`. Another word is read as Training, before the first step as Starting."""
    tokens_per_second: float | None = Field(default=None, ge=0)
    """Tokens of all workers together, for text."""
    learning_rates: Metrics = Field(default={}, max_length=1024)
    """Current learning rate of each trained block."""
    checkpoint: CheckpointInfo | None = None
    """The newest complete checkpoint."""
    recovery: Recovery | None = None
    """The newest start that found broken checkpoints."""
    world_size: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Workers that train together."""
    restarts: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Times that the workers were started again in place."""
    skipped_steps: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Optimizer steps that changed nothing, since their gradients were not finite."""
    rollbacks: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    """Times that the training went back to an earlier step, with lower learning rates."""
    cache_hits: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    """Samples that this worker's frozen blocks did not have to compute."""
    cache_reused: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    """Samples of those that this worker has looked up which an earlier job had left in spec.sources.featureCache."""
    cache_bytes: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    """What this worker keeps of the outputs of frozen blocks."""
    cache_saved_seconds: float | None = None
    """About what that has saved, less what it took to compute them."""
    phases: list[PhaseResult] = Field(default=[], max_length=1024)
    """Phases that have ended."""
    results: Metrics = Field(default={}, max_length=64)
    """Metrics of the finished model, `test.accuracy` and so on."""
    decisions: list[DecisionInfo] | None = Field(default=None, max_length=MOST_DECISIONS)
    """What the run has decided, the newest at the end; None where nothing is decided, since operators of the first version take
    no more than they know."""

    def for_operators(self) -> Progress:
        """Return it without what stands at the pod's /metrics alone: operators of the first version take no more than they know."""
        return self.model_copy(update=dict.fromkeys(_OF_THE_POD))

    def info(self) -> ProgressInfo:
        """Return the part that stands in the job's status."""
        return ProgressInfo.model_validate(self.model_dump(include=set(ProgressInfo.model_fields)))


def _beside_decisions(progress: Progress) -> Progress | None:
    """Return a progress with less beside its decisions, None where nothing is left to cut."""
    if not progress.decisions:
        return None
    if progress.metrics:
        return progress.model_copy(update={"metrics": {}})
    if len(progress.results) > _FEWEST_RESULTS:
        few = list(progress.results.items())[:_FEWEST_RESULTS]
        return progress.model_copy(update={"results": dict(few)})
    return None


class TerminationMessage(Said):
    """What a pod leaves behind in /dev/termination-log."""

    schema_version: Literal[1] = 1
    outcome: Annotated[Literal["Succeeded", "Failed", "Stopped"], otherwise(lambda _: "Failed")]
    """How it ended. Another word is read as Failed."""
    reason: str = Field(max_length=64)
    """One CamelCase word: Completed, InvalidData, OutOfMemory, ..."""
    message: str = ""
    """What happened and what to do, for people."""
    rank: int | None = None
    """Global rank of the worker that failed first."""
    exit_code: int = 0
    """Exit code of the pod."""
    checkpoint: CheckpointInfo | None = None
    """The newest complete checkpoint."""
    log_tail: str = ""
    """Last lines of the traceback."""
    progress: Progress | None = None
    """Where the training stood; in a leader that succeeded with all phases and results."""

    def to_termination_log(self) -> str:
        """Return JSON of at most 4096 bytes; what is least needed is cut first: traceback, rates, phases' metrics.

        Decisions stay as long as anything of the progress does.
        """

        def size(message: TerminationMessage) -> int:
            return len(message.to_json().encode())

        message = self
        while (over := size(message) - TERMINATION_MESSAGE_BYTES) > 0:
            progress = message.progress
            if message.log_tail:
                # JSON escapes make a character up to six bytes long: cut at least what is over, from the front.
                message = message.model_copy(update={"log_tail": message.log_tail[max(over, 16) :]})
            elif progress and progress.learning_rates:
                message = message.model_copy(update={"progress": progress.model_copy(update={"learning_rates": {}})})
            elif progress and any(phase.metrics for phase in progress.phases):
                phases = [phase.model_copy(update={"metrics": {}}) for phase in progress.phases]
                message = message.model_copy(update={"progress": progress.model_copy(update={"phases": phases})})
            elif progress and progress.phases:
                phases = progress.phases[1:]
                message = message.model_copy(update={"progress": progress.model_copy(update={"phases": phases})})
            elif progress and progress.recovery:
                message = message.model_copy(update={"progress": progress.model_copy(update={"recovery": None})})
            elif len(message.message) > _SHORTEST_MESSAGE:
                message = message.model_copy(
                    update={"message": message.message[: max(_SHORTEST_MESSAGE, len(message.message) - over)]}
                )
            elif progress and (less := _beside_decisions(progress)):
                message = message.model_copy(update={"progress": less})
            else:
                message = message.model_copy(update={"progress": None})
        return message.to_json()

    @classmethod
    def from_termination_log(cls, text: str) -> TerminationMessage | None:
        """Read what a pod left behind; None when it left nothing or something else (killed, another image, nonsense)."""
        try:
            return cls.read(text)
        except ValueError:
            return None
