"""The series of a job: which there are when, and that a trainer of somebody's own cannot make too many."""

import math
from dataclasses import replace
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest

from tests.operator.fakes import NOW, job, text
from unfreeze_api.contracts.budget import MAX_METRICS, MAX_RATES
from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.status import Failure, FineTuneJobStatus
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.objects.packing import pack
from unfreeze_operator.observed.context import Children
from unfreeze_operator.telemetry.job_metrics import JobCollector, samples
from unfreeze_operator.telemetry.metrics import MAX_REASONS, Metrics

TRAINING = {
    "step": 5,
    "percent": 50,
    "phaseIndex": 1,
    "phaseName": "layer.5",
    "loss": 0.4,
    "metrics": {"accuracy": 0.8},
}


def series(status, reported=None, after=0):
    return {
        (name, *labels): value
        for name, labels, value in samples(job(), status, reported, NOW + timedelta(seconds=after))
    }


def test_a_running_job():
    status = {
        "phase": "Running",
        "nodes": {"desired": 2, "ready": 1},
        "restarts": {"pods": 3, "inPlace": 1},
        "acceleratorSeconds": 16,
        "checkpoint": {"time": text(NOW)},
        "progress": TRAINING | {"samplesPerSecond": 7.5},
    }
    reported = Progress(tokens_per_second=80, learning_rates={"head": 1e-3, "layer.5": 1e-4})
    assert series(status, reported, after=90) == {
        ("info", "FullFineTuning"): 1,
        ("status_phase", "Running"): 1,
        ("restarts", "pod"): 3,
        ("restarts", "in_place"): 1,
        ("accelerator_seconds",): 16,
        ("progress_ratio",): 0.5,
        ("nodes_desired",): 2,
        ("nodes_ready",): 1,
        ("step",): 5,
        ("training_phase", "layer.5"): 2,
        ("training_loss",): 0.4,
        ("validation_metric", "accuracy"): 0.8,
        ("samples_per_second",): 7.5,
        ("tokens_per_second",): 80,
        ("learning_rate", "head"): 1e-3,
        ("learning_rate", "layer.5"): 1e-4,
        ("checkpoint_age_seconds",): 90,
    }


def test_a_finished_job_keeps_what_adds_up():
    status = {"phase": "Succeeded", "nodes": {"desired": 2}, "acceleratorSeconds": 9, "progress": TRAINING}
    names = {name for name, *_ in series(status)}
    assert names == {"info", "status_phase", "restarts", "accelerator_seconds", "progress_ratio"}


def test_decisions_stay_with_the_job_and_their_labels_come_from_a_list():
    told = [("Baseline", "No", True), ("Rung", "Yes", None), ("Rung", "No", None), ("Strategy", "FullFineTuning", None)]
    decisions = [
        {"type": kind, "answer": answer, "message": "", "step": step} | ({"warning": True} if warning else {})
        for step, (kind, answer, warning) in enumerate([*told, ("Mine", "\x1b", None)])
    ]
    assert {key for key in series({"phase": "Succeeded", "decisions": decisions}) if key[0] == "decision"} == {
        ("decision", "Baseline", "No", "true"),
        ("decision", "Rung", "Yes", "false"),
        ("decision", "Rung", "No", "false"),
        ("decision", "Strategy", "other", "false"),
        ("decision", "other", "other", "false"),
    }


def test_a_new_job_is_pending():
    assert series({}) == {
        ("info", "FullFineTuning"): 1,
        ("status_phase", "Pending"): 1,
        ("restarts", "pod"): 0,
        ("restarts", "in_place"): 0,
        ("nodes_desired",): 0,
        ("nodes_ready",): 0,
    }


def test_before_its_first_checkpoint_a_job_stands_to_lose_all_since_its_start():
    assert series({"phase": "Running", "startTime": text(NOW)}, after=60)["checkpoint_age_seconds",] == 60


def test_time_in_which_no_pod_ran_is_not_at_stake():
    day = timedelta(days=1)
    running = {"phase": "Running", "startTime": text(NOW - day), "checkpoint": {"time": text(NOW - day)}}
    resumed = {"type": "Suspended", "status": "False", "reason": "Resumed", "lastTransitionTime": text(NOW)}
    assert series(running | {"conditions": [resumed]}, after=60)["checkpoint_age_seconds",] == 60
    spent = {"state": "Training", "since": text(NOW), "pending": 86340, "starting": 60}
    assert series(running | {"stateSeconds": spent}, after=60)["checkpoint_age_seconds",] == 120
    assert series(running | {"stateSeconds": spent | {"training": 10**6}}, after=60)["checkpoint_age_seconds",] == 86460


def test_a_loss_that_is_not_finite_is_nan_and_not_absent():
    progress = {name: value for name, value in TRAINING.items() if name != "loss"}
    assert math.isnan(series({"phase": "Running", "progress": progress})["training_loss",])
    assert ("training_loss",) not in series({"phase": "Running", "progress": progress | {"step": 0}})


def test_what_a_trainer_says_is_bounded():
    reported = Progress(learning_rates={f"layer.{number}": 1.0 for number in range(2 * MAX_RATES)})
    rates = [name for name, *_ in series({"phase": "Running"}, reported) if name == "learning_rate"]
    assert len(rates) == MAX_RATES


def test_figures_of_each_class_make_no_series():
    per_class = {f"f1.{label}": 1.0 for label in ("cat", "dog")} | {f"f1/{n}": 1.0 for n in range(9)} | {"f1[a]": 1.0}
    status = {"phase": "Running", "progress": TRAINING | {"metrics": {"accuracy": 0.8} | per_class}}
    assert [labels for name, *labels in series(status) if name == "validation_metric"] == [["accuracy"]]
    many = {f"f1_{number}": 1.0 for number in range(1000)}
    status = {"phase": "Running", "progress": TRAINING | {"metrics": many}}
    assert sum(name == "validation_metric" for name, *_ in series(status)) == MAX_METRICS


class Told:
    """A poller whose leaders have said what the test puts here."""

    pulls = 0
    said = None

    def reported(self, _):
        return self.said


def blocks(collector):
    """Return the values of the labels that trainers choose, in one scrape."""
    found = [
        label
        for family in collector.collect()
        for sample in family.samples
        for name, label in sample.labels.items()
        if name in ("block", "training_phase", "metric")
    ]
    return {*found}


def test_a_job_has_64_values_of_labels_ever_and_then_others():
    cache, poller = Cache(lambda _: None), Told()
    collector = JobCollector(cache, poller)
    seen = set()
    for scrape in range(40):
        metrics = {f"m{scrape}x{number}": 1.0 for number in range(4)}
        progress = TRAINING | {"phaseName": f"phase.{scrape}", "metrics": metrics}
        cache.put(replace(job(), version=scrape, status=pack({"phase": "Running", "progress": progress})))
        poller.said = Progress(learning_rates={f"b{scrape}.{number}": number for number in range(200)})
        seen |= blocks(collector)
    assert "other" in seen
    assert len(seen - {"other"}) == 64
    generate_latest(registered(collector))


def registered(collector):
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def test_what_a_job_was_told_of_first_keeps_its_name():
    cache, poller = Cache(lambda _: None), Told()
    collector = JobCollector(cache, poller)
    cache.put(replace(job(), status=pack({"phase": "Running", "progress": TRAINING})))
    poller.said = Progress(learning_rates={"layer.5": 1e-3} | {f"b{number}": number for number in range(200)})
    registry = registered(collector)
    of = {"namespace": "ns", "job_name": "job"}
    assert registry.get_sample_value("unfreeze_job_learning_rate", of | {"block": "layer.5"}) == 1e-3
    assert registry.get_sample_value("unfreeze_job_validation_metric", of | {"metric": "accuracy"}) == 0.8
    assert registry.get_sample_value("unfreeze_job_learning_rate", of | {"block": "b54"}) == 54
    assert registry.get_sample_value("unfreeze_job_learning_rate", of | {"block": "other"}) == 55
    cache.remove(job())
    blocks(collector)
    cache.put(replace(job(uid="u2"), status=pack({"phase": "Running"})))
    poller.said = Progress(learning_rates={"b199": 1})
    assert blocks(collector) == {"b199"}, "another job of the same name begins anew"


def test_reasons_of_failures_are_bounded():
    metrics = Metrics()
    assert metrics.registry.get_sample_value("unfreeze_jobs_failed_total", {"reason": "InvalidData"}) == 0
    for reason in ("odd\n", "", "ü", "reason{}"):
        failed = FineTuneJobStatus(phase="Failed", failure=Failure(reason=reason))
        metrics.transition(job(), FineTuneJobStatus(phase="Running"), failed, Children(), NOW)
    assert metrics.registry.get_sample_value("unfreeze_jobs_failed_total", {"reason": "Other"}) == 4
    metrics = Metrics()
    for number in range(MAX_REASONS + 5):
        failed = FineTuneJobStatus(phase="Failed", failure=Failure(reason=f"Reason{number}"))
        metrics.transition(job(), FineTuneJobStatus(phase="Running"), failed, Children(), NOW)
    assert metrics.registry.get_sample_value("unfreeze_jobs_failed_total", {"reason": "Other"}) == 5
    assert metrics.registry.get_sample_value("unfreeze_jobs_failed_total", {"reason": "Reason0"}) == 1


def test_jobs_may_come_during_a_scrape():
    """It runs beside the event loop."""
    cache = Cache(lambda _: None)

    class ProgressPoller:
        pulls = 0

        def reported(self, _):
            cache.put(job(name=f"later-{len(cache)}", uid=f"later-{len(cache)}"))

    registry = CollectorRegistry()
    registry.register(JobCollector(cache, ProgressPoller()))
    for number in range(3):
        cache.put(job(name=f"job-{number}", uid=str(number)))
    assert registry.get_sample_value("unfreeze_jobs", {"namespace": "ns", "phase": "Pending"}) == 3
