"""What rows of the data hold stays in the pod's log: status, Events and others' logs get rows and columns."""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder
from unfreeze_trainer import forks
from unfreeze_trainer.data.images import read_images
from unfreeze_trainer.data.samples import read_splits, read_texts
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.tokens import TextError
from unfreeze_trainer.errors import HIDDEN, SHOW_VALUES_ENV, JobError, one_line_told, quoted, told_of
from unfreeze_trainer.link import Link
from unfreeze_trainer.models import export
from unfreeze_trainer.objectives.targets.labels import Labels
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.worker import _tell

SECRET = "Jane Roe, born 1970"
GOOD = "\n".join(f"text {number},{number % 2}" for number in range(8))
TABLES = {
    "a header that was left out": ("t.csv", f'"{SECRET}",a\nx,b\n', "no column 'text'."),
    "a row with more cells": ("t.csv", f"text,label\n{GOOD}\n{SECRET},a\n", "row 9 has 3 cells, the header 2"),
    "labels that are numbers": (
        "t.csv",
        "text,label\nx,19.75\ny,2.5\n",
        "column 'label' holds numbers with a fraction",
    ),
    "one label": ("t.csv", f'text,label\nx,"{SECRET}"\ny,"{SECRET}"\n', "all 2 samples have the label"),
    "a line that is no JSON": ("t.jsonl", f"{SECRET}\n", "line 1 is not JSON"),
    "a line that is no object": ("t.jsonl", f'"{SECRET}"\n', "line 1 is no JSON object"),
    "a value of another type": (
        "t.jsonl",
        f'{{"text": "x", "label": 1}}\n{{"text": "x", "label": "{SECRET}"}}\n',
        "line 2, column 'label' is",
    ),
    "a header that was left out, without a comma": ("t.csv", "Jane Roe;1970\nx;b\n", "has no comma"),
    "half of a character": ("t.jsonl", '{"text": "Jane \\ud800", "label": 1}\n', "line 1, column 'text' is"),
    "a large number": ("t.jsonl", f'{{"text": "x", "label": 1970{"0" * 20}}}\n', "line 1, column 'label' is"),
    "a list": ("t.jsonl", f'{{"text": ["{SECRET}"], "label": 1}}\n', "line 1, column 'text' is"),
}


@pytest.fixture(autouse=True)
def hidden(monkeypatch):
    monkeypatch.delenv(SHOW_VALUES_ENV, raising=False)


def failed(call) -> JobError:
    with pytest.raises(JobError) as raised:
        call()
    return raised.value


def values_in(text: str) -> list[str]:
    return [part for part in (SECRET, "Jane", "1970", "19.75") if part in text]


@pytest.mark.parametrize("name", TABLES)
def test_messages_name_the_row_and_the_log_has_the_quote(tmp_path, name):
    file, text, says = TABLES[name]
    (tmp_path / file).write_text(text)
    error = failed(lambda: read_splits(make_job("/none", tmp_path / file), read_texts, Labels))
    message, tail = told_of(error)
    assert says in message
    assert HIDDEN in message
    assert values_in(message + tail) == []
    assert values_in(error.message)
    assert str(error) == error.message


def test_a_label_that_training_never_saw_is_named_by_its_row(tmp_path):
    (tmp_path / "t.csv").write_text(f"text,label\n{GOOD}\n")
    (tmp_path / "v.csv").write_text(f'text,label\nx,0\ny,"{SECRET}"\n')
    job = make_job(
        "/none", tmp_path / "t.csv", data={"validation": {"source": f"file://{tmp_path}/v.csv", "fraction": None}}
    )
    message, _ = told_of(failed(lambda: read_splits(job, read_texts, Labels)))
    assert "row 2: label" in message
    assert values_in(message) == []


@pytest.mark.parametrize("name", ["a row with more cells", "a line that is no JSON", "half of a character"])
def test_of_rows_that_are_left_out_none_is_told(tmp_path, caplog, name):
    file, text, _ = TABLES[name]
    lines = text.splitlines()
    (tmp_path / file).write_text("\n".join(lines[:1] + lines[-1:] * 2 if file.endswith(".csv") else lines) + "\n")
    job = make_job("/none", tmp_path / file)
    error = failed(lambda: read_splits(job, partial(read_texts, skip=True), Labels))
    assert "rows cannot be read, and spec.data.onError Skip leaves out half of them at most" in error.public
    assert values_in(error.public) == []
    assert values_in(error.message)
    assert caplog.text == ""


def test_what_a_tokenizer_says_of_a_text_is_not_told(tmp_path, monkeypatch):
    bert_folder(tmp_path / "model")
    (tmp_path / "t.csv").write_text(f"text,label\n{GOOD}\n")
    task = open_task(make_job(tmp_path / "model", tmp_path / "t.csv"))

    def broken(*_, **__):
        raise TextError(2, f"ValueError: no token for {SECRET}")

    monkeypatch.setattr("unfreeze_trainer.modalities.text.Tokens", broken)
    error = failed(lambda: task.lengths("train"))
    assert f"row 3: the tokenizer fails at this text: {HIDDEN}." in error.public
    assert SECRET in error.message


@pytest.mark.parametrize("skip", [False, True])
def test_a_broken_picture_in_a_table_is_named_by_its_row(tmp_path, skip):
    image_folder(tmp_path / "images")
    timm_folder(tmp_path / "model")
    for number in (0, 1):
        (tmp_path / f"Jane {number}.png").write_bytes(b"no picture")
    (tmp_path / "t.csv").write_text("image,label\nimages/red/0.png,red\nJane 0.png,blue\nJane 1.png,blue\n")
    data = {
        "validation": {"source": f"file://{tmp_path}/images", "fraction": None},
        "onError": "Skip" if skip else None,
    }
    job = make_job(tmp_path / "model", tmp_path / "t.csv", task={"type": "ImageClassification"}, data=data)
    error = failed(lambda: open_task(job).check_samples(0, 1))
    assert "row 2, column 'image': " in error.public or "row 3, column 'image': " in error.public
    assert values_in(error.public) == []
    assert values_in(error.message)


def test_what_a_library_says_on_the_way_to_a_model_is_marked():
    def loaded():
        try:
            read_table(object(), [], "")
        except TypeError as error:
            return one_line_told(error)

    assert JobError("InvalidModel", loaded()).public == HIDDEN
    assert one_line_told(ValueError("shapes differ")) == "ValueError: shapes differ"


@pytest.mark.parametrize(
    ("name", "skip"),
    [
        (f"{SECRET}.png", False),
        (f"../{SECRET}.png", False),
        (f"../{SECRET}.png", True),
        (f"../none {SECRET}.png", True),
        ("pipe Jane.png", False),
        ("pipe Jane.png", True),
    ],
)
def test_a_picture_in_a_table_is_named_by_its_row(tmp_path, name, skip):
    image_folder(tmp_path / "d" / "images")
    (tmp_path / f"{SECRET}.png").touch()
    os.mkfifo(tmp_path / "d" / "pipe Jane.png")
    (tmp_path / "d" / "t.csv").write_text(f'image,label\nimages/red/0.png,red\n"{name}",blue\n')
    job = make_job("/none", tmp_path / "d" / "t.csv", task={"type": "ImageClassification"})
    error = failed(lambda: read_images(job.data.train, "data.train", skip=skip))
    assert "row 2, column 'image': " in error.public
    assert values_in(error.public) == []
    assert values_in(error.message)


def test_a_token_of_a_row_is_not_told(tmp_path):
    bert_folder(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"vocab_size": 20}))
    (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(f"war,{number % 2}" for number in range(8)) + "\n")
    task = open_task(make_job(tmp_path / "model", tmp_path / "t.csv"))
    error = failed(lambda: next(task.batches("train", [[0, 1]])))
    assert "'war'" in error.message
    assert "war" not in error.public
    assert "row 1: a token has the id" in error.public


def test_what_a_library_says_of_an_error_while_data_are_read_is_not_told(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text(f"text,label\n{GOOD}\n")

    def broken(*_, **__):
        raise ValueError(f"could not convert {SECRET!r}")

    monkeypatch.setattr("unfreeze_trainer.data.samples.read_table", broken)
    with pytest.raises(ValueError, match="could not convert") as raised:
        read_splits(make_job("/none", tmp_path / "t.csv"), read_texts, Labels)
    message, tail = told_of(raised.value)
    assert message == f"ValueError: {HIDDEN}"
    assert "read_texts" in tail
    assert values_in(tail) == []


def test_other_errors_are_told_whole():
    def broken():
        try:
            {}["layer.0"]
        except KeyError as error:
            raise RuntimeError("shapes differ") from error

    with pytest.raises(RuntimeError) as raised:
        broken()
    message, tail = told_of(raised.value)
    assert message == "RuntimeError: shapes differ"
    assert "KeyError: 'layer.0'" in tail
    assert told_of(JobError("InvalidModel", "no weights"))[0] == "no weights"


def test_who_asks_for_values_gets_them(monkeypatch):
    error = JobError("InvalidData", f"row 3: {quoted(SECRET)} is wrong")
    assert told_of(error)[0] == f"row 3: {HIDDEN} is wrong"
    monkeypatch.setenv(SHOW_VALUES_ENV, "1")
    assert told_of(error)[0] == f"row 3: {SECRET} is wrong"


def test_a_row_cannot_end_its_own_quote():
    error = JobError("InvalidData", f"row 3: {quoted('a' + quoted('b').replace('b', SECRET))} is wrong")
    assert error.public == f"row 3: {HIDDEN} is wrong"
    assert error.message == f"row 3: a{SECRET} is wrong"


def test_the_worker_logs_the_quote_and_tells_the_agent_the_row(tmp_path, caplog):
    with caplog.at_level(logging.ERROR):
        code = _tell(JobError("InvalidData", f"row 3: {quoted(SECRET)} is wrong"), 0, Link(tmp_path))
    assert code == 2
    assert SECRET in caplog.text
    (told,) = Link(tmp_path).errors()
    assert told.message == f"row 3: {HIDDEN} is wrong"
    assert values_in(told.to_json()) == []


def test_the_field_reaches_the_trainer_and_changes_nothing_that_is_learned():
    plain, shown = make_job("/m", "/t.csv"), make_job("/m", "/t.csv", data={"showValues": True})
    assert "showValues" not in plain.to_json()
    assert json.loads(shown.to_json())["data"]["showValues"] is True
    assert shown.fingerprint() == plain.fingerprint()
    assert shown.schema_version == plain.schema_version


# The export's check


def test_the_check_of_an_export_has_no_secret_in_its_environment(tmp_path, monkeypatch):
    seen = {}

    def run(_, environment, **__):
        seen.update(environment)
        return 0, '{"outputs": [[0.0]], "names": []}', ""

    for name in (
        "WANDB_API_KEY",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "UNFREEZE_JOB",
        "MINE",
    ):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr(forks, "run", run)
    export.reload("model = None", "inputs", "[]", torch.zeros(1))
    assert SECRET not in seen.values()
    assert seen["PATH"] == os.environ["PATH"]
    assert (seen["HF_HUB_OFFLINE"], seen["CUDA_VISIBLE_DEVICES"], seen["LC_ALL"]) == ("1", "", "C.UTF-8")
    assert set(seen) <= export._ALLOWED | {"HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM"} | {
        name for name in seen if name.startswith("LC_")
    }


def test_a_folder_of_pictures_names_its_files(tmp_path):
    """There is no row to name, and no other way to find the file."""
    image_folder(tmp_path / "images")
    timm_folder(tmp_path / "model")
    Path(tmp_path / "images" / "red" / "broken.png").write_bytes(b"no picture")
    job = make_job(tmp_path / "model", tmp_path / "images", task={"type": "ImageClassification"})
    assert "red/broken.png" in failed(lambda: open_task(job)).public


def test_tabs_are_read_as_commas_are(tmp_path):
    """A .tsv file differs from a .csv file in what stands between cells alone."""
    file = tmp_path / "t.tsv"
    file.write_text('text\tlabel\n"a, b\tc"\tx\nno, quotes "here\ty\n')
    table = read_table(str(file), ["label", "text"], "x")
    assert table.to_pylist() == [{"label": "x", "text": "a, b\tc"}, {"label": "y", "text": 'no, quotes "here'}]
    file.write_text('text\tlabel\n"open\tx\nb\ty\n')
    with pytest.raises(JobError, match=r"row 1, on line 2, has a quote that is not closed.* sep='\\t', quoting=3"):
        read_table(str(file), ["text"], "x")
    file.write_text("text,label\na,x\n")
    with pytest.raises(JobError, match="has no tab; did you mean cells separated by commas"):
        read_table(str(file), ["text"], "x")
    file.write_text("text\tlabel\na\tx\ty\n")
    with pytest.raises(JobError, match=r"row 1 has 3 cells, the header 2: .*quote cells that hold tabs"):
        read_table(str(file), ["text"], "x")
