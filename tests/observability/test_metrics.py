"""What operator and trainer pods serve at /metrics follows Prometheus' conventions, and docs/operations.md explains it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.cluster import REPOSITORY
from tests.observability.prometheus import promtool
from tests.operator.fakes import job
from unfreeze_api.contracts.progress import CheckpointInfo, Progress
from unfreeze_operator.objects.packing import pack
from unfreeze_operator.telemetry.job_metrics import JobCollector
from unfreeze_operator.telemetry.metrics import Metrics
from unfreeze_trainer.agent.http import render_metrics

PROGRESS = Progress(
    step=5,
    total_steps=10,
    phase_name="layer.1",
    loss=0.5,
    metrics={"accuracy": 0.8},
    samples_per_second=10,
    tokens_per_second=100,
    eta_seconds=5,
    fetched_bytes=1,
    total_bytes=2,
    cache_hits=3,
    cache_reused=2,
    cache_bytes=4,
    cache_saved_seconds=0.5,
    rollbacks=1,
    learning_rates={"head": 1e-3},
    checkpoint=CheckpointInfo(step=4, time=datetime.now(UTC)),
)


def operator_page() -> str:
    """Return the page of an operator with one job that has every series."""
    status = {"phase": "Running", "acceleratorSeconds": 1, "startTime": "2026-01-01T00:00:00Z"}
    status |= {"progress": PROGRESS.info().model_dump(by_alias=True)}
    status |= {"decisions": [{"type": "Baseline", "answer": "No", "message": "", "step": 5}]}
    view = SimpleNamespace(**{name: getattr(job(), name) for name in ("namespace", "name", "strategy", "key")})
    view.status = pack(status)
    metrics = Metrics()
    poller = SimpleNamespace(reported=lambda _: PROGRESS, pulls=1)
    metrics.registry.register(JobCollector(SimpleNamespace(all=lambda: [view]), poller))
    return generate_latest(metrics.registry).decode()


PAGES = {"operator": operator_page, "trainer": lambda: render_metrics(PROGRESS).decode()}


@pytest.mark.slow  # needs promtool
@pytest.mark.parametrize("page", PAGES)
def test_promtool_finds_nothing(page):
    done = promtool("check", "metrics", stdin=PAGES[page]())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("page", PAGES)
def test_every_series_of_a_page_has_a_value(page):
    families = [family for family in text_string_to_metric_families(PAGES[page]()) if "unfreeze" in family.name]
    # Their labels are namespaces: no status has been written.
    unlabelled = {"unfreeze_namespace_accelerator_seconds", "unfreeze_namespace_cost"}
    assert {family.name for family in families if not family.samples} <= unlabelled


def test_the_document_has_every_series():
    section = (REPOSITORY / "docs/operations.md").read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    told = {name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    families = [family for page in PAGES.values() for family in text_string_to_metric_families(page())]
    served = {family.name + "_total" * (family.type == "counter") for family in families if "unfreeze" in family.name}
    assert told == served
