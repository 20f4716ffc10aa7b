"""report.json of a finished run, as another version or a broken disk has left it: what is finished is not trained again."""

import json
from datetime import UTC, datetime

import pytest

from tests.support.newer import planted
from tests.trainer.jobs import make_job
from unfreeze_api.contracts.budget import MAX_PROGRESS_BYTES
from unfreeze_api.contracts.progress import PhaseResult
from unfreeze_api.contracts.report import DataReport, Export, Pinned, Report, Results, World
from unfreeze_trainer.agent.finished import finished_before
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.report import finished_progress, read_report

REPORT = Report(
    job="default/job",
    fingerprint="f",
    finished=datetime(2026, 1, 1, tzinfo=UTC),
    seconds=1,
    strategy="FullFineTuning",
    metric="accuracy",
    best_step=6,
    results=Results(validation={"accuracy": 0.9}, test={"accuracy": 0.8}),
    phases=[],
    exports=[Export(kind="Model", folder="model")],
    base=Pinned(source="file:///base", pins={"files": {}}),
    data=DataReport(sources={}, splits={"train": 18}, labels=["a", "b"]),
    world=World(world_size=1, nodes=1, engine="DDP", device="cpu", precision="float32"),
    versions={"unfreeze": "9"},
)


def write(folder, **change):
    (folder / "report.json").write_text(json.dumps(planted(json.loads(REPORT.to_json())) | change))


def test_what_a_later_version_reports_besides_is_ignored(tmp_path):
    assert read_report(tmp_path) is None
    write(tmp_path, exports=[{"kind": "Quantized", "folder": "small"}], outcome="NotWorthIt")
    report = read_report(tmp_path)
    assert report.exports == [Export(kind="Quantized", folder="small")]
    assert finished_progress(report).results == {"validation.accuracy": 0.9, "test.accuracy": 0.8}


@pytest.mark.parametrize(
    ("change", "message"), [({"schemaVersion": 2}, "schemaVersion: Input should be 1"), ({"results": 1}, "results: ")]
)
def test_one_that_cannot_be_read_is_no_reason_to_train_again(tmp_path, change, message):
    write(tmp_path, **change)
    job = make_job("/none", "/none.csv", output={"destination": f"file://{tmp_path}"})
    with pytest.raises(JobError, match=message) as caught:
        finished_before(job)
    assert caught.value.reason == "ForeignRunFolder"
    assert "is finished, and its report.json cannot be read" in caught.value.message
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(JobError, match=r"cannot be read \(Invalid JSON: EOF"):
        finished_before(job)


def test_of_many_phases_progress_has_the_newest():
    metrics = {"accuracy": 0.5, "macroF1": 0.25}
    phases = [
        PhaseResult(name=f"layer.{number}", steps=2, seconds=1, trainable_parameters=3, metrics=metrics)
        for number in range(500)
    ]
    report = REPORT.model_copy(update={"phases": phases, "results": Results(validation=metrics, test=metrics)})
    told = finished_progress(report)
    assert told.phases == phases[-64:]
    assert (told.step, told.phase_count) == (1000, 500)
    assert told.results == {
        f"{split}.{name}": value for split in ("validation", "test") for name, value in metrics.items()
    }
    assert len(told.to_json()) < MAX_PROGRESS_BYTES
