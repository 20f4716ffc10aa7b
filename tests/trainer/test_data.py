"""Reading tables, labels and splits: what comes out, and what the messages say when it cannot."""

import errno
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.trainer.jobs import make_job, write_csv
from unfreeze_trainer.commands.look import reader_of
from unfreeze_trainer.data.held_out import hold_out
from unfreeze_trainer.data.overlaps import overlaps
from unfreeze_trainer.data.samples import Split, read_splits, read_texts, target_kind
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.errors import JobError, some_rows
from unfreeze_trainer.objectives.targets.labels import MAX_LABELS, Labels, encode_labels, sort_labels


def table_error(path: Path, *columns: str) -> str:
    with pytest.raises(JobError) as error:
        read_table(str(path), columns or ("text", "label"), "spec.data.train.source pvc://data/x")
    assert error.value.reason == "InvalidData"
    assert error.value.message.startswith("spec.data.train.source pvc://data/x")
    return error.value.message


def open_splits(train: Path, **change: Any) -> tuple[list[str], dict[str, Split]]:
    learned, splits = read_splits(make_job("/m", train, **change), read_texts, Labels)
    return learned.labels, splits


def splits_error(train: Path, **change: Any) -> str:
    with pytest.raises(JobError) as error:
        open_splits(train, **change)
    return error.value.message


def test_the_same_table_in_every_format(tmp_path: Path) -> None:
    rows = [{"text": 'a, "b"\nc', "label": "x"}, {"text": "ü", "label": "y"}]
    (tmp_path / "t.csv").write_text('other,label,text\n1,x,"a, ""b""\nc"\n2,y,ü\n', encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row | {"other": [1]}) + "\n" for row in rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        table = read_table(str(tmp_path / f"t.{suffix}"), ("text", "label"), "here")
        assert table.select(["text", "label"]).to_pylist() == rows


def test_a_missing_column_names_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Question,label\na,b\n")
    message = table_error(tmp_path / "t.csv", "question", "label")
    assert "'question'" in message
    assert "did you mean 'Question'" in message
    assert "'Question', 'label'" in message
    (tmp_path / "t.jsonl").write_text('{"txt": "a", "label": "b"}\n')
    assert "did you mean 'txt'" in table_error(tmp_path / "t.jsonl")
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    assert "'a'" in table_error(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("header", "column", "said"),
    [
        (
            "3,Wall St. goes on as before",
            "text",
            "The first line reads like a row: if the file has no header, write names",
        ),
        ("My export", "text", "if other lines stand before the header, remove them"),
        ("0,1", "text", "name the right one in spec.data.<part>.columns"),
        ("prompt,completion", "messages", "or set spec.task.causalLm.annotation: Completions"),
    ],
)
def test_a_missing_column_says_what_else_may_be_wrong(tmp_path: Path, header: str, column: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\na,b\n")
    message = table_error(tmp_path / "t.csv", column)
    assert said in message
    assert ("reads like a row" in message) == (header[0] == "3")


def test_a_column_that_stands_there_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,label\na,x,y\n")
    assert "2 columns are called 'label'" in table_error(tmp_path / "t.csv")
    twice = pa.table([pa.array(["a"])] * 3, names=["text", "label", "label"])
    parquet.write_table(twice, tmp_path / "t.parquet")
    assert "2 columns are called 'label'" in table_error(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (["a", None], pa.string_view(), pa.large_string()),
        ([["a"], None, []], pa.list_(pa.string_view()), pa.list_(pa.large_string())),
        ([["a"], None, []], pa.list_view(pa.string()), pa.large_list(pa.string())),
        ([["a"], None, []], pa.large_list_view(pa.string_view()), pa.list_(pa.large_string())),
        ([["a", "b"], None], pa.list_(pa.string_view(), 2), pa.list_(pa.large_string(), 2)),
        ([["a"], None, []], pa.list_(pa.dictionary(pa.int8(), pa.string())), pa.list_(pa.string())),
        (["a", None], pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int32(), pa.string())),
    ],
    ids=str,
)
def test_parquet_of_every_form_of_text_and_lists(
    tmp_path: Path, cells: list[Any], kind: pa.DataType, expected: pa.DataType
) -> None:
    parquet.write_table(pa.table({"label": pa.array(cells, kind)}), tmp_path / "t.parquet")
    column = read_table(str(tmp_path / "t.parquet"), ["label"], "here")["label"]
    assert column.type.equals(expected)
    assert column.to_pylist() == cells


def test_labels_that_look_like_numbers_and_are_none() -> None:
    assert sort_labels(["--1", "10", "9"]) == ["--1", "10", "9"]
    assert sort_labels(["-2", "10", "9"]) == ["-2", "9", "10"]
    assert sort_labels(["1" * 5000, "2"]) == ["1" * 5000, "2"]


def test_a_bad_csv_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,c,x\nd,y\n")
    message = table_error(tmp_path / "t.csv")
    assert "row 2 has 3 cells, the header 2" in message
    assert "b,c,x" in message


def test_a_bad_json_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b", \n')
    assert "line 2 is not JSON" in table_error(path)
    path.write_text('{"text": "a", "label": "x"}\n[1]\n')
    assert "line 2 is no JSON object" in table_error(path)
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": 3}\n')
    assert "line 2, column 'label' is 3" in table_error(path)
    path.write_text('{"version": "1", "data": [{"text": "a", "label": "x"}]}')
    assert "'version', 'data'; name" in table_error(path)
    assert table_error(path).endswith("'data' is a list of objects: if these are the rows, save that list alone")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            '{"text": "\\ud800", "label": "x"}',
            "line 2, column 'text' is \"\\ud800\", which is neither text of whole characters",
        ),
        (
            '{"text": "a", "label": 1180591620717411303424}',
            "line 2, column 'label' is 1180591620717411303424, which is neither",
        ),
        ('{"text": ' + "[" * 200_000 + "}", "line 2 is not JSON"),
    ],
)
def test_a_json_value_that_no_table_holds_is_named(tmp_path: Path, line: str, words: str) -> None:
    label = "1" if 'label": 1' in line else '"x"'
    (tmp_path / "t.jsonl").write_text(f'{{"text": "a", "label": {label}}}\n{line}\n')
    assert words in table_error(tmp_path / "t.jsonl")


def test_a_volume_that_fails_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_csv(tmp_path / "t.csv")
    monkeypatch.setattr("pyarrow.csv.open_csv", fails)
    with pytest.raises(OSError, match="Input/output"):
        read_table(str(tmp_path / "t.csv"), ["text", "label"], "spec.data.train.source x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in table_error(tmp_path / "missing.csv")
    assert str(tmp_path / "missing.csv") in table_error(tmp_path / "missing.csv")
    assert f"no such file: {tmp_path / 'pictures'}" in table_error(tmp_path / "pictures")
    (tmp_path / "t.zip").touch()
    assert table_error(tmp_path / "t.zip").endswith("not .zip; unpack it")
    (tmp_path / "t.xlsx").write_text("")
    assert ".csv, .tsv, .jsonl, .ndjson, .json, .parquet, .arrow, .feather, .tar, not .xlsx" in table_error(
        tmp_path / "t.xlsx"
    )
    (tmp_path / "t.parquet").write_text("no parquet")
    assert "cannot be read as .parquet" in table_error(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("")
    assert "empty" in table_error(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_bytes("text,label\nü,x\n".encode("latin-1"))
    assert "UTF" in table_error(tmp_path / "u.csv").upper()


def test_empty_texts_and_labels_name_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\n,x\n  ,y\nb,y\n")
    assert "no text in column 'text' of rows 2, 3" in splits_error(path)
    path.write_text("text,label\na,x\nb,\n")
    assert "no label in column 'label' of row 2" in splits_error(path)
    path.write_text("text,label\n")
    assert "no samples" in splits_error(path)
    (tmp_path / "t.jsonl").write_text('{"text": null, "label": 1}\n{"text": "b", "label": 2}\n')
    assert "no text in column 'text' of row 1" in splits_error(tmp_path / "t.jsonl")


@pytest.mark.parametrize(("values", "expected"), [([True, False], ["false", "true"]), ([3, 20, 3], ["3", "20"])])
def test_labels_of_other_types_are_shown_as_text(values: list[Any], expected: list[str]) -> None:
    codes, names = encode_labels(pa.chunked_array([pa.array(values)]), "label", "here")
    assert sort_labels(names) == expected
    assert [names[code] for code in codes] == [str(value).lower() for value in values]


def test_numbers_with_a_fraction_and_too_many_labels_are_refused(tmp_path: Path) -> None:
    for column in (pa.array([0.5, 1.0]), pa.array(["0.5", "1"])):
        with pytest.raises(JobError, match=r"0\.5.*labels are text, whole numbers or booleans"):
            encode_labels(pa.chunked_array([column]), "score", "here")
    with pytest.raises(JobError, match=f"more than {MAX_LABELS} labels"):
        encode_labels(pa.chunked_array([pa.array(range(MAX_LABELS + 1))]), "id", "here")


def test_a_single_label_is_refused(tmp_path: Path) -> None:
    assert "at least two labels" in splits_error(write_csv(tmp_path / "t.csv", labels=("a",)))


def test_a_label_that_training_never_saw_is_refused(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "t.csv")
    other = tmp_path / "v.csv"
    other.write_text("text,label\na,a\nb,z\n")
    for part in ("validation", "test"):
        data = {part: {"source": f"file://{other}", "fraction": None}}
        message = splits_error(train, data=data)
        assert f"spec.data.{part}.source file://{other}: row 2: label 'z' does not occur" in message
        assert "'a', 'b', 'c'" in message


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\nb,y\n")
    assert "spec.data.validation.fraction 0.25" in splits_error(path)


def test_more_workers_than_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\nb,y\nc,x\nd,y\n")
    spec = {"distribution": {"numNodes": 4}, "training": {"batchSize": 8}}
    assert "leaves 3 samples for 4 workers" in splits_error(path, **spec)
    job = make_job("/m", path, **spec)
    job = job.model_copy(update={"training": job.training.model_copy(update={"batch_size": 2})})
    with pytest.raises(JobError, match="batchSize 2 is less than the 4 workers"):
        read_splits(job, read_texts, Labels)


def test_splits_keep_shares_and_cover_everything(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "t.csv", rows=60)
    labels, splits = open_splits(train, data={"test": {"fraction": 0.1}})
    assert labels == ["a", "b", "c"]
    assert {name: len(split) for name, split in splits.items()} == {"train": 39, "validation": 15, "test": 6}
    assert Counter(splits["validation"].targets.values.tolist()) == {0: 5, 1: 5, 2: 5}
    rows = np.concatenate([split.rows for split in splits.values()])
    assert sorted(rows) == list(range(60))
    for split in splits.values():
        texts = split.source.inputs.take(split.rows).to_pylist()
        firsts = {"how": 0, "what": 1, "who": 2}
        assert [firsts[text.split()[0]] for text in texts] == split.targets.values.tolist()


@given(
    classes=st.lists(st.integers(0, 6), min_size=1, max_size=150),
    first=st.floats(0.01, 0.6),
    second=st.floats(0.01, 0.39),
    seed=st.integers(0, 9),
)
def test_held_out_parts(classes: list[int], first: float, second: float, seed: int) -> None:
    class_of = np.array(classes)
    parts = hold_out(class_of, {"validation": first, "test": second}, seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(classes)))
    again = hold_out(class_of, {"validation": first, "test": second}, seed)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)
    wanted = round(len(classes) * first)
    roomy = sum(1 for count in Counter(classes).values() if count > 1)
    assert len(parts["validation"]) <= wanted
    assert len(parts["validation"]) >= min(wanted, roomy)
    for label, count in Counter(classes).items():
        found = {name: int((class_of[rows] == label).sum()) for name, rows in parts.items()}
        assert found["train"] >= 1
        if count >= 2 and wanted >= roomy:
            assert found["validation"] >= 1
        for name, fraction in (("validation", first), ("test", second)):
            assert found[name] <= max(1, count * fraction + 1)


def test_a_small_part_of_many_labels_has_its_share_and_no_label_first() -> None:
    class_of = np.repeat(np.arange(100), 2)
    seen = set()
    for seed in range(20):
        rows = hold_out(class_of, {"validation": 0.1}, seed)["validation"]
        assert len(rows) == len(set(class_of[rows])) == 20
        seen |= set(class_of[rows].tolist())
    assert len(seen) > 90


def test_runs_of_the_first_version_hold_out_as_they_did() -> None:
    class_of = np.repeat(np.arange(100), 2)
    assert len(hold_out(class_of, {"validation": 0.1}, 0, of_each=True)["validation"]) == 100


def test_the_training_data_is_not_measured_on(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "t.csv")
    (tmp_path / "link.csv").symlink_to(train)
    for part in ("validation", "test"):
        for same in (train, tmp_path / "link.csv"):
            message = splits_error(train, data={part: {"source": f"file://{same}", "fraction": None}})
            assert f"spec.data.{part}.source file://{same} is the training data" in message


def test_samples_that_stand_in_two_splits_are_counted(tmp_path: Path) -> None:
    lines = ["text,label", *(f"text {i},{'ab'[i % 2]}" for i in range(20))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (tmp_path / "v.csv").write_text("\n".join([lines[0], *lines[3:6], "another,a"]))
    (tmp_path / "s.csv").write_text("\n".join([lines[0], *lines[5:9], "another,a", "last,b"]))
    data = {name: {"source": f"file://{tmp_path}/{name[0]}.csv", "fraction": None} for name in ("validation",)}
    data |= {"test": {"source": f"file://{tmp_path}/s.csv"}}
    _, splits = open_splits(tmp_path / "t.csv", data=data)
    assert overlaps(splits) == {"validation in train": 3, "test in train": 4, "test in validation": 2}
    (tmp_path / "u.csv").write_text("text,label\n" + "same,a\nother,b\n" * 10)
    _, splits = open_splits(tmp_path / "u.csv")
    assert overlaps(splits) == {"validation in train": len(splits["validation"])}
    assert overlaps(open_splits(write_csv(tmp_path / "w.csv", rows=3 * 11 * 13))[1]) == {}


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.large_string())])
def test_samples_that_stand_in_files_of_two_formats_are_counted(tmp_path: Path, kind: pa.DataType) -> None:
    texts = [f"text {i}" for i in range(3)]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)))
    parquet.write_table(
        pa.table({"text": pa.array(texts).cast(kind), "label": ["a", "b", "a"]}), tmp_path / "v.parquet"
    )
    data = {"validation": {"source": f"file://{tmp_path}/v.parquet", "fraction": None}}
    assert overlaps(open_splits(tmp_path / "t.csv", data=data)[1]) == {"validation in train": 3}


def test_samples_with_negatives_are_counted_without(tmp_path: Path) -> None:
    rows = [{"anchor": f"a {i}", "positive": f"p {i}", "negative": f"n {i}"} for i in range(6)]
    for name, some in (("t", rows), ("v", [*rows[:2], {"anchor": "a 3", "positive": "another"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    columns = {"anchor": "anchor", "positive": "positive"}
    job = make_job(
        "/m",
        tmp_path / "t.jsonl",
        task={"type": "TextEmbedding"},
        data={
            "train": {"columns": columns | {"negative": "negative"}},
            "validation": {"source": f"file://{tmp_path}/v.jsonl", "columns": columns, "fraction": None},
        },
    )
    assert overlaps(read_splits(job, reader_of(job), target_kind(job))[1]) == {"validation in train": 2}


def test_seeds_split_differently() -> None:
    class_of = np.zeros(100, dtype=np.int64)
    found = {tuple(hold_out(class_of, {"validation": 0.2}, seed)["validation"]) for seed in range(4)}
    assert len(found) == 4


def test_row_numbers_count_from_one() -> None:
    assert some_rows([2]) == "row 3"
    assert some_rows(list(range(9))) == "rows 1, 2, 3, 4, 5 and 4 more"
