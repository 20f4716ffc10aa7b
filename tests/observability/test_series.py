"""A figure is a row of contracts/series.py: it brings it to agent, operator, status and trackers, with no other edit."""

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.observability.test_metrics import PAGES, PROGRESS
from unfreeze_api.contracts import series
from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.series import FIGURES, Figure
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.generate.tables import filled
from unfreeze_operator.status.training import gather

SKIPPED = Figure(name="skipped_samples", about="Samples that could not be read.", kind="Counter")
"""Of a field that stands in the status and has no row."""
PHASES = Figure(
    name="phase_seconds",
    about="Time that each phase took.",
    field="phases",
    read=lambda progress: {phase.name: phase.seconds for phase in progress.phases},
    label=series.TRAINING_PHASE,
)
"""Of one that does not, with a label."""
ENDED = {"name": "head", "steps": 3, "seconds": 7.5, "trainable_parameters": 8}
SAID = PROGRESS.model_copy(update={"skipped_samples": 4, "phases": Progress(phases=[ENDED]).phases})


@pytest.fixture
def told(monkeypatch):
    """Two rows more, and a training that has their figures."""
    monkeypatch.setattr(series, "FIGURES", (*FIGURES, SKIPPED, PHASES))
    monkeypatch.setattr("tests.observability.test_metrics.PROGRESS", SAID)


@pytest.mark.parametrize(("page", "prefix"), [("trainer", "unfreeze_training_"), ("operator", "unfreeze_job_")])
def test_a_row_is_a_series_of_each_page(page, prefix, told):
    families = {family.name: family for family in text_string_to_metric_families(PAGES[page]())}
    (counted,), (timed,) = (families[prefix + name].samples for name in ("skipped_samples", "phase_seconds"))
    assert (counted.name, counted.value) == (prefix + "skipped_samples_total", 4)
    assert (timed.labels["training_phase"], timed.value) == ("head", 7.5)
    assert families[prefix + "phase_seconds"].documentation == PHASES.about


def test_a_row_reaches_the_trackers(told):
    assert series.tracked(SAID).items() >= {"train/skippedSamples": 4, "phaseSeconds/head": 7.5}.items()


def test_a_row_of_the_status_stands_there():
    status = gather(FineTuneJobStatus(), None, SAID)
    assert (SKIPPED.in_status, status.progress.skipped_samples) == (True, 4)
    assert not PHASES.in_status


def test_a_row_is_told_in_the_document(told):
    text = filled("<!-- begin figures of pods -->\n<!-- end figures of pods -->\n")
    assert "| `unfreeze_training_skipped_samples_total` | | Samples that could not be read. |" in text
    assert "| `unfreeze_training_phase_seconds` | training_phase | Time that each phase took. |" in text


def test_what_trackers_are_told():
    assert series.tracked(PROGRESS) == {
        "train/loss": 0.5,
        "train/epoch": 0,
        "train/phase": 1,
        "train/samplesPerSecond": 10,
        "train/tokensPerSecond": 100,
        "train/rollbacks": 1,
        "learningRate/head": 1e-3,
    }


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.name}-{figure.field}")
def test_each_row_reads_a_field_that_there_is(figure):
    assert (figure.field or figure.name) in Progress.model_fields
    assert figure.about.endswith(".")
    list(figure.values(Progress()))
    list(figure.values(Progress(loss=1, step=1, checkpoint={"step": 1, "time": datetime.now(UTC)})))
