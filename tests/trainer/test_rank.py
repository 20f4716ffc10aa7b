"""`unfreeze rank`, and a job that chooses its base: by construction the right one is known."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tests.trainer.jobs import WORDS, bert_folder, make_job, timm_folder, write_csv
from tests.trainer.product import TASKS, write_inputs
from unfreeze_api.cli import main
from unfreeze_api.contracts.progress import JOB_FILE_ENV
from unfreeze_trainer.agent import choose
from unfreeze_trainer.agent.choose import chosen_before
from unfreeze_trainer.agent.pod import Pod
from unfreeze_trainer.data.samples import read_splits, read_texts, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.link import Link
from unfreeze_trainer.ranking.order import Measured, Ranking, ranked
from unfreeze_trainer.ranking.scores import Scores
from unfreeze_trainer.runs.choice import MEAN, Choice, read_choice, store_choice
from unfreeze_trainer.runs.generation import Generation, Superseded
from unfreeze_trainer.runs.recipe import open_recipe
from unfreeze_trainer.sources.wanted import relocated, sources_of

ROWS = 90
LABELS = 3
PROGRAM = "from unfreeze_api.cli import main; main()"


def base(folder: Path, known: slice, **config: int) -> Path:
    """Write a base that tells words of a part of WORDS from one another, and no others."""
    import torch
    from safetensors.torch import load_file, save_file

    bert_folder(folder, **config)
    weights = load_file(folder / "model.safetensors")
    words = weights["embeddings.word_embeddings.weight"]
    rows = words[5:].clone()
    words[5:] = rows[0]
    words[5:][known] = torch.randn(rows[known].shape, generator=torch.Generator().manual_seed(1))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module", name="here")
def inputs(tmp_path_factory) -> Path:
    """Write texts whose first word tells the label, a small base that knows these words, and a larger one that knows the others."""
    folder = tmp_path_factory.mktemp("rank")
    write_csv(folder / "texts.csv", rows=ROWS)
    base(folder / "right", slice(0, LABELS))
    base(folder / "wrong", slice(LABELS, None), hidden_size=128, num_hidden_layers=4)
    base(folder / "constant", slice(0, 0), hidden_size=64)
    timm_folder(folder / "pictures", "vit_tiny_patch16_224", depth=1, embed_dim=16, num_heads=2, img_size=32)
    return folder


def write_job(folder: Path, name: str, *bases: str, nodes: int = 1, **data: object) -> Path:
    spec = {
        "model": {"candidates": [{"source": base} for base in bases]},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 16}},
        "data": {"train": {"source": "texts.csv"}, "validation": {"fraction": 0.1}, **data},
        "strategy": {"type": "FeatureExtraction"},
        "training": {"epochs": 1, "batchSize": 10},
        "distribution": {"numNodes": nodes},
        "output": {"destination": f"run-{name}"},
    }
    job = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": spec}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
    return folder / f"{name}.yaml"


def rank(file: Path, *options: str) -> dict:
    found = CliRunner().invoke(main, ["rank", str(file), "-o", "json", *options], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def names(ranking: dict) -> list[str]:
    return [found["source"].rpartition("/")[2] for found in ranking["bases"]]


def without_times(ranking: dict) -> dict:
    return {**ranking, "bases": [{**found, "seconds": 0} for found in ranking["bases"]]}


@pytest.mark.slow
def test_the_right_domain_beats_a_larger_wrong_base_noise_wider_than_the_rows_and_constants(here):
    ranking = rank(write_job(here, "right", "wrong", "constant", "right"))
    assert names(ranking)[0] == "right"
    right, wrong, constant = (
        next(f for f in ranking["bases"] if f["source"].endswith(n)) for n in ("right", "wrong", "constant")
    )
    assert right["parameters"] < wrong["parameters"]
    assert (right["sizeRank"], wrong["sizeRank"]) == (3, 1)
    assert wrong["behindInterval"][0] > 0
    assert right["scores"]["knn"] > 0.9
    for base_ in (wrong, constant):  # 128 features of 81 rows, and features that hardly differ
        assert base_["scores"]["knn"] < 1 / 3 + 0.15
        assert base_["scores"]["logme"] < right["scores"]["logme"] / 5
        assert base_["scores"]["hScore"] < right["scores"]["hScore"] / 2


@pytest.mark.slow
def test_a_table_says_which_is_best_and_what_size_would_have_said(here):
    found = CliRunner().invoke(main, ["rank", str(write_job(here, "table", "wrong", "right")), "--rows", "40"])
    head, first, second, _, rows, *_, best = found.stdout.splitlines()
    assert head.split("   ")[0] == "BASE"
    assert "BY SIZE" in head
    assert (Path(first.split()[0]).name, Path(second.split()[0]).name) == ("right", "wrong")
    assert rows == "40 of 81 training rows, seed 0; the commonest label alone would tell 0.350."
    assert best.startswith(f"Best is file://{here}/right: its features tell ")
    assert not (here / "run-table").exists()


@pytest.mark.slow
def test_neither_test_nor_validation_data_is_looked_at(here, tmp_path):
    held_out = {"validation": {"source": "nowhere.csv"}, "test": {"source": "nothing.csv"}}
    ranking = rank(write_job(here, "trap", "wrong", "right", **held_out))
    assert (names(ranking)[0], ranking["trainingRows"]) == ("right", ROWS)
    shares = {"validation": {"fraction": 0.2}, "test": {"fraction": 0.2}}
    before = rank(write_job(here, "shares", "wrong", "right", **shares))
    job = make_job(here / "right", here / "texts.csv", data=shares)
    splits = read_splits(job, partial(read_texts, kind=target_kind(job)), target_kind(job))[1]
    lines = (here / "texts.csv").read_text().splitlines()
    for row in np.concatenate([splits["validation"].rows, splits["test"].rows]):
        lines[1 + row] = f"{WORDS[5]} {WORDS[5]}," + lines[1 + row].rpartition(",")[2]
    for name in ("wrong", "right"):
        (tmp_path / name).symlink_to(here / name)
    (tmp_path / "texts.csv").write_text("\n".join(lines) + "\n")
    after = rank(write_job(tmp_path, "shares", "wrong", "right", **shares))
    said = json.dumps(without_times(before)).replace(str(here), str(tmp_path))
    assert json.loads(said) == without_times(after)


@pytest.mark.slow
def test_what_is_wrong_with_candidates_is_said_of_all_before_anything_is_computed(here):
    def said(*arguments: str) -> str:
        found = CliRunner().invoke(main, [*arguments])
        assert found.exit_code == 2
        assert "ranking " not in found.output
        return found.output

    message = said("rank", str(write_job(here, "broken", "right", "missing", "pictures")))
    assert f"spec.model.candidates[1].source file://{here}/missing" in message
    assert f"spec.model.candidates[2].source file://{here}/pictures" in message
    assert "candidates[0]" not in message
    (here / "empty").mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (here / "empty" / name).write_bytes((here / "right" / name).read_bytes())
    message = said("rank", str(write_job(here, "tokens", "right", "empty")))
    assert f"InvalidModel: spec.model.candidates[1].source file://{here}/empty" in message
    message = said("phases", str(write_job(here, "phases", "right", "wrong")))
    assert "`unfreeze phases` needs one base, and the job chooses it when it starts" in message
    message = said("rank", str(write_job(here, "few", "right", data={"train": {"source": "texts.csv"}})))
    assert "unknown field" in message


def test_a_job_that_names_its_base_is_not_ranked(tmp_path):
    write_csv(tmp_path / "texts.csv")
    file = write_job(tmp_path, "named")
    file.write_text(file.read_text().replace("candidates: []", "source: right"))
    found = CliRunner().invoke(main, ["rank", str(file)])
    assert (found.exit_code, "spec.model.candidates is not set" in found.output) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    sorted(
        {
            "TextClassification",
            "ImageClassification",
            "PictureTransformer",
            "AudioClassification",
            "TextRegression",
            "MultiLabel",
        }
        & TASKS.keys()
    ),
)
def test_every_task_with_targets_of_its_samples_can_be_ranked(task, whole):
    from tests.trainer.product import PLACES, spec_of
    from unfreeze_trainer.ranking.rank import rank as rank_here

    model, data = PLACES[task]
    spec = spec_of({"task": task})
    job = make_job(
        whole / model,
        whole / data,
        **{**spec, "model": {"source": None, "candidates": [{"source": f"file://{whole}/{model}"}]}},
    )
    [found] = rank_here(job).bases
    assert len(found.places) > 2
    assert all(np.isfinite([one.knn, one.logme, one.h_score]).all() for one in found.places.values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def candidates(folder: Path, *bases: str):
    model = {"source": None, "candidates": [{"source": f"file://{folder}/{base}"} for base in bases]}
    return make_job("/none", folder / "texts.csv", model=model, output={"destination": f"file://{folder}/run"})


def ranking_of(source: str) -> Ranking:
    rows = (np.arange(50) % 2).astype(float)
    places = {MEAN: Scores(0.5, 0.1, 0.1, rows), "layer.0": Scores(0.5, 0.1, 0.1, rows)}
    return Ranking(bases=ranked([Measured(source, places, 1, 1.0)]), rows=50, training_rows=50, seed=0, guess=0.1)


def choice(job, source: str) -> Choice:
    found = ranking_of(source)
    return Choice(fingerprint=job.fingerprint(), source=source, decision=found.decision, ranking={})


def test_a_choice_changes_neither_the_run_nor_where_its_base_lies(tmp_path):
    job = candidates(tmp_path, "one", "two")
    chosen = job.with_base(f"file://{tmp_path}/two")
    assert chosen.model.path == f"{tmp_path}/two"
    assert chosen.fingerprints() == job.fingerprints()
    assert (job.schema_version, candidates(tmp_path, "two", "one").fingerprint() == job.fingerprint()) == (2, False)
    open_recipe(job).store(Generation.take(tmp_path / "run"))
    assert open_recipe(chosen).fingerprint == job.fingerprint()


def test_every_candidate_is_brought_until_one_is_chosen(tmp_path):
    job = candidates(tmp_path, "one", "two")
    one, two = job.model.candidates
    assert [wanted.source for wanted in sources_of(job) if wanted.is_model] == [one, two]
    assert [wanted.field for wanted in sources_of(job)][1] == "spec.model.candidates[1].source"
    brought = relocated(job, {two: "/cache/two"})
    assert brought.with_base(two).model.path == "/cache/two"
    assert [wanted.source for wanted in sources_of(brought.with_base(two)) if wanted.is_model] == [two]


def test_a_recipe_has_the_base_where_this_start_has_it(tmp_path):
    job = candidates(tmp_path, "one", "two")
    open_recipe(job.with_base(f"file://{tmp_path}/two")).store(Generation.take(tmp_path / "run"))
    moved = job.model_copy(update={"model": job.model.model_copy(update={"candidate_paths": ["/a", "/b"]})})
    assert open_recipe(moved).job.model.path == "/b"


def test_other_pods_wait_for_the_choice_of_pod_0_and_later_starts_keep_to_it(tmp_path):
    (tmp_path / "link").mkdir()
    job, link = candidates(tmp_path, "one", "two"), Link(tmp_path / "link")
    start, stopping = open_recipe(job), threading.Event()

    def asked(index: int):
        return chosen_before(job, start, Pod(index, "", 0, tmp_path / "job.json", tmp_path / "log"), link, stopping)

    assert asked(0) is job
    stopping.set()
    assert asked(1) is None
    stopping.clear()
    two = f"file://{tmp_path}/two"
    store_choice(choice(job, two), Generation.take(tmp_path / "run"), tmp_path / "run")
    assert [asked(index).model.source for index in (0, 1)] == [two, two]
    assert read_choice(tmp_path / "run", "of another run") is None
    named = make_job("/none", "/none.csv")
    assert chosen_before(named, start, Pod(1, "", 0, tmp_path, tmp_path), link, stopping) is named


def test_a_choice_that_was_made_by_other_data_says_so(tmp_path):
    """The base lies in the recipe of the run by then: the folder keeps to it, and does not pass it off as that of the new data."""
    chosen = choice(candidates(tmp_path, "one", "two"), f"file://{tmp_path}/two")
    opened = chosen.model_copy(update={"train": {"sha256": "1"}})
    assert chosen.beside({"sha256": "2"}) == opened.beside({"sha256": "1"}) == chosen.decision
    other = opened.beside({"sha256": "2"})
    assert (other.answer, other.warning) == ("two", True)
    assert other.message.endswith(
        "; the training data has changed since: to choose anew take another output.destination"
    )


def test_a_pod_that_was_replaced_while_it_ranked_leaves_the_folder_to_its_replacement(tmp_path, monkeypatch):
    """Its node is cut off for long enough that another pod 0 has chosen, and trains, when it has ranked."""
    (tmp_path / "link").mkdir()
    job, run, newer = candidates(tmp_path, "one", "two"), tmp_path / "run", []
    one, two = job.model.candidates
    monkeypatch.setenv(JOB_FILE_ENV, "")

    def chosen(rank):
        monkeypatch.setattr(choose, "_ranked", rank)
        take, link = cache(lambda: Generation.take(run)), Link(tmp_path / "link")
        return choose.choose(job, link, fingerprint=job.fingerprint(), stopping=threading.Event(), take=take)

    def late(*_):
        newer.append(Generation.take(run))
        store_choice(choice(job, two), newer[0], run)
        return ranking_of(one)

    assert chosen(late).model.source == two
    newer[0].check()  # still has the right to write
    assert read_choice(run, job.fingerprint()).source == two
    assert chosen(None).model.source == two  # nothing is ranked again


def test_a_pod_that_was_replaced_before_anybody_has_chosen_does_not_choose(tmp_path, monkeypatch):
    job, run = candidates(tmp_path, "one", "two"), tmp_path / "run"
    take, link = cache(lambda: Generation.take(run)), Link(tmp_path)

    def late(*_):
        Generation.take(run)
        return ranking_of(job.model.candidates[0])

    monkeypatch.setattr(choose, "_ranked", late)
    with pytest.raises(Superseded):
        choose.choose(job, link, fingerprint=job.fingerprint(), stopping=threading.Event(), take=take)
    assert read_choice(run, job.fingerprint()) is None


def test_a_task_that_cannot_be_ranked_is_refused_by_name(tmp_path):
    from unfreeze_trainer.ranking.candidates import require_rankable

    job = candidates(tmp_path, "one").model_copy(
        update={"task": make_job("/n", "/n", task={"type": "TokenClassification"}).task}
    )
    with pytest.raises(JobError, match="bases of TokenClassification cannot be ranked"):
        require_rankable(job)


def run(file: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "run", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = file.parent / f"run-{file.stem}"
    report = json.loads((folder / "report.json").read_text())
    report["events"] = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return report


@pytest.mark.slow
def test_a_job_chooses_the_same_base_in_two_pods_says_so_and_keeps_to_it_after_a_stop(here):
    ranking = rank(file := write_job(here, "job", "wrong", "right", nodes=2))
    report = run(file)
    [decision] = [one for one in report["decisions"] if one["type"] == "Base"]
    assert (decision["answer"], report["base"]["source"]) == ("right", f"file://{here}/right")
    kinds = [event["event"] for event in report["events"]]
    assert kinds.index("ranking") < kinds.index("start")
    assert [event["answer"] for event in report["events"] if event.get("type") == "Base"] == ["right"]
    [event] = [event for event in report["events"] if event["event"] == "ranking"]
    assert without_times(event["ranking"]) == without_times(ranking)
    other, pinned = write_job(here, "other", "wrong", "right"), here / "run-other"
    stored = (here / "run-job" / "ranking.json").read_text()
    pinned.mkdir()  # as a run that was killed before its first checkpoint has left it, had it chosen the other base
    (pinned / "ranking.json").write_text(json.dumps({**json.loads(stored), "source": f"file://{here}/wrong"}))
    again = run(other)
    assert again["base"]["source"] == f"file://{here}/wrong"
    assert "ranking" not in [event["event"] for event in again["events"]]
