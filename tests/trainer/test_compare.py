"""`unfreeze compare`: finished runs side by side, and whether they may be compared."""

import base64
import hashlib
import json
import re

import pytest
from click.testing import CliRunner

from tests.trainer.test_report import REPORT
from unfreeze_api.cli import main
from unfreeze_api.contracts.progress import PhaseResult

PINS = {name: {"source": "file:///t.csv", "sha256": "1", "rows": 9} for name in ("train", "validation", "test")}


@pytest.fixture
def run(tmp_path):
    """A function that writes a finished run and returns its folder."""

    def write(name, *, accuracy=0.8, sources=("train", "test"), seed=0, pins=None, results=None, **change):
        data = REPORT.data.model_copy(
            update={
                "pins": PINS | (pins or {}),
                "splits": {"train": 5, "validation": 3, "test": 4},
                "sources": dict.fromkeys(sources, "file:///t.csv"),
                "held_out_seed": seed,
            }
        )
        figures = (
            {"validation": {"accuracy": 0.5, "loss": 1.0}, "test": {"accuracy": accuracy}}
            if results is None
            else results
        )
        results = REPORT.results.model_copy(update=figures)
        phases = [PhaseResult(name="head", steps=1, seconds=1, trainable_parameters=count) for count in (7, 1200)]
        folder = tmp_path / name
        folder.mkdir(parents=True)
        report = REPORT.model_copy(update={"data": data, "results": results, "phases": phases, **change})
        (folder / "report.json").write_text(report.to_json())
        return str(folder)

    return write


def compare(*arguments):
    done = CliRunner().invoke(main, ["compare", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_best_by_the_test_metric_stands_first(run):
    code, out, err = compare(run("probe", accuracy=0.7), run("full", accuracy=0.9), run("none", accuracy=0.8))
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert (code, err, rows) == (0, "", ["full", "none", "probe"])
    assert "validation accuracy" in out
    assert "1,200" in out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pins": {"test": {"sha256": "2"}}}, "other was not measured on the same test rows as first"),
        ({"pins": {"test": None}}, "do not both say which rows of test"),
        ({"metric": "loss"}, "other chose its best step by loss, first by accuracy"),
        (
            {"results": {"test": {}, "validation": {"accuracy": 0.5}}},
            "not every run has been measured on test data: validation decides",
        ),
    ],
)
def test_what_speaks_against_comparing_is_said(run, change, said):
    code, _, err = compare(run("first"), run("other", **change))
    assert (code, said in err) == (0, True), err


@pytest.mark.parametrize(
    ("seed", "doubts"), [(0, []), (1, ["other was not measured on the same validation rows as first"])]
)
def test_another_seed_holds_out_other_rows(run, seed, doubts):
    validation = {"results": {"test": {}, "validation": {"accuracy": 0.5}}}
    code, out, _ = compare("--output", "json", run("first", **validation), run("other", seed=seed, **validation))
    assert (code, json.loads(out)["warnings"]) == (0, doubts)


def test_a_lower_loss_is_better(run):
    runs = [
        run(name, metric="loss", results={"validation": {"loss": loss}, "test": {"loss": loss}})
        for name, loss in (("worse", 2.0), ("better", 1.0))
    ]
    found = json.loads(compare("--output", "json", *runs)[1])["runs"]
    assert [one["run"] for one in found] == ["better", "worse"]
    assert found[0]["trainedParameters"] == 1200


def test_small_errors_are_told_apart_and_the_worst_has_no_longest_bar(run, tmp_path):
    runs = [
        run(name, metric="rmse", results={"validation": {"rmse": error}, "test": {"rmse": error}})
        for name, error in (("better", 2.5e-5), ("worse", 0.8))
    ]
    assert re.search(r"better .* 2.5e-05", compare(*runs)[1])
    assert compare("--html", str(tmp_path / "page.html"), *runs)[0] == 0
    assert "has the best test rmse, 2.5e-05" in (page := (tmp_path / "page.html").read_text())
    assert "<rect" not in page


def test_folders_of_one_name_are_told_apart(run):
    found = json.loads(compare("--output", "json", run("a/run"), run("b/run"))[1])["runs"]
    assert {one["run"] for one in found} == {"a/run", "b/run"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "has no report.json: the run has not ended well yet"),
        ("{", "is no report of a run: Invalid JSON"),
        ('{"schemaVersion": 1}', "is no report of a run: job: Field required"),
    ],
)
def test_what_is_no_run_is_named(run, tmp_path, text, said):
    folder = tmp_path / "no-run"
    folder.mkdir()
    if text is not None:
        (folder / "report.json").write_text(text)
    code, out, err = compare(run("first"), str(folder))
    assert (code, out, said in err) == (1, "", True), err


def test_no_figure_is_cut_off(run, monkeypatch):
    names = ("accuracy", "macroF1", "balancedAccuracy", "auroc", "mcc", "brier", "ece", "loss")
    figures = {split: {name: number + 0.1234 for number, name in enumerate(names)} for split in ("validation", "test")}
    folder = run("first", results=figures)
    out = compare(folder)[1]
    assert all(f"{split} {name}" in out and f"{figures[split][name]:.4f}" in out for split in figures for name in names)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    _, narrow, said = compare(folder)
    assert (narrow.count("0.1234"), "…" in narrow, "too narrow for all metrics" in said) == (2, False, True), narrow


BAD = "<script>document.title='<b>'</script>"


def test_the_page_holds_what_is_known_and_nothing_comes_to_life(run, tmp_path):
    file = tmp_path / "pages" / "compare.html"
    bad = {"job": f"default/{BAD}", "warnings": [BAD], "base": REPORT.base.model_copy(update={"source": BAD})}
    code, _, err = compare(run("full", accuracy=0.9), run("a<img src=x>", accuracy=0.7, **bad), "--html", str(file))
    assert (code, err) == (0, "")
    text = file.read_text()
    assert "full has the best test accuracy, 0.9000; the next one is a&lt;img src=x&gt; with 0.7000." in text
    assert "&lt;script&gt;document.title=" in text
    assert not re.search(r"<(script|img|link|iframe|object|a|base)\b|\s(src|href|style|on\w+)=[\"']", text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text.replace("&#39;", "'")
    assert "url(" not in style
    assert len(text) < 20_000
    assert [path.name for path in file.parent.iterdir()] == ["compare.html"]


def test_the_page_says_what_speaks_against_it(run, tmp_path):
    file = tmp_path / "compare.html"
    other = run("other", results={"test": {}, "validation": {"accuracy": 0.5}})
    compare("--html", str(file), run("first"), other)
    text = file.read_text()
    assert '<p class="note">not every run has been measured on test data: validation decides</p>' in text
    assert "have the same validation accuracy, 0.5000" in text
