"""Tables in several files: one after another by name, errors that name the file, pins of all of them."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from unfreeze_trainer.data.shards import expanded, folder_of, shards
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError

WHERE = "spec.data.train.source pvc://data/p-*"


def write(path: Path, texts):
    rows = {"text": texts, "label": ["a" for _ in texts]}
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text, "label": "a"}) + "\n" for text in texts))
    else:
        path.write_text("text,label\n" + "".join(f"{text},a\n" for text in texts))


def read(folder, name, **options):
    return read_table(str(folder / name), ["text", "label"], WHERE, **options)["text"].to_pylist()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_files_are_read_in_the_order_of_their_names(tmp_path, suffix):
    for name, texts in (("p-1", ["c"]), ("p-0", ["a", "b"]), ("p-10", ["d"]), ("q-0", ["x"]), (".p-2", ["y"])):
        write(tmp_path / f"{name}.{suffix}", texts)
    assert read(tmp_path, f"p-*.{suffix}") == ["a", "b", "c", "d"]
    assert read(tmp_path, f"p-[01].{suffix}") == ["a", "b", "c"]
    assert read(tmp_path, f"p-?.{suffix}", head=True) == ["a", "b"]


def test_a_file_that_is_called_like_a_pattern_is_that_file(tmp_path):
    write(tmp_path / "p-*.csv", ["own"])
    write(tmp_path / "p-1.csv", ["other"])
    assert read(tmp_path, "p-*.csv") == ["own"]


def test_errors_name_the_file_and_its_row(tmp_path):
    write(tmp_path / "p-0.csv", ["a", "b"])
    (tmp_path / "p-1.csv").write_text("text,label\nc,a\nd,a,more\n")
    with pytest.raises(JobError, match=r"pvc://data/p-\*: p-1\.csv: row 2 has 3 cells, the header 2"):
        read(tmp_path, "p-*.csv")
    (tmp_path / "p-1.csv").write_text("texts,label\nc,a\n")
    with pytest.raises(JobError, match=r"p-1\.csv: no column 'text'; did you mean 'texts'\?"):
        read(tmp_path, "p-*.csv")


def test_rows_that_are_left_out_count_through_all_files(tmp_path):
    write(tmp_path / "p-0.jsonl", ["a", "b"])
    (tmp_path / "p-1.jsonl").write_text('nothing\n{"text": "c", "label": "a"}\n')
    unread = Unread(WHERE, skip=True)
    assert read(tmp_path, "p-*.jsonl", unread=unread) == ["a", "b", "c"]
    assert unread.others(4).tolist() == [0, 1, 3]


def test_columns_of_other_types_are_told_by_file(tmp_path):
    write(tmp_path / "p-0.jsonl", ["a"])
    (tmp_path / "p-1.jsonl").write_text('{"text": "b", "label": 1}\n')
    with pytest.raises(JobError, match=r"p-1\.jsonl: its columns have other types than those of the files before"):
        read(tmp_path, "p-*.jsonl")


def test_what_fits_no_file_says_what_there_is(tmp_path):
    write(tmp_path / "q-0.csv", ["a"])
    with pytest.raises(JobError, match=r"no file fits p-\*\.csv; the folder .* holds q-0\.csv"):
        read(tmp_path, "p-*.csv")
    with pytest.raises(JobError, match="no such folder"):
        read(tmp_path / "none", "p-*.csv")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "inside").mkdir()
    write(tmp_path / "secret.csv", ["x"])
    (tmp_path / "inside" / "p-0.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(JobError, match="does not lie below"):
        read(tmp_path / "inside", "p-*.csv")


def test_in_a_snapshot_of_a_hub_links_lead_to_its_blobs(tmp_path):
    snapshot = tmp_path / "datasets--org--words" / "snapshots" / ("0" * 40) / "data"
    snapshot.mkdir(parents=True)
    (tmp_path / "datasets--org--words" / "blobs").mkdir()
    write(tmp_path / "datasets--org--words" / "blobs" / "p.csv", ["a"])
    (snapshot / "p-0.csv").symlink_to("../../../blobs/p.csv")
    assert shards(str(snapshot / "p-*.csv"), WHERE) == [str(snapshot / "p-0.csv")]
    assert read(snapshot, "p-*.csv") == ["a"]


def test_braces_stand_for_files_that_must_be_there(tmp_path):
    for name, texts in (("a/p-08", ["1"]), ("a/p-09", ["2"]), ("a/p-10", ["3"]), ("b/q", ["4"])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / f"{name}.csv", texts)
    assert read(tmp_path, "a/p-{08..10}.csv") == ["1", "2", "3"]
    assert read(tmp_path, "{b/q,a/p-{10..09}}.csv") == ["4", "3", "2"]
    assert read(tmp_path, "a/p-{0*,10}.csv") == ["1", "2", "3"]
    assert [Path(one).name for one in expanded("p-{0..10}", WHERE)] == [f"p-{n}" for n in range(11)]
    with pytest.raises(JobError, match=r"no file fits p-11\.csv"):
        read(tmp_path, "a/p-{08..11}.csv")
    with pytest.raises(JobError, match="its braces stand for more than 100,000 files"):
        read(tmp_path, "p-{0..9999}{0..9999}.csv")


def test_the_folder_of_braces_ends_before_them(tmp_path):
    literal = tmp_path / "da{ta"
    literal.mkdir()
    assert folder_of(f"{literal}/train-*.csv") == folder_of(f"{literal}/train-{{0..3}}.csv") == literal
    assert folder_of(f"{tmp_path}/{{a,b}}/t.csv") == tmp_path
