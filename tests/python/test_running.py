"""The notebook of the examples, cell by cell: a job is built, run on this machine, and its model asked."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import unfreeze
from examples.prepare import prepare
from tests.cluster.cluster import REPOSITORY
from unfreeze_api.cli import main
from unfreeze_api.contracts.report import Report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOTEBOOK = REPOSITORY / "examples/python.ipynb"


def cells():
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    return ["".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code"]


def asked_again(run, test, result):
    """`unfreeze predict` and `unfreeze evaluate` say of the test data what the run has left of it."""
    done = CliRunner().invoke(main, ["predict", str(run), str(test), "--format", "jsonl"])
    said = [json.loads(line) for line in done.stdout.splitlines()]
    left = pq.read_table(run / "predictions" / "test.parquet")
    assert [row["prediction"] for row in said] == left["prediction"].to_pylist()
    assert [row["row"] for row in said] == left["row"].to_pylist()
    assert np.allclose([row["probabilities"] for row in said], left["probabilities"].to_pylist(), atol=1e-6)
    done = CliRunner().invoke(main, ["evaluate", str(run), str(test), "--output", "json"])
    found = json.loads(done.stdout)
    assert found["metrics"] == pytest.approx(result.metrics["test"], rel=1e-5)
    assert found["usefulness"]["better"] in (True, False)


def test_the_notebook_runs_as_it_lies_there(tmp_path, monkeypatch, capsys):
    prepare(tmp_path / ".demo")
    for name in ("trec-train-1000", "trec-test"):  # the same questions, but fewer
        file = tmp_path / ".demo/data" / f"{name}.csv"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:120]))
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    names = {}
    for cell in cells():
        exec(compile(cell, str(NOTEBOOK), "exec"), names)
    said = capsys.readouterr().out
    assert "spec.task.type: did you mean TextClassification?" in said
    result = names["result"]
    assert isinstance(result.report, Report)
    assert result.metrics["test"] == result.report.results.test
    assert result.model == tmp_path / ".demo/questions-run/model"
    assert unfreeze.result(tmp_path / ".demo/questions-run") == result
    assert said.strip().splitlines()[-1].startswith("[{'label': ")
    asked_again(tmp_path / ".demo/questions-run", tmp_path / ".demo/data/trec-test.csv", result)
    shutil.copytree(tmp_path / ".demo/data", tmp_path / "other")
    wrong = unfreeze.job(
        "wrong", model=tmp_path / ".demo/models/minilm", task="TextClassification", train="../other/trec-test.csv"
    )
    with pytest.raises(unfreeze.JobFailed, match=r"no column 'text'\. The columns are 'question', 'label'") as raised:
        unfreeze.run(wrong)
    assert raised.value.reason == "InvalidData"
