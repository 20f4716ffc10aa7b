"""The notebook of the examples, cell by cell: a job is built, run on this machine, and its model asked."""

import json
import shutil

import pytest

import unfreeze
from examples.prepare import prepare
from tests.cluster.cluster import REPOSITORY
from unfreeze_api.contracts.report import Report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOTEBOOK = REPOSITORY / "examples/python.ipynb"


def cells():
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    return ["".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code"]


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
    shutil.copytree(tmp_path / ".demo/data", tmp_path / "other")
    wrong = unfreeze.job(
        "wrong", model=tmp_path / ".demo/models/minilm", task="TextClassification", train="../other/trec-test.csv"
    )
    with pytest.raises(unfreeze.JobFailed, match=r"no column 'text'\. The columns are 'question', 'label'") as raised:
        unfreeze.run(wrong)
    assert raised.value.reason == "InvalidData"
