"""The operator's own Prometheus series: counts and times of what it has done. Those of jobs are in job_metrics.py."""

from __future__ import annotations

import re
from datetime import datetime
from importlib.metadata import version
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from unfreeze_api.contracts import reasons
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.plan import PARTS
from unfreeze_operator.objects.views import FineTuneJobView
from unfreeze_operator.observed.context import Children

MAX_REASONS = 64
"""Reasons come from trainers, and a trainer of somebody's own may say anything: beyond so many others they count as Other."""
MAX_NAMESPACES = 1000
"""Namespaces that have series of their own; those that come later count as Other, which is no namespace's name."""
_KNOWN = (reasons.FAILED.keys() | reasons.TRAINER.keys()) - {"Retrying", "Stopped", "Completed"}
"""Have a series from the start: of a counter that begins at 1, increase() does not see the first one."""
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WAITS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600)


class Metrics:
    """Counts and times of what this process has done and seen."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nobody asks for
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        own: dict[str, Any] = {"registry": self.registry}
        build = Gauge("unfreeze_operator_build_info", "Version of the operator that runs.", ["version"], **own)
        build.labels(version("unfreeze")).set(1)
        self.created = Counter("unfreeze_jobs_created", "Jobs whose children were created.", **own)
        self.succeeded = Counter("unfreeze_jobs_succeeded", "Jobs that succeeded.", **own)
        self.failed = Counter("unfreeze_jobs_failed", "Jobs that failed.", ["reason"], **own)
        for reason in sorted(_KNOWN):
            self.failed.labels(reason)
        self._reasons: set[str] = set()
        self.accelerator_seconds = Counter(
            "unfreeze_namespace_accelerator_seconds",
            "Accelerators times seconds that pods of a namespace's jobs held them, since this process began to count.",
            ["namespace"],
            **own,
        )
        self.cost = Counter(
            "unfreeze_namespace_cost",
            "What they cost, by the table of prices.",
            ["namespace", "currency"],
            **own,
        )
        self._namespaces: set[str] = set()
        self.reconcile_seconds = Histogram(
            "unfreeze_reconcile_duration_seconds", "Duration of a reconcile.", buckets=_LATENCIES, **own
        )
        self.reconcile_errors = Counter("unfreeze_reconcile_errors", "Reconciles that raised an error.", **own)
        self.plan_errors = Counter(
            "unfreeze_plan_errors", "Errors of a part of a job's plan; its other parts stand.", ["part"], **own
        )
        for part in PARTS:
            self.plan_errors.labels(part)
        self.status_writes = Counter("unfreeze_status_writes", "Writes of a job's status.", **own)
        self.leading = Gauge("unfreeze_leading", "Whether this operator works: 1, or stands by: 0.", **own)
        self.queue_depth = Gauge("unfreeze_queue_depth", "Jobs that wait for a reconcile.", **own)
        self.running_pulls = Gauge("unfreeze_progress_targets", "Jobs whose progress is pulled.", **own)
        self.until_pods = Histogram(
            "unfreeze_job_pods_created_seconds", "Time from a job's creation to its first pod.", buckets=_WAITS, **own
        )
        self.until_running = Histogram(
            "unfreeze_job_running_seconds", "Time from a job's creation to all pods running.", buckets=_WAITS, **own
        )
        self.until_step = Histogram(
            "unfreeze_job_first_step_seconds", "Time from a job's creation to its first step.", buckets=_WAITS, **own
        )

    def transition(
        self, job: FineTuneJobView, old: FineTuneJobStatus, new: FineTuneJobStatus, children: Children, now: datetime
    ) -> None:
        """Count what has happened in the step from one written status to the next."""
        age = (now - job.created).total_seconds()
        self._spend(job.namespace, old, new)
        if old.phase is None and new.phase is not None:
            self.created.inc()
        if old.start_time is None and new.start_time is not None:
            first = min((pod.created for pod in children.pods), default=now)
            self.until_pods.observe(max(0.0, (first - job.created).total_seconds()))
        if new.phase == "Running" and old.phase in (None, "Pending", "Queued") and old.progress is None:
            self.until_running.observe(age)
        if new.progress and new.progress.step and not (old.progress and old.progress.step):
            self.until_step.observe(age)
        if new.phase != old.phase and new.phase == "Succeeded":
            self.succeeded.inc()
        if new.phase != old.phase and new.phase == "Failed" and new.failure:
            self.failed.labels(self._bounded(new.failure.reason)).inc()

    def _spend(self, namespace: str, old: FineTuneJobStatus, new: FineTuneJobStatus) -> None:
        if namespace not in self._namespaces and len(self._namespaces) >= MAX_NAMESPACES:
            namespace = "Other"
        self._namespaces.add(namespace)
        if (grown := (new.accelerator_seconds or 0) - (old.accelerator_seconds or 0)) > 0:
            self.accelerator_seconds.labels(namespace).inc(grown)
        amount, currency = (new.cost.amount, new.cost.currency) if new.cost else (None, None)
        before = old.cost.amount if old.cost and old.cost.currency == currency else None
        if amount is not None and currency and (grown_by := amount - (before or 0.0)) > 0:
            self.cost.labels(namespace, currency).inc(grown_by)

    def _bounded(self, reason: str) -> str:
        if reason in _KNOWN:
            return reason
        if reason not in self._reasons and (len(self._reasons) >= MAX_REASONS or not _REASON.fullmatch(reason)):
            return "Other"
        self._reasons.add(reason)
        return reason
