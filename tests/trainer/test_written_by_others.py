"""Tables as other programs leave them: folders of partitions, logs beside files, whole numbers with a fraction of zero."""

from __future__ import annotations

import gzip
import tracemalloc
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from unfreeze_api.contracts.resolved import Columns, Dataset
from unfreeze_trainer.commands.draft import draft
from unfreeze_trainer.commands.layout import find_layout
from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.pins import pin_data
from unfreeze_trainer.data.samples import read_targets, read_texts
from unfreeze_trainer.data.shards import is_table_folder
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, unmarked
from unfreeze_trainer.objectives.targets.labels import Labels

WHERE = "spec.data.train.source x"


def source_at(path, *, skip=False):
    return read_texts(Dataset(source="x", path=str(path), columns=Columns()), WHERE, skip=skip)


def labels_at(path, **options):
    source = source_at(path, **options)
    found = read_targets(source, Labels)
    return [found.names[code] for code in found.codes]


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)


@pytest.fixture
def partitioned(tmp_path):
    """A folder as `partitionBy("day", "label")` leaves it."""
    folder = tmp_path / "train"
    for day in (1, 2):
        for number, label in enumerate(("neg", "a%2Fb")):
            texts = [f"{day}{number}{row}" for row in range(2)]
            write(folder / f"day=2024-01-0{day}" / f"label={label}" / "part-00000.snappy.parquet", text=texts)
    (folder / "_SUCCESS").touch()
    (folder / "_temporary").mkdir()
    return folder


def test_what_the_names_of_folders_tell_is_a_column(partitioned):
    assert is_table_folder(str(partitioned))
    assert find_layout(partitioned).kind == "Table"
    assert labels_at(partitioned) == ["a/b", "a/b", "neg", "neg"] * 2
    assert source_at(partitioned).inputs.to_pylist()[:3] == ["110", "111", "100"]
    shown = read_cells(str(partitioned), WHERE)
    assert {name: set(column.to_pylist()) for name, column in shown.texts.items() if name != "text"} == {
        "day": {"2024-01-01", "2024-01-02"},
        "label": {"a/b", "neg"},
    }


def test_a_partition_without_a_value_lacks_its_label(partitioned):
    place = partitioned / "day=2024-01-02"
    (place / "label=neg").rename(place / "label=__HIVE_DEFAULT_PARTITION__")
    with pytest.raises(JobError, match=r"no label in column 'label' of rows 5, 6") as told:
        labels_at(partitioned)
    assert "fill in or remove them" in str(told.value)
    assert len(labels_at(partitioned, skip=True)) == 6


def test_errors_and_pins_count_the_place_of_a_file(partitioned):
    before = pin_data(source_at(partitioned))
    day = partitioned / "day=2024-01-02"
    (day / "label=neg").rename(day / "label=pos")
    assert pin_data(source_at(partitioned)) != before, "it has other labels now"
    write(day / "label=pos" / "part-00000.snappy.parquet", txt=["x"])
    with pytest.raises(JobError) as told:
        source_at(partitioned)
    assert "day=2024-01-02/label=pos/part-00000.snappy.parquet: no column 'text'" in unmarked(str(told.value))


def test_partitions_by_split_are_told_apart(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"split={split}" / "0.parquet", text=["a"], label=["x"])
    with pytest.raises(JobError, match="are of several splits"):
        source_at(tmp_path)
    assert source_at(tmp_path / "split=train").inputs.to_pylist() == ["a"]


def test_folders_of_pictures_with_such_names_are_labels(tmp_path):
    (tmp_path / "label=cat").mkdir()
    (tmp_path / "label=cat" / "1.png").touch()
    assert not is_table_folder(str(tmp_path))


@pytest.mark.parametrize(("log", "name"), [("_delta_log", "Delta Lake"), (".hoodie", "Hudi")])
def test_a_table_whose_log_says_which_files_count_is_refused(tmp_path, log, name):
    write(tmp_path / "part-0.parquet", text=["a"], label=["x"])
    (tmp_path / log).mkdir()
    for path in (tmp_path, tmp_path / "*.parquet"):
        with pytest.raises(JobError, match=f"makes this a table of {name}, whose files hold rows that were replaced"):
            source_at(path)


def test_whole_numbers_of_a_type_for_fractions_are_labels(tmp_path):
    write(tmp_path / "t.parquet", text=["a", "b", "c"], label=[1.0, 0.0, float("nan")])
    with pytest.raises(JobError, match="no label in column 'label' of row 3;"):
        labels_at(tmp_path / "t.parquet")
    write(tmp_path / "t.parquet", text=list("abcd"), label=[1.0, 0.0, float("nan"), None])
    assert labels_at(tmp_path / "t.parquet", skip=True) == ["1", "0"]
    (tmp_path / "t.csv").write_text("text,label\na,1.0\nb,0\nc,1\nd,-3.\n")
    assert labels_at(tmp_path / "t.csv") == ["1", "0", "1", "-3"]
    write(tmp_path / "t.parquet", text=["a", "b", "c"], label=[1.0, 0.5, 2.0])
    with pytest.raises(JobError) as told:
        labels_at(tmp_path / "t.parquet")
    assert "column 'label' holds double (0.5): labels are text" in unmarked(str(told.value))
    (tmp_path / "t.csv").write_text("text,label\na,1.0\nb,0.5\n")
    with pytest.raises(JobError, match="holds numbers with a fraction"):
        labels_at(tmp_path / "t.csv")


SAME = [pa.array(["x", "y"]), pa.array(["x", "y"], pa.large_string()), pa.array(["x", "y"]).dictionary_encode()]
NUMBERS = [pa.array([0, 1], pa.int64()), pa.array([0.0, 1.0]), pa.array([0, 1]).cast(pa.decimal128(20))]


@pytest.mark.parametrize(("forms", "expected"), [(SAME, ["x", "y"]), (NUMBERS, ["0", "1"])])
def test_files_of_one_table_may_have_other_types_for_the_same(tmp_path, forms, expected):
    for order in permutations(range(len(forms))):
        for name, place in zip("abcd", order, strict=False):
            write(tmp_path / f"{name}.parquet", text=[f"{name}1", f"{name}2"], label=forms[place])
        assert labels_at(tmp_path) == expected * len(forms), order


def test_categories_of_views_as_polars_writes_them(tmp_path):
    labels = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.uint32()), pa.array(["x", "y"], pa.string_view()))
    table = pa.table({"text": pa.array(["a", "b", "c"], pa.string_view()), "label": labels})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as file:
        file.write_table(table)
    assert labels_at(tmp_path / "t.arrow", skip=True) == ["x", "y"]
    assert read_cells(str(tmp_path / "t.arrow"), WHERE).texts["label"].to_pylist() == ["x", "y", None]


ROWS = "text,label\n" + "a,x\n" * 300_000 + "caf\u00e9,y\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "t.csv",
            ROWS.encode("latin-1"),
            "line 300002 is not UTF-8 (byte 0xE9): the file may be Windows-1252 or Latin-1",
        ),
        (
            "t.csv.gz",
            gzip.compress("text,l\u00e4bel\na,x\n".encode("cp1252"), mtime=0),
            "line 1 is not UTF-8 (byte 0xE4)",
        ),
        ("t.tsv", "text\tlabel\na\tx\n".encode("utf-16"), "the file is UTF-16, not UTF-8: save it as UTF-8"),
        ("t.jsonl", '{"text": "caf\u00e9", "label": "x"}\n'.encode("latin-1"), "line 1 is not UTF-8 (byte 0xE9)"),
        ("t.jsonl", '{"text": "a", "label": "x"}\n'.encode("utf-16"), "the file is UTF-16"),
        ("t.json", b'{"text": {"0": "a"}, "label": {"0": "x"}}', 'pandas writes these with orient="records"'),
    ],
)
def test_what_spreadsheets_and_others_write_is_named_with_its_remedy(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JobError) as told:
        source_at(tmp_path / name)
    assert said in unmarked(str(told.value))


def test_an_object_where_rows_are_expected_says_how_pandas_writes_rows(tmp_path):
    (tmp_path / "t.json").write_text('{"columns": ["text", "label"], "data": [["a", "x"]]}')
    with pytest.raises(JobError, match=r"one object, and so one row.* lines=True"):
        draft(tmp_path / "t.json", task=None, columns={})


def test_rows_that_are_left_out_cost_a_bit_each(tmp_path):
    count = 4000
    (tmp_path / "t.csv").write_text("text,label\n" + "a,x\n" * 10 + "a,b,c\n" * count)
    read_table(str(tmp_path / "t.csv"), ["text", "label"], WHERE, Unread(WHERE, skip=True))  # what is kept once
    tracemalloc.start()
    again = Unread(WHERE, skip=True)
    table = read_table(str(tmp_path / "t.csv"), ["text", "label"], WHERE, again)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert (len(again), table.num_rows) == (count, 10)
    assert np.array_equal(again.others(10 + count), np.arange(10))
    assert held < 20 * count, "a set of them takes sixty bytes for each"
