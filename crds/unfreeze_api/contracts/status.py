"""Status of a FineTuneJob: what the operator writes and people read."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from unfreeze_api.contracts.progress import CheckpointInfo, DecisionInfo, Finite, Metrics, PhaseResult, ProgressInfo
from unfreeze_api.grammar.model import Model
from unfreeze_api.grammar.reading import KNOWN_ENTRIES, otherwise

JobPhase = Literal["Pending", "Queued", "Running", "Suspended", "Succeeded", "Failed"]
JobState = Literal["Pending", "Queued", "Starting", "Training", "Recovering", "Suspended"]


class Condition(Model):
    """One aspect of the job's state, as in every Kubernetes object (metav1.Condition)."""

    type: Literal[
        "Running", "Suspended", "Complete", "Failed", "Reconciling", "Stalled", "CheckpointBroken", "Useful"
    ] = Field()
    """Which aspect. Reconciling and Stalled are kstatus' words, for Flux and `helm --wait`: true while the pods are not yet
    as the spec wants them, and on a failure that nothing will mend by itself. CheckpointBroken is true, for good, once the
    training had to do without its newest checkpoint. Useful tells, of a job that has succeeded, whether its model is better
    than always guessing one class."""
    status: Literal["True", "False", "Unknown"]
    """Whether the aspect holds now."""
    reason: str = Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    """Why, in one CamelCase word."""
    message: str = Field(default="", max_length=32768)
    """Why, in words for people."""
    last_transition_time: datetime
    """When status last changed."""
    observed_generation: int = Field(default=0, ge=0)
    """Generation of the spec that this is about."""


class Nodes(Model):
    """Pods of the job."""

    desired: int = Field(default=0, ge=0)
    """Pods that train together."""
    ready: int = Field(default=0, ge=0)
    """Pods that are ready now."""


class WaitingPod(Model):
    """A pod that does not run yet, and for a reason."""

    pod: str = Field(max_length=253)
    """Name of the pod."""
    reason: str = Field(max_length=64)
    """One CamelCase word, as in condition Running."""
    message: str = Field(default="", max_length=1024)
    """What it waits for, in the words of scheduler or node."""


class Restarts(Model):
    """What was started again."""

    in_place: int = Field(default=0, ge=0)
    """Times that workers were started again within their pods."""
    pods: int = Field(default=0, ge=0)
    """Pods that were replaced."""


class HistoryPoint(Model):
    """A moment of the training."""

    step: int = Field(ge=0)
    """Optimizer step of this moment."""
    loss: Finite = None
    """Training loss at that step, smoothed over the steps before it."""
    metric: Finite = None
    """Newest validation value of training.metric at that step."""


AT_WORK: tuple[JobState, ...] = ("Starting", "Training", "Recovering")
"""States in which pods run."""


class StateSeconds(Model):
    """Where the job's time went, in whole seconds. All of them together are the time from its creation until `since`."""

    state: Annotated[JobState | None, otherwise(lambda _: "Starting")] = None
    """What the job does now; none when it has ended."""
    since: datetime
    """When the job began to do that."""
    pending: int = Field(default=0, ge=0)
    """Until all pods ran, or found nodes."""
    queued: int = Field(default=0, ge=0)
    """In Kueue's queue, until it was admitted."""
    starting: int = Field(default=0, ge=0)
    """From the pods' start until the training began or resumed: loading of model and data."""
    training: int = Field(default=0, ge=0)
    """Training, with evaluations and the export."""
    recovering: int = Field(default=0, ge=0)
    """From the loss of a pod or worker until the training resumed."""
    suspended: int = Field(default=0, ge=0)
    """While runPolicy.suspend was true and no pod ran."""


class Cost(Model):
    """What the job costs, all its runs together."""

    accelerator_hours: float = Field(ge=0)
    """Accelerators times hours that pods have held them so far."""
    estimated_accelerator_hours: float | None = Field(default=None, ge=0)
    """What that will be in the end, by the time that is left; while the job trains."""
    amount: float | None = Field(default=None, ge=0)
    """Money so far, where the platform has a price for the job's accelerators. Hours cost what they did when they were counted."""
    estimated_amount: float | None = Field(default=None, ge=0)
    """What that will be in the end, at the present price; while the job trains."""
    currency: str | None = Field(default=None, max_length=3)
    """Of the amounts, like USD."""
    text: str = Field(default="", max_length=64)
    """The same for a column of kubectl get, like `3.13 of 8.50 USD`, or without prices `1.25 of 3.40 h`."""


class Failure(Model):
    """The failure that ended the job, or the newest one of a pod."""

    reason: str = Field(max_length=64)
    """Why, in one CamelCase word."""
    message: str = Field(default="", max_length=4096)
    """What happened and what to do."""
    pod: str | None = Field(default=None, max_length=253)
    """Pod that failed first."""
    node: str | None = Field(default=None, max_length=253)
    """Node that it ran on."""
    rank: int | None = Field(default=None, ge=0)
    """Global rank of the worker that failed first."""
    exit_code: int | None = None
    """Exit code of the pod's container."""
    log_tail: str | None = Field(default=None, max_length=4096)
    """Last lines of the traceback."""


class Omitted(Model):
    """What the status leaves out to stay small, by number. All of it is in report.json of the run's folder."""

    phases: int = Field(default=0, ge=0)
    """Phases that ended before the first one that is listed."""
    metrics: int = Field(default=0, ge=0)
    """Validation metrics that are not shown."""
    results: int = Field(default=0, ge=0)
    """Metrics of the finished model that are not shown."""


class FineTuneJobStatus(Model):
    """What became of the job."""

    observed_generation: int | None = Field(default=None, ge=-1)
    """Generation of the spec that this status is about; -1 until an operator has seen the job."""
    phase: Annotated[JobPhase | None, otherwise(lambda _: None)] = None
    """The state in one word, for people and scripts."""
    conditions: Annotated[list[Condition], KNOWN_ENTRIES] = Field(
        default=[],
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    """The state in detail."""
    start_time: datetime | None = None
    """When the job's pods were first created."""
    completion_time: datetime | None = None
    """When the job succeeded or failed."""
    nodes: Nodes | None = None
    """Pods of the job."""
    waiting: list[WaitingPod] = Field(default=[], max_length=16)
    """The first of the pods that cannot run now, and what each waits for."""
    progress: ProgressInfo | None = None
    """How far the training is."""
    history: list[HistoryPoint] = Field(default=[], max_length=64)
    """The course of the training: its first moment in each thirty-second part of all steps."""
    checkpoint: CheckpointInfo | None = None
    """The newest complete checkpoint."""
    restarts: Restarts | None = None
    """What was started again."""
    phases: list[PhaseResult] = Field(default=[], max_length=1024)
    """Phases that have ended: the newest 64, or as many as the status has room for."""
    results: Metrics = Field(default={}, max_length=64)
    """Metrics of the finished model."""
    decisions: list[DecisionInfo] = Field(default=[], max_length=8)
    """What the run has decided by what it measured: the newest 8, of 256 bytes each. report.json has all, with what they rest
    on."""
    omitted: Omitted | None = None
    """How much is not listed, when something is not."""
    state_seconds: StateSeconds | None = None
    """Where the job's time went."""
    accelerator_seconds: int | None = Field(default=None, ge=0)
    """Accelerators times seconds that pods held them."""
    cost: Cost | None = None
    """What the job costs, where its pods ask for accelerators."""
    failure: Failure | None = None
    """What failed, where and why."""
    warnings: list[Annotated[str, Field(max_length=512)]] = Field(default=[], max_length=16)
    """What is out of date in the spec, in the words of `unfreeze validate`, and which other jobs that have not ended have the
    same destination; the job runs all the same."""
    summary: Summary | None = None
    """Ready-made texts for the columns of kubectl get."""


class Summary(Model):
    """Ready-made texts for the columns of kubectl get."""

    progress: str = Field(default="", max_length=64)
    """Like `41%`, with the phase when there are several: `41% (2/4)`, and with the stage: `41% (2/4) stage 1 of 2`."""
    metric: str = Field(default="", max_length=64)
    """Newest value of training.metric on the validation data, like `accuracy 0.812`; on the test data in the end, if the
    job has such: `accuracy 0.804 (test)`."""
    eta: str = Field(default="", max_length=64)
    """Time that is left, like `1m35s`."""
    checkpoint: str = Field(default="", max_length=64)
    """Step of the newest checkpoint."""


FineTuneJobStatus.model_rebuild()
