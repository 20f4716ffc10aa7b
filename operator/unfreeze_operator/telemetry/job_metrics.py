"""Series of the jobs, read from the caches at each scrape: no series outlives its job, and a restart loses none.

`namespace` and `job_name` say which job a series is about. A label `job` would hide Prometheus' own, the scrape's.
"""

from __future__ import annotations

import json
import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as Line

from unfreeze_api.contracts import budget, series
from unfreeze_api.contracts.progress import Progress, ProgressInfo
from unfreeze_api.contracts.status import AT_WORK
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.cluster.poller import ProgressPoller
from unfreeze_operator.objects.packing import unpack
from unfreeze_operator.objects.resources import Key
from unfreeze_operator.objects.views import FineTuneJobView, parse_time

logger = logging.getLogger(__name__)

Sample = tuple[str, tuple[str, ...], float]
"""Name of a series without its prefix, values of its own labels, value."""

_GAUGES = {
    "info": ("What the job does.", ("strategy",)),
    "status_phase": ("The job's state: status.phase.", ("phase",)),
    "nodes_desired": ("Pods that train together.", ()),
    "nodes_ready": ("Pods that are ready.", ()),
    "progress_ratio": ("Share of the training that is done.", ()),
    "checkpoint_age_seconds": ("Time since the newest complete checkpoint, or since pods run again.", ()),
    "decision": ("1 for each decision of the job's status.", ("type", "answer", "warning")),
}
_COUNTERS = {
    "restarts": ("Restarts: of pods, or of workers in place.", ("kind",)),
    "accelerator_seconds": ("Accelerators times seconds that pods held them.", ()),
}
MAX_VALUES = {"metric": budget.MAX_METRICS, "block": 64 - budget.MAX_METRICS}
"""Values of such labels that a job may ever have, 64 in all: each new one is a series for as long as Prometheus keeps it."""
OTHER = "other"
"""What stands for all that come later."""
_SILENT = Progress()


_Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


def _described() -> dict[str, tuple[_Family, str, tuple[str, ...]]]:
    """Return class, description and own labels of each series of a job."""
    described: dict[str, tuple[_Family, str, tuple[str, ...]]] = {}
    described |= {name: (GaugeMetricFamily, text, labels) for name, (text, labels) in _GAUGES.items()}
    described |= {name: (CounterMetricFamily, text, labels) for name, (text, labels) in _COUNTERS.items()}
    for name, figure in series.at("job").items():
        kind: _Family = GaugeMetricFamily if figure.kind == "Gauge" else CounterMetricFamily
        described[name] = kind, figure.about, (figure.label.name,) if figure.label else ()
    return described


class _Values:
    """The values of labels that jobs have had, by job and group."""

    def __init__(self) -> None:
        self._had: dict[Key, dict[str, set[str]]] = {}

    def __call__(self, key: Key, sample: Sample, groups: Mapping[str, str]) -> Sample:
        name, labels, value = sample
        if name not in groups:
            return sample
        group = groups[name]
        had = self._had.setdefault(key, {}).setdefault(group, set())
        if labels[0] not in had and len(had) >= MAX_VALUES[group]:
            return name, (OTHER,), value
        had.add(labels[0])
        return sample

    def keep(self, keys: set[Key]) -> None:
        """Forget all other jobs."""
        self._had = {key: had for key, had in self._had.items() if key in keys}


class _Rows:
    """The samples of one family in 24 bytes each: as the library's objects, made one by one here, they take 450.

    Parameters
    ----------
    name
        Of the series.
    labels
        Names of its labels beside the job's.
    """

    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        self._name, self._names = name, ("namespace", "job_name", *labels)
        self._views: list[FineTuneJobView] = []
        self._labels: list[tuple[str, ...]] = []
        self._values = array("d")

    def add(self, view: FineTuneJobView, labels: tuple[str, ...], value: float) -> None:
        self._views.append(view)
        self._labels.append(labels)
        self._values.append(value)

    def __iter__(self) -> Iterator[Line]:
        for view, labels, value in zip(self._views, self._labels, self._values, strict=True):
            yield Line(self._name, dict(zip(self._names, (view.namespace, view.name, *labels), strict=True)), value)


class JobCollector(Collector):
    """Series of the jobs as they are at the moment of the scrape."""

    def __init__(self, jobs: Cache[FineTuneJobView], poller: ProgressPoller) -> None:
        self._jobs = jobs
        self._poller = poller
        self._errors = 0
        self._values = _Values()

    def describe(self) -> Iterable[Metric]:
        """Name the series without reading the caches, when the collector is registered."""
        return [GaugeMetricFamily("unfreeze_jobs", "Jobs by phase.")]

    def collect(self) -> Iterable[Metric]:
        """Yield the series of all jobs, family by family."""
        phases: Counter[tuple[str, str]] = Counter()
        described = _described()
        rows: dict[str, _Rows] = {}
        known: dict[tuple[str, ...], tuple[str, ...]] = {}
        for name, (kind, _, more) in described.items():
            suffix = "_total" if kind is CounterMetricFamily else ""
            rows[name] = _Rows(series.JOB_PREFIX + name + suffix, more)
        now = datetime.now(UTC)
        groups = {name: figure.label.group for name, figure in series.at("job").items() if figure.label}
        views = list(self._jobs.all())  # the event loop runs meanwhile, in another thread
        self._values.keep({view.key for view in views})
        for view in views:
            try:
                phase, found = self._series(view, now, groups)
            except Exception:
                # One job must not take the page away from all others.
                self._errors += 1
                logger.exception("%s/%s has no series: they cannot be made of its status", view.namespace, view.name)
                continue
            phases[view.namespace, phase] += 1
            for (name, labels), value in found.items():
                rows[name].add(view, known.setdefault(labels, labels), value)
        jobs = GaugeMetricFamily("unfreeze_jobs", "Jobs by phase.", labels=["namespace", "phase"])
        for (namespace, phase), number in sorted(phases.items()):
            jobs.add_metric([namespace, phase], number)
        yield jobs
        pulls = CounterMetricFamily("unfreeze_progress_pulls", "Answers of leaders to the pull of their progress.")
        pulls.add_metric([], self._poller.pulls)
        yield pulls
        errors = CounterMetricFamily("unfreeze_job_series_errors", "Jobs that a scrape could make no series of.")
        errors.add_metric([], self._errors)
        yield errors
        for name, (kind, text, more) in described.items():
            family = kind(series.JOB_PREFIX + name, text, labels=["namespace", "job_name", *more])
            family.samples = rows.pop(name)  # type: ignore[assignment]  # it is only gone through
            yield family

    def _series(
        self, view: FineTuneJobView, now: datetime, groups: Mapping[str, str]
    ) -> tuple[str, dict[tuple[str, tuple[str, ...]], float]]:
        status = json.loads(unpack(view.status))
        found: dict[tuple[str, tuple[str, ...]], float] = {}
        for sample in samples(view, status, self._poller.reported(view.key), now):
            name, labels, value = _checked(self._values(view.key, sample, groups))
            found.setdefault((name, labels), value)  # of all the others the first
        return _phase(status), found


def samples(
    view: FineTuneJobView, status: dict[str, Any], reported: Progress | None, now: datetime
) -> Iterator[Sample]:
    """Yield the series of one job.

    Parameters
    ----------
    view, status
        The job and its status as JSON.
    reported
        What its leader said last, while it is asked.
    now
        The time.
    """
    phase = _phase(status)
    yield "info", (budget.block(view.strategy),), 1
    yield "status_phase", (phase,), 1
    for kind, field in (("pod", "pods"), ("in_place", "inPlace")):
        yield "restarts", (kind,), status.get("restarts", {}).get(field, 0)
    if "acceleratorSeconds" in status:
        yield "accelerator_seconds", (), status["acceleratorSeconds"]
    if "progress" in status:
        yield "progress_ratio", (), status["progress"].get("percent", 0) / 100
    for one in status.get("decisions", ()):
        kind = one["type"] if one["type"] in budget.DECISIONS else OTHER
        answer = one["answer"] if one["answer"] in budget.ANSWERS else OTHER
        yield "decision", (kind, answer, str(bool(one.get("warning"))).lower()), 1
    if phase in ("Pending", "Running"):
        yield "nodes_desired", (), status.get("nodes", {}).get("desired", 0)
        yield "nodes_ready", (), status.get("nodes", {}).get("ready", 0)
    if phase == "Running":
        yield from _training(status, reported, now)


def _training(status: dict[str, Any], reported: Progress | None, now: datetime) -> Iterator[Sample]:
    # What stands in the status outlives a restart of the operator.
    known = ProgressInfo.model_construct(**status.get("progress", {}))
    progress = (reported or _SILENT).model_copy(update=vars(known))
    for name, figure in series.at("job").items():
        if figure.in_status or reported is not None:
            yield from ((name, labels, value) for labels, value in figure.values(progress, bounded=True))
    since = parse_time(status.get("checkpoint", {}).get("time") or status.get("startTime"))
    if since is not None:
        yield "checkpoint_age_seconds", (), _at_stake(status, since, now)


def _at_stake(status: dict[str, Any], since: datetime, now: datetime) -> float:
    """Return the seconds since then, without those of a suspend, and no more than pods have run in all."""
    found = (one for one in status.get("conditions", ()) if (one["type"], one["reason"]) == ("Suspended", "Resumed"))
    resumed = parse_time(next((one["lastTransitionTime"] for one in found), None))
    age = (now - (max(since, resumed) if resumed else since)).total_seconds()
    if not (spent := status.get("stateSeconds")):
        return age
    begun = parse_time(spent["since"]) if spent.get("state") in AT_WORK else None
    ran = sum(spent.get(state.lower(), 0) for state in AT_WORK)
    return min(age, ran + ((now - begun).total_seconds() if begun else 0.0))


def _checked(sample: Sample) -> Sample:
    """Return a sample that can be written.

    Raises
    ------
    ValueError, TypeError, OverflowError
        It cannot.
    """
    name, labels, value = sample
    for label in labels:
        label.encode()
    return name, labels, float(value)


def _phase(status: dict[str, Any]) -> str:
    return status.get("phase") or "Pending"
