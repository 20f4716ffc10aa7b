"""The life of a job in the cluster."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule


class BudgetSpec(Model):
    """What a job may take."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.hours) ? 1 : 0) + (has(self.acceleratorHours) ? 1 : 0) + (has(self.amount) ? 1 : 0) == 1",
            "set exactly one of hours, acceleratorHours and amount",
        ),
        Rule(
            "!has(self.pricePerHour) || has(self.amount)",
            "pricePerHour is about amount: set amount, or remove it",
            ".pricePerHour",
        ),
    )

    hours: float | None = Field(default=None, gt=0, le=100000)
    """Hours in which the job's pods run together, fractions allowed. Default: none."""
    accelerator_hours: float | None = Field(default=None, gt=0, le=1000000000)
    """The same times the accelerators of all pods. Default: none."""
    amount: float | None = Field(default=None, gt=0, le=1000000000)
    """Money, in the currency of the prices. Default: none."""
    price_per_hour: float | None = Field(default=None, gt=0, le=1000000)
    """What an accelerator costs an hour, of a job without any a pod. Default: as the operator's table of prices says."""


class RunPolicySpec(Model):
    """The life of the job in the cluster."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.budget) == has(oldSelf.budget) && (!has(self.budget) || self.budget == oldSelf.budget))"
            " || (oldSelf.suspend && self.suspend)",
            "runPolicy.budget can only be changed while runPolicy.suspend is true: suspend the job first, then change it, then"
            " resume",
            ".budget",
        ),
        Rule(
            "(has(self.hangTimeoutSeconds) == has(oldSelf.hangTimeoutSeconds)"
            " && (!has(self.hangTimeoutSeconds) || self.hangTimeoutSeconds == oldSelf.hangTimeoutSeconds))"
            " || (oldSelf.suspend && self.suspend)",
            "runPolicy.hangTimeoutSeconds can only be changed while runPolicy.suspend is true: suspend the job first,"
            " then change it, then resume",
            ".hangTimeoutSeconds",
        ),
    )

    suspend: bool = False
    """True stops the pods after a checkpoint; false resumes from it."""
    backoff_limit: int = Field(default=3, ge=0, le=1000)
    """Failed pods after which the job fails. Evictions, preemptions, drains, deleted pods and suspends are free; errors
    of the job itself (exit code 2) fail it at once."""
    active_deadline_seconds: int | None = Field(default=None, ge=1, le=315360000)
    """Seconds of running, without those suspended, after which the job fails."""
    startup_timeout_seconds: int | None = Field(default=None, ge=1, le=315360000)
    """Seconds that the pods may take until all of them run, at the start, after a resume and when one is replaced; then
    the job fails, and says which pod waits for what. Time in a queue does not count. Default: no limit."""
    hang_timeout_seconds: int | None = Field(default=None, ge=10, le=86400)
    """Seconds without any news from a training's workers (steps, evaluations and checkpoints give news), counted from
    its first step, after which the stacks of all ranks go to the pods' logs and the workers are started again from the
    newest checkpoint, in the same pods. Default: 20 times the slowest step so far, at least 600; 1800 while it evaluates
    or exports."""
    budget: BudgetSpec | None = None
    """What the job may take, all its runs together. Before it is over the training ends in order: time is kept for the last
    evaluation, the test data and the export of the best weights, and the job succeeds. Counted from each start of pod 0. Default:
    no limit."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=315360000)
    """Seconds after which a finished job is deleted. Default: never."""
    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    """What becomes of the pods when the job has ended. Running stops those that still run and keeps the others, so that
    their logs can be read. All deletes the child Job with every pod, once their termination messages are in the
    status. None deletes nothing by itself; pods that still run when a job fails are stopped all the same, by Kubernetes'
    own Job controller."""
