"""Rows that cannot be read: named, or left out and counted where data.onError is Skip."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.trainer.complete import complete
from tests.trainer.jobs import image_folder, make_job, timm_folder
from unfreeze_api.contracts.resolved import Columns, Dataset
from unfreeze_trainer.data.images import read_images
from unfreeze_trainer.data.pins import pin_data
from unfreeze_trainer.data.samples import read_splits, read_targets, read_texts
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError, unmarked
from unfreeze_trainer.objectives.targets.labels import Labels
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.run import Run
from unfreeze_trainer.training.skipped import Skipped

WHERE = "spec.data.train.source x"


def texts(path, *, skip=True):
    source = read_texts(Dataset(source="x", path=str(path), columns=Columns()), WHERE, skip=skip)
    read_targets(source, Labels)
    return source


def lines_of(rows):
    """Write rows as JSON lines: those of a number are good, the others are not."""
    broken = {
        "no JSON": "{",
        "empty": "",
        "no object": "[1]",
        "no text": '{"text": " ", "label": "x"}',
        "null": '{"text": "t", "label": null}',
        "no column": '{"label": "x"}',
        "another type": '{"text": "t", "label": 3}',
        "half a character": '{"text": "\\ud800", "label": "x"}',
    }
    return [
        json.dumps({"text": f"t{row}", "label": "xy"[row % 2]}) if isinstance(row, int) else broken[row] for row in rows
    ]


KINDS = ["no JSON", "empty", "no object", "no text", "null", "no column", "another type", "half a character"]


@settings(max_examples=25)
@given(st.lists(st.sampled_from(KINDS), max_size=6), st.randoms(use_true_random=False))
def test_the_rows_that_can_be_read_are_left_with_their_numbers(tmp_path_factory, broken, random):
    rows = [*range(8), *broken]
    random.shuffle(rows)
    while not isinstance(rows[0], int):  # the first line says which type a column has
        rows.append(rows.pop(0))
    path = tmp_path_factory.mktemp("lines") / "t.jsonl"
    path.write_text("\n".join(lines_of(rows)) + "\n")
    while rows[-1] == "empty":  # blank lines at the end are no rows
        broken = [*broken]
        broken.remove(rows.pop())
    source = texts(path)
    good = [number for number, row in enumerate(rows) if isinstance(row, int)]
    assert source.inputs.to_pylist() == [f"t{rows[number]}" for number in good]
    assert source.targets.to_pylist() == ["xy"[rows[number] % 2] for number in good]
    assert [source.number(row) for row in range(8)] == [number + 1 for number in good]
    assert source.left_out == len(broken)
    if broken:
        with pytest.raises(JobError):
            texts(path, skip=False)


def test_rows_of_a_csv_are_left_out(tmp_path, caplog):
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\nb,c,x\n,y\nd,y\ne,\nf,x\ng,y\n")
    source = texts(path)
    assert source.inputs.to_pylist() == ["a", "d", "f", "g"]
    assert [source.number(row) for row in range(4)] == [1, 4, 6, 7]
    assert source.left_out == 3
    assert "3 of 7 rows are left out, like this one: " in caplog.text
    assert "row 2 has 3 cells" in caplog.text


def test_more_than_half_are_not_left_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\n,x\n,y\n")
    with pytest.raises(
        JobError, match=r"2 of 3 rows cannot be read, .* One of them: .*no text in column 'text' of rows 2, 3"
    ):
        texts(path)
    path.write_text("text,label\n,x\n,y\n")
    with pytest.raises(JobError, match="2 of 2 rows"):
        texts(path)


def test_what_is_wrong_with_all_rows_is_an_error_still(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,0.5\nb,1.5\n")
    with pytest.raises(JobError, match="numbers with a fraction"):
        texts(path)
    path.write_text("words,label\na,x\nb,y\n")
    with pytest.raises(JobError, match="no column 'text'"):
        texts(path)


def test_a_label_that_training_never_saw_is_named_by_its_row(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\nc,x\nd,y\n")
    (tmp_path / "v.csv").write_text("text,label\n,x\na,x\nb,z\nc,y\n")
    data = {"validation": {"source": f"file://{tmp_path}/v.csv", "fraction": None}, "onError": "Skip"}
    with pytest.raises(JobError, match=r"v\.csv: row 3: label 'z' does not occur"):
        read_splits(make_job("/m", tmp_path / "t.csv", data=data), partial(read_texts, skip=True), Labels)


def test_rows_of_pictures_without_content_are_left_out(tmp_path):
    picture = next(image_folder(tmp_path / "d", 1).rglob("*.png")).read_bytes()
    cells = pa.array([picture, None, picture, b"", picture, picture])
    parquet.write_table(pa.table({"image": cells, "label": ["a", "b", "b", "a", None, "a"]}), tmp_path / "t.parquet")
    dataset = Dataset(source="x", path=str(tmp_path / "t.parquet"), columns=Columns())
    source = read_images(dataset, WHERE, skip=True)
    assert [source.number(row) for row in range(len(source.inputs))] == [1, 3, 6]
    assert source.left_out == 3
    with pytest.raises(JobError, match="no picture in column 'image' of rows 2, 4"):
        read_images(dataset, WHERE)


def test_pictures_outside_of_the_source_are_refused_and_not_skipped(tmp_path):
    folder = image_folder(tmp_path / "d", 4)
    (folder / "red/9.png").symlink_to(tmp_path / "none.png")
    dataset = Dataset(source="x", path=str(folder), columns=Columns())
    with pytest.raises(JobError, match=r"red/9\.png leads to"):
        read_images(dataset, WHERE, skip=True)
    table = dataset.model_copy(update={"path": str(folder / "t.csv")})
    for name in ("../none.png", "red/9.png"):
        (folder / "t.csv").write_text(f"image,label\nred/1.png,red\n,red\nblue/1.png,blue\n{name},blue\n")
        with pytest.raises(JobError, match=f"row 4, column 'image': {name} leads to"):
            read_images(table, WHERE, skip=True)


def test_pictures_that_are_gone_are_pinned_without_a_size(tmp_path):
    folder = image_folder(tmp_path / "d", 4)
    (folder / "red/9.png").symlink_to("../none.png")
    (folder / "t.csv").write_text("image,label\nred/9.png,red\nnone.png,blue\nnone/x.png,red\na\0b,blue\n")
    for path, count in ((folder, 9), (folder / "t.csv", 4)):
        dataset = Dataset(source="x", path=str(path), columns=Columns())
        with pytest.raises(JobError):
            read_images(dataset, WHERE)
        source = read_images(dataset, WHERE, skip=True)
        assert len(source.inputs) == count
        pins = pin_data(source)
        (folder / "none.png").write_bytes((folder / "red/1.png").read_bytes())
        assert pin_data(source) != pins
        (folder / "none.png").unlink()


@pytest.mark.parametrize("broken", [lambda row: row % 3 == 0, lambda row: row < 1500])
def test_the_first_rows_are_read_whatever_is_left_out_of_them(tmp_path, broken):
    rows = [(f"text {'long ' * 90}{row}", "xy"[row % 2]) for row in range(6_000)]
    (tmp_path / "t.csv").write_text(
        "text,label\n" + "".join(f"{text},{label}{',' * broken(row)}\n" for row, (text, label) in enumerate(rows))
    )
    (tmp_path / "t.jsonl").write_text(
        "".join(
            "{\n" if broken(row) else json.dumps({"text": text, "label": label}) + "\n"
            for row, (text, label) in enumerate(rows)
        )
    )
    for name in ("t.csv", "t.jsonl"):
        dataset = Dataset(source="x", path=str(tmp_path / name), columns=Columns(image="text"))
        source = read_texts(dataset, WHERE, skip=True, head=True)
        assert len(source.inputs) < len(rows) / 2
        assert source.inputs.to_pylist() == [rows[source.number(row) - 1][0] for row in range(len(source.inputs))]
        assert [source.number(row) - 1 for row in range(len(source.inputs))] == [
            row for row in range(len(rows)) if not broken(row)
        ][: len(source.inputs)]
        assert len(read_images(dataset, WHERE, skip=True, head=True).inputs) == len(source.inputs)
        with pytest.raises(JobError):
            read_texts(dataset, WHERE, head=True)


def test_without_skip_the_first_is_raised():
    error = JobError("InvalidData", "row 3")
    with pytest.raises(JobError, match="row 3"):
        Unread(WHERE, skip=False).add([2], error)
    unread = Unread(WHERE, skip=False)
    unread.add([], error)
    unread.check(5)
    assert unread.others(3).tolist() == [0, 1, 2]


def test_a_table_without_a_row_that_can_be_read_is_an_error(tmp_path):
    (tmp_path / "t.jsonl").write_text("{\n{\n")
    dataset = Dataset(source="x", path=str(tmp_path / "t.jsonl"), columns=Columns())
    for read in (read_images, read_texts):
        with pytest.raises(JobError, match=r"2 of 2 rows cannot be read, .*line 1 is not JSON"):
            read(dataset, WHERE, skip=True)


def test_what_ranks_and_starts_skip_counts_once():
    found = [[{"train": {3, 5}, "test": set()}, {"train": {5}, "test": {1}}], [{"train": {4}}, {"train": {3}}]]
    state, told = RunState(), []
    events = SimpleNamespace(add=lambda *kind, **keys: told.append((*kind, keys["samples"])))
    for everywhere in (*found, found[1]):
        engine = SimpleNamespace(gather_json=lambda *_, everywhere=everywhere: everywhere)
        task = SimpleNamespace(left_out={"train": 10}, unread={})
        skipped = Skipped(task, engine, state, events, on=True)
        skipped.gather()
        state = RunState.model_validate_json(state.model_dump_json())  # a checkpoint
    assert state.unread == {"train": [3, 4, 5], "test": [1]}
    assert (skipped.counts(), skipped.total) == ({"train": 13, "test": 1}, 14)
    assert told == [("skippedSamples", {"train": 12, "test": 1}), ("skippedSamples", {"train": 13, "test": 1})]
    assert Skipped(task, engine, state, events, on=False).total is None


@pytest.fixture
def broken_pictures(tmp_path):
    """A job whose pictures are partly cut off, partly gone from the table's folder."""
    folder = image_folder(tmp_path / "d", 8)
    for name in ("red/1.png", "blue/2.png", "blue/5.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:1500])
    rows = [f"{label}/{i}.png,{label}" for i in range(8) for label in ("red", "blue")]
    (folder / "t.csv").write_text("\n".join(["image,label", *rows, "red/none.png,red"]))
    return make_job(
        timm_folder(tmp_path / "m", num_classes=2),
        folder / "t.csv",
        task={"type": "ImageClassification", "imageClassification": {"imageSize": 32}},
        data={"onError": "Skip"},
        strategy={"type": "FeatureExtraction"},
        output={"destination": f"file://{tmp_path}/run"},
    )


def test_pictures_that_cannot_be_read_keep_their_place_and_count_for_nothing(broken_pictures):
    task = open_task(broken_pictures)
    assert sum(task.splits.values()) == 17
    task.check_samples(0, 1)
    for split, size in task.splits.items():
        [batch] = task.batches(split, [range(size)])
        ignored = np.flatnonzero(batch["labels"] == -100)
        assert set(ignored) == task.unread[split]
        assert not batch["images"][ignored].any()
        names = {unmarked(task.name_of(split, index)).rpartition("/")[2] for index in task.unread[split]}
        assert names <= {"1.png", "2.png", "5.png", "none.png"}
    assert sum(map(len, task.unread.values())) == 4


def test_more_than_half_of_the_pictures_are_not_skipped(broken_pictures, tmp_path):
    for path in sorted((tmp_path / "d").rglob("*.png"))[:12]:
        path.write_bytes(b"")
    with pytest.raises(JobError, match=r"of 17 rows cannot be read, and spec\.data\.onError Skip leaves out half"):
        open_task(broken_pictures).check_samples(0, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_what_was_skipped_is_counted_once_in_report_and_progress(broken_pictures, tmp_path):
    seen = []
    task = open_task(broken_pictures)
    run = Run(broken_pictures, task, task.build_model(), open_engine(broken_pictures), None)
    run.reporter.observers.append(seen.append)
    complete(run)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert sum(report["data"]["skipped"].values()) == 4
    assert seen[-1].skipped_samples == 4
    told = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    assert [event["samples"] for event in told if event["event"] == "skippedSamples"] == [report["data"]["skipped"]]
    assert torch.isfinite(torch.tensor(report["results"]["validation"]["loss"]))
