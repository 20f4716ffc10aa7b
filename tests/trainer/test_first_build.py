"""A run that the first build of Unfreeze wrote half-way resumes here, and ends as it would have ended there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import first_build
from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import assert_as_undisturbed, events, finished
from tests.trainer.jobs import bert_folder, make_job, write_csv
from unfreeze_trainer.agent.finished import finished_before
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.runs.recipe import open_recipe
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

STRATEGIES = {
    "FeatureExtraction": {"type": "FeatureExtraction"},
    "GradualUnfreezing": {"type": "GradualUnfreezing", "gradualUnfreezing": {"stepsPerPhase": 3}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder with NAME-whole and NAME-half of each strategy, as the first build leaves them."""
    folder = tmp_path_factory.mktemp("first-build")
    build = first_build.extract(folder / "build")
    bert_folder(folder / "encoder")
    (
        folder / "encoder" / "1_Pooling"
    ).mkdir()  # as an encoder of sentences has it: that build's heads read something else
    (folder / "encoder" / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    files = []
    for name in STRATEGIES:
        known = {"everySteps": 3, "afterSuccess": None}  # that build refuses a field that it does not know
        (folder / f"{name}.json").write_text(job_of(name, folder, "none", checkpoint=known).to_json())
        files.append(folder / f"{name}.json")
    command = [sys.executable, Path(__file__).with_name("runs_of_first_build.py"), folder, *files]
    done = subprocess.run(
        command, env=first_build.environment(build), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def job_of(name, folder, run, **training):
    return make_job(
        folder / "encoder",
        write_csv(folder / "texts.csv"),
        strategy=STRATEGIES[name],
        training={"epochs": 3, "checkpoint": {"everySteps": 3}} | training,
        output={"destination": f"file://{folder}/{run}"},
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_of_the_first_build_ends_here_as_it_would_have_there(runs, name, caplog):
    half = runs / f"{name}-half"
    assert not (half / "recipe.json").exists()
    assert json.loads((half / "checkpoints/step-6/manifest.json").read_text())["fingerprint"].isalnum()
    resume(job_of(name, runs, half.name))
    assert [event["step"] for event in events(half, "start")] == [0, 6]
    assert_as_undisturbed(half, finished(runs / f"{name}-whole"))
    exported = [(runs / f"{name}-{run}" / "model" / "model.safetensors").read_bytes() for run in ("half", "whole")]
    assert exported[0] == exported[1]
    said = [record.message for record in caplog.records if "resumes as that version trained" in record.message]
    assert len(said) == 1
    assert "weights Float32, pooling Architecture, dropout Everywhere, features Computed" in said[0]
    recipe = json.loads((half / "recipe.json").read_text())
    assert recipe["fingerprint"] == json.loads((half / "report.json").read_text())["fingerprint"]


def test_a_finished_run_of_the_first_build_is_finished_here(runs):
    assert finished_before(job_of("FeatureExtraction", runs, "FeatureExtraction-whole")).activity == "Done"


def test_another_job_is_refused_as_ever(runs):
    from unfreeze_trainer.errors import JobError

    with pytest.raises(JobError, match="belongs to another job"):
        resume(job_of("FeatureExtraction", runs, "FeatureExtraction-whole", seed=1))


def resume(job):
    forget_accelerate()
    job = open_recipe(job).job
    task = open_task(job)
    task.verify_export = lambda *_: None  # a fresh Python each time
    complete(Run(job, task, task.build_model(), open_engine(job), None))
