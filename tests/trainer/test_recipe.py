"""A run keeps the recipe that it began with, and a run folder belongs to one recipe."""

import json
import logging

import pytest

from tests.trainer.complete import complete
from tests.trainer.interrupted import assert_as_undisturbed, cut_off, job_in, run_in
from tests.trainer.mlp import MLPTask
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer import tasks
from unfreeze_trainer.agent.finished import finished_before
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.generation import Generation
from unfreeze_trainer.runs.recipe import open_recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def stored(folder):
    return json.loads((folder / "recipe.json").read_text())


def rewrite(folder, change):
    recipe = stored(folder)
    change(recipe)
    (folder / "recipe.json").write_text(json.dumps(recipe))


@pytest.fixture
def half(tmp_path):
    """A run folder with a checkpoint of step 4."""
    cut_off(tmp_path / "run", 5)
    return tmp_path / "run"


def test_the_whole_recipe_is_stored_before_the_first_checkpoint(tmp_path):
    run_in(tmp_path)
    recipe, job = stored(tmp_path), job_in(tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    assert recipe["fingerprint"] == job.fingerprint()
    assert recipe["job"]["training"]["weightDecay"] == 0.01
    assert recipe["job"]["strategy"]["learningRate"]["warmupRatio"] == 0.06
    assert recipe["job"]["semantics"]["order"] == "Permutation"
    assert not {"name", "distribution", "tracking", "hangTimeoutSeconds"} & recipe["job"].keys()
    assert "path" not in recipe["job"]["model"]
    assert "checkpoint" not in recipe["job"]["training"]
    assert "torch" in recipe["versions"]


def test_a_job_that_has_its_recipe_already_may_be_opened_again(half):
    """As agent, worker and run do, one after the other; whatever the stored recipe lacks, or had by default."""

    def of_an_earlier_version(recipe):
        del recipe["job"]["semantics"]
        recipe["job"]["training"]["weightDecay"] = 0.5

    rewrite(half, of_an_earlier_version)
    start = open_recipe(job_in(half))
    assert start.job.semantics.pictures == "AsConverted"
    assert start.job.data.train.label_names == {}, "numbers of labels stay numbers"
    assert open_recipe(start.job) == start


def test_a_run_without_recipe_may_be_opened_again(half):
    (half / "recipe.json").unlink()
    for manifest in half.glob("checkpoints/*/manifest.json"):
        earlier = {"fingerprint": job_in(half).fingerprints()[-1]}
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | earlier))
    start = open_recipe(job_in(half))
    assert start.job.semantics.pictures == "AsConverted"
    assert (start.began_earlier, open_recipe(start.job)) == (True, start)


def test_a_later_start_takes_its_recipe_from_the_folder_and_the_rest_from_the_job(half):
    def earlier_default(recipe):
        recipe["job"]["training"]["weightDecay"] = 0.5
        recipe["job"]["strategy"]["learningRate"]["warmupRatio"] = 0.25

    rewrite(half, earlier_default)
    job = job_in(half, checkpoint={"everySteps": 1}, gradientAccumulationSteps=2)
    job = job.model_copy(update={"name": "renamed", "hang_timeout_seconds": 77})
    start = open_recipe(job)
    assert start.stored
    assert start.job.training.weight_decay == 0.5
    assert start.job.strategy.learning_rate.warmup_ratio == 0.25
    assert (start.job.name, start.job.hang_timeout_seconds) == ("renamed", 77)
    assert (start.job.training.checkpoint.every_steps, start.job.training.gradient_accumulation_steps) == (1, 2)
    assert start.job.output.path == str(half)


def test_a_recipe_that_a_later_version_resolves_otherwise_is_still_this_jobs(half):
    """The fingerprint of that version's format differs; what the job says is what the folder says."""
    rewrite(half, lambda recipe: recipe.update(fingerprint="0-of-another-format"))
    assert open_recipe(job_in(half)).fingerprint == "0-of-another-format"


def test_a_run_resumes_with_the_fingerprint_of_its_folder(half, undisturbed):
    earlier = job_in(half).fingerprints()[-1]
    rewrite(half, lambda recipe: recipe.update(fingerprint=earlier))
    for manifest in half.glob("checkpoints/*/manifest.json"):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"fingerprint": earlier}))
    complete(run_in(half))
    assert_as_undisturbed(half, undisturbed)
    assert json.loads((half / "report.json").read_text())["fingerprint"] == earlier
    assert {json.loads(file.read_text())["fingerprint"] for file in half.glob("checkpoints/*/manifest.json")} == {
        earlier
    }
    assert finished_before_of(half) is not None


def finished_before_of(folder):
    task = MLPTask()
    task.pins["base"]["source"] = job_in(folder).model.source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "open_task", lambda _: task)
        return finished_before(job_in(folder))


def test_another_job_is_told_what_differs(half):
    with pytest.raises(JobError, match=r"there training\.epochs is 8\.0 and not 9\.0\. Choose another") as raised:
        open_recipe(job_in(half, epochs=9))
    assert raised.value.reason == "ForeignRunFolder"


def test_a_folder_in_which_nothing_was_trained_takes_another_recipe(tmp_path):
    run_in(tmp_path)
    before = stored(tmp_path)["fingerprint"]
    run_in(tmp_path, epochs=9)
    assert stored(tmp_path)["fingerprint"] == job_in(tmp_path, epochs=9).fingerprint() != before


@pytest.mark.parametrize(
    "change",
    [
        lambda recipe: recipe["job"].update(unheard=1),
        lambda recipe: recipe["job"]["semantics"].update(pooling="Unheard"),
        lambda recipe: recipe.update(format=99),
    ],
)
def test_a_run_of_a_later_version_is_left_alone(half, change):
    rewrite(half, change)
    before = (half / "recipe.json").read_bytes()
    with pytest.raises(JobError, match="with the version that wrote it") as raised:
        open_recipe(job_in(half))
    assert raised.value.reason == "ForeignRunFolder"
    assert (half / "recipe.json").read_bytes() == before


def test_a_damaged_recipe_does_not_lose_the_run(half, undisturbed, caplog):
    (half / "recipe.json").write_text('{"format": 1, "fing')
    complete(run_in(half))
    assert_as_undisturbed(half, undisturbed)
    assert "recipe.json cannot be read" in caplog.text
    assert stored(half)["fingerprint"] == job_in(half).fingerprint()


def test_how_a_run_without_a_recipe_resumes_is_said_once(half, caplog):
    """As the first build left it; tests/trainer/test_first_build.py has real ones."""
    (half / "recipe.json").unlink()
    earlier = job_in(half).fingerprints()[-1]
    for manifest in half.glob("checkpoints/*/manifest.json"):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"fingerprint": earlier}))
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        run_in(half)
    assert caplog.text.count("resumes as that version trained") == 1
    assert stored(half)["fingerprint"] == earlier


def test_every_rank_gets_the_same_recipe_before_and_after_it_is_stored(half):
    job = job_in(half)
    (half / "recipe.json").unlink()
    before = open_recipe(job)
    before.store(Generation.take(half))
    after = open_recipe(job)
    assert (after.job, after.fingerprint) == (before.job, before.fingerprint)
    assert isinstance(after.job, ResolvedJob)


def test_an_export_that_is_missing_is_written_from_the_best_checkpoint(half):
    complete(run_in(half))
    report = json.loads((half / "report.json").read_text())
    rewritten = report | {"exports": [{"kind": "Merged", "folder": "model"}]}
    (half / "report.json").write_text(json.dumps(rewritten))
    assert finished_before_of(half) is None
    for folder in half.glob(f"checkpoints/step-{report['bestStep']}/*"):
        folder.unlink()
    (half / "checkpoints" / f"step-{report['bestStep']}").rmdir()
    with pytest.raises(JobError, match="finished without the export Model, and its best checkpoint is gone"):
        finished_before_of(half)
