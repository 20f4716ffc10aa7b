"""report.json has all of a run; what /progress has no place for is told there alone."""

from datetime import UTC, datetime

from unfreeze_api.budget import MAX_PROGRESS_BYTES
from unfreeze_api.progress import PhaseResult
from unfreeze_api.report import DataReport, Pinned, Report, Results, World
from unfreeze_trainer.report import finished_progress


def test_of_many_phases_progress_has_the_newest():
    metrics = {"accuracy": 0.5, "macroF1": 0.25}
    phases = [
        PhaseResult(name=f"layer.{number}", steps=2, seconds=1, trainable_parameters=3, metrics=metrics)
        for number in range(500)
    ]
    report = Report(
        job="ns/job",
        fingerprint="f",
        finished=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=500,
        strategy="GradualUnfreezing",
        metric="accuracy",
        best_step=7,
        results=Results(validation=metrics, test=metrics),
        phases=phases,
        exports=[],
        base=Pinned(source="file:///model"),
        data=DataReport(sources={}, splits={}, labels=[]),
        world=World(world_size=1, nodes=1, engine="DDP", device="cpu", precision="Float32"),
        versions={},
    )
    told = finished_progress(report)
    assert told.phases == phases[-64:]
    assert (told.step, told.phase_count) == (1000, 500)
    assert told.results == {
        f"{split}.{name}": value for split in ("validation", "test") for name, value in metrics.items()
    }
    assert len(told.to_json()) < MAX_PROGRESS_BYTES
