"""Prometheus metrics. What describes jobs is read from the caches at each scrape, so no series outlives its job."""

from __future__ import annotations

import json
from collections import Counter as Count
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from unfreeze_api.progress import Progress
from unfreeze_api.status import FineTuneJobStatus
from unfreeze_operator.context import Children
from unfreeze_operator.informer import Cache
from unfreeze_operator.progress import Puller
from unfreeze_operator.views import FineTuneJobView, parse_time

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WAITS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600)


class Metrics:
    """The operator's own series: counts and times of what this process has done and seen."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        own: dict[str, Any] = {"registry": self.registry}
        self.created = Counter("unfreeze_jobs_created", "Jobs whose children were created.", **own)
        self.succeeded = Counter("unfreeze_jobs_succeeded", "Jobs that succeeded.", **own)
        self.failed = Counter("unfreeze_jobs_failed", "Jobs that failed.", ["reason"], **own)
        self.restarts = Counter("unfreeze_job_restarts", "Restarts: of pods, or of workers in place.", ["kind"], **own)
        self.reconcile_seconds = Histogram(
            "unfreeze_reconcile_duration_seconds", "Duration of a reconcile.", buckets=_LATENCIES, **own
        )
        self.reconcile_errors = Counter("unfreeze_reconcile_errors", "Reconciles that raised an error.", **own)
        self.status_writes = Counter("unfreeze_status_writes", "Writes of a job's status.", **own)
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
        if old.phase is None:
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
            self.failed.labels(new.failure.reason).inc()
        if new.restarts:
            pods, in_place = (old.restarts.pods, old.restarts.in_place) if old.restarts else (0, 0)
            self.restarts.labels("pod").inc(max(0, new.restarts.pods - pods))
            self.restarts.labels("in_place").inc(max(0, new.restarts.in_place - in_place))


class JobCollector(Collector):
    """Series of the jobs as they are at the moment of the scrape."""

    def __init__(self, jobs: Cache[FineTuneJobView], puller: Puller) -> None:
        self._jobs = jobs
        self._puller = puller

    def describe(self) -> Iterable[Metric]:
        """Name the series without reading the caches, when the collector is registered."""
        return [GaugeMetricFamily("unfreeze_jobs", "Jobs by phase.")]

    def collect(self) -> Iterable[Metric]:
        """Return the series of all jobs."""
        phases: Count[tuple[str, str]] = Count()
        families = {
            name: GaugeMetricFamily(f"unfreeze_job_{name}", text, labels=["namespace", "job", *more])
            for name, text, more in (
                ("progress_ratio", "Share of the training that is done.", ()),
                ("training_loss", "Training loss, smoothed.", ()),
                ("learning_rate", "Learning rate of each trained block.", ("group",)),
                ("samples_per_second", "Samples of all workers together, per second.", ()),
                ("accelerator_seconds", "Accelerators times seconds that pods held them.", ()),
                ("checkpoint_age_seconds", "Age of the newest complete checkpoint.", ()),
            )
        }
        now = datetime.now(UTC)
        for view in self._jobs.all():
            status = json.loads(view.status)
            phases[view.namespace, status.get("phase") or "Pending"] += 1
            labels = [view.namespace, view.name]
            _job_series(families, labels, status, self._puller.spoken(view.key), now)
        family = GaugeMetricFamily("unfreeze_jobs", "Jobs by phase.", labels=["namespace", "phase"])
        for (namespace, phase), number in sorted(phases.items()):
            family.add_metric([namespace, phase], number)
        pulls = CounterMetricFamily("unfreeze_progress_pulls", "Answers of leaders to the pull of their progress.")
        pulls.add_metric([], self._puller.pulls)
        return [family, *families.values(), pulls]


def _job_series(
    families: dict[str, GaugeMetricFamily],
    labels: list[str],
    status: dict[str, Any],
    spoken: Progress | None,
    now: datetime,
) -> None:
    progress = status.get("progress")
    if progress is not None:
        families["progress_ratio"].add_metric(labels, progress.get("percent", 0) / 100)
        for name, field in (("training_loss", "loss"), ("samples_per_second", "samplesPerSecond")):
            if status.get("phase") == "Running" and field in progress:
                families[name].add_metric(labels, progress[field])
    if "acceleratorSeconds" in status:
        families["accelerator_seconds"].add_metric(labels, status["acceleratorSeconds"])
    written = parse_time(status.get("checkpoint", {}).get("time"))
    if written is not None and status.get("phase") == "Running":
        families["checkpoint_age_seconds"].add_metric(labels, (now - written).total_seconds())
    for group, rate in (spoken.learning_rates if spoken is not None else {}).items():
        families["learning_rate"].add_metric([*labels, group], rate)
