"""Tables larger than memory: kept in a file that is mapped, with the same rows, errors and batches as small ones."""

import os
import resource

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from unfreeze_trainer.data import few, kept
from unfreeze_trainer.data.kept import Kept
from unfreeze_trainer.data.tables import read_table


@pytest.fixture
def on_disk(monkeypatch):
    monkeypatch.setattr(kept, "IN_MEMORY", 100)


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=6), min_size=1, max_size=8),
    limit=st.sampled_from([0, 100, 1 << 30]),
)
def test_what_is_kept_is_what_was_added(parts, limit):
    before, kept.IN_MEMORY = kept.IN_MEMORY, limit
    try:
        rows = Kept()
        for part in parts:
            rows.add(pa.table({"text": part}))  # null alone has another type
        found = rows.whole()
    finally:
        kept.IN_MEMORY = before
    assert found["text"].to_pylist() == [text for part in parts for text in part]


def test_large_tables_lie_in_files_without_a_name(tmp_path, monkeypatch, on_disk):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    rows = {"text": [f"text {n}" for n in range(5000)], "label": ["a", "b"] * 2500}
    parquet.write_table(pa.table(rows), tmp_path / "t.parquet")
    before = pa.total_allocated_bytes()
    found = read_table(str(tmp_path / "t.parquet"), ["text", "label"], "w")
    assert pa.total_allocated_bytes() - before < found.nbytes / 10
    assert found.to_pydict() == rows
    assert os.listdir(tmp_path / "tmp") == []  # noqa: PTH208
    for format_ in ("csv", "jsonl"):
        lines = [f'{{"text": "{text}", "label": "a"}}' if format_ == "jsonl" else f"{text},a" for text in rows["text"]]
        (tmp_path / f"t.{format_}").write_text("\n".join(["text,label"] * (format_ == "csv") + lines) + "\n")
        assert read_table(str(tmp_path / f"t.{format_}"), ["text"], "w")["text"].to_pylist() == rows["text"]


def test_a_full_disk_leaves_rows_in_memory(monkeypatch, caplog, on_disk):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    rows = Kept()
    for part in range(3):
        rows.add(pa.table({"text": [f"a text of some length, {part}"] * 9}))
    assert rows.whole().num_rows == 27
    assert "rows are kept in memory" in caplog.text


@pytest.mark.parametrize("room", [0, 3000, 20_000])
def test_a_disk_that_fills_keeps_what_it_holds_and_leaves_the_rest_in_memory(monkeypatch, caplog, room):
    monkeypatch.setattr(kept, "IN_MEMORY", 4000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows, wanted = Kept(), [f"a text of some length, {n}" for n in range(2000)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        for start in range(0, len(wanted), 40):
            rows.add(pa.table({"text": wanted[start : start + 40]}))
        found = rows.whole()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found["text"].to_pylist() == wanted
    assert caplog.text.count("rows are kept in memory") == 1


CHUNKS = st.lists(st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=5), min_size=1, max_size=5)


@given(chunks=CHUNKS, data=st.data())
def test_some_rows_of_a_column(chunks, data):
    column = pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks], pa.string())
    cells = column.to_pylist()
    rows = data.draw(st.lists(st.integers(0, len(cells) - 1), max_size=9)) if cells else []
    assert few.few(column, rows).to_pylist() == [cells[row] for row in rows]
    places = np.array(sorted(set(rows)), dtype=np.int64)
    assert few.most(column, places).to_pylist() == [cells[row] for row in places]
    assert few.numbers_of(column).tolist() == [list(dict.fromkeys(cells)).index(cell) for cell in cells]
    hashes = few.hashes_of(column)
    assert [cells[row] for row in rows if hashes[row] == hashes[rows[0]]] == [
        cells[row] for row in rows if cells[row] == cells[rows[0]]
    ]


def test_pairs_are_hashed_as_pairs():
    pairs = pa.chunked_array([pa.array([{"a": "x", "b": "yz"}, {"a": "xy", "b": "z"}, {"a": "x", "b": "yz"}])])
    first, second, third = few.hashes_of(pairs)
    assert first == third != second
    assert few.few(pairs, [1]).to_pylist() == [{"a": "xy", "b": "z"}]


@given(
    data=st.data(),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]),
)
def test_rows_that_two_columns_share(data, kind):
    cells = st.one_of(
        st.none(), st.sampled_from(["", "short", "a text of some length", "a text of same length", "12345678"])
    )
    columns = [
        pa.chunked_array([pa.array([None, *chunk], pa.string()).cast(kind)[1:] for chunk in chunks], kind)
        for chunks in data.draw(st.tuples(*[st.lists(st.lists(cells, max_size=9), min_size=1, max_size=4)] * 2))
    ]
    rows = [
        np.array(sorted(data.draw(st.sets(st.integers(0, len(one) - 1)))), np.int64)
        if len(one)
        else np.empty(0, np.int64)
        for one in columns
    ]
    theirs = {columns[1][int(row)].as_py() for row in rows[1]}
    wanted = [columns[0][int(row)].as_py() in theirs for row in rows[0]]
    assert few.shared_rows(columns[0], rows[0], columns[1], rows[1]).tolist() == wanted


def test_pairs_are_shared_as_pairs():
    pairs = pa.chunked_array([pa.array([{"a": "x", "b": "yz"}, {"a": "yz", "b": "x"}, {"a": "x", "b": "yz"}])])
    assert few.shared_rows(pairs, np.array([0, 1]), pairs, np.array([2])).tolist() == [True, False]
