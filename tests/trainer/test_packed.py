"""Tables as they lie there: compressed, in Arrow's formats, in folders; what is cut off, broken or made to fill the memory."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.trainer.jobs import make_job
from unfreeze_trainer.data import packed, unpacked
from unfreeze_trainer.data.arrow_messages import unpacked_sizes
from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.columnar import read_arrow, read_parquet
from unfreeze_trainer.data.json_lines import read_json_lines
from unfreeze_trainer.data.pins import pin_data
from unfreeze_trainer.data.samples import read_splits, read_texts
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.targets import encoder

WHERE = "spec.data.train.source pvc://data/t"
PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}
CSV = b"text,label\n" + b"".join(b'"some, text %d",a\n' % n for n in range(50))
LINES = b"".join(json.dumps({"text": f"some, text {n}", "label": "a"}).encode() + b"\n" for n in range(50))


def texts(path: Path, **options):
    return read_table(str(path), ["text", "label"], WHERE, **options)["text"].to_pylist()


def refused(path: Path, **options) -> str:
    with pytest.raises(JobError) as error:
        texts(path, **options)
    assert (error.value.reason, error.value.message.startswith(WHERE)) == ("InvalidData", True)
    return error.value.message


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(("kind", "content"), [(".csv", CSV), (".jsonl", LINES)])
def test_compressed_tables_are_what_they_were(tmp_path, suffix, kind, content):
    path = tmp_path / f"t{kind}{suffix}"
    path.write_bytes(
        PACKERS[suffix](content) + PACKERS[suffix](content.partition(b"\n")[2] if kind == ".csv" else content)
    )
    wanted = [f"some, text {n}" for n in range(50)] * 2
    assert texts(path) == wanted
    assert read_cells(str(path), WHERE).texts["text"].to_pylist() == wanted


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(("kind", "content"), [(".csv", CSV), (".jsonl", LINES)])
def test_what_is_cut_off_or_broken_is_refused_by_name(tmp_path, suffix, kind, content):
    path = tmp_path / f"t{kind}{suffix}"
    whole = PACKERS[suffix](content * 40)
    path.write_bytes(whole[:-9])
    assert "file is cut off, after" in refused(path)
    path.write_bytes(whole[: len(whole) // 2] + bytes(8) + whole[len(whole) // 2 + 8 :])
    assert "file is " in (said := refused(path)) or "is not JSON" in said  # gzip has no sum before its end
    path.write_bytes(content)
    assert f"ends in {suffix}, and is no" in refused(path)
    path.write_bytes(b"")
    assert "and is empty" in refused(path)


def test_a_compressed_file_without_its_suffix_is_told_which(tmp_path):
    (tmp_path / "t.csv").write_bytes(gzip.compress(CSV))
    assert "it is compressed: rename it, so that it ends in .csv.gz" in refused(tmp_path / "t.csv")
    (tmp_path / "t.parquet.gz").write_bytes(gzip.compress(CSV))
    assert ".parquet is compressed within: unpack it" in refused(tmp_path / "t.parquet.gz")


def test_rows_of_compressed_files_are_named(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(CSV + b"a,b,c\n"))
    assert "row 51 has 3 cells, the header 2" in refused(path)
    path.write_bytes(gzip.compress(CSV + b'"a,b\nc,d\n'))
    assert "row 51, on line 52, has a quote that is not closed" in refused(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("kind", [".csv", ".jsonl"])
def test_a_bomb_is_refused_and_not_kept(tmp_path, monkeypatch, suffix, kind):
    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 16)
    path = tmp_path / f"t{kind}{suffix}"
    row = b'{"text": "a", "label": "b"}\n' if kind == ".jsonl" else b"aaaa,b\n"
    path.write_bytes(PACKERS[suffix](b"text,label\n" * (kind == ".csv") + row * 60_000))
    assert "become more than 200 times as many" in refused(path)


def test_a_first_line_without_an_end_is_not_read_whole(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a" * (8 << 20)))
    assert "the header is longer than 1 MiB" in refused(path)


def test_columns_that_unpack_a_thousandfold_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("unfreeze_trainer.data.packed.FREE_BYTES", 1 << 20)
    cells = pa.table({"text": ["x" * 20_000] * 1000, "label": ["a"] * 1000})
    parquet.write_table(cells, tmp_path / "t.parquet")
    assert "become more than 200 times as many" in refused(tmp_path / "t.parquet")
    with pa.ipc.new_file(
        tmp_path / "t.arrow", cells.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as file:
        file.write_table(cells)
    assert "become more than 200 times as many" in refused(tmp_path / "t.arrow")


def repeated(cell: str, kind: pa.DataType, count: int, lists: int = 0) -> pa.Array:
    """Return so many cells of one text, as a dictionary; of a struct its first field is the text, of lists each has so many of them."""
    indices = pa.array([0] * count * max(1, lists), pa.int32())
    many = pa.DictionaryArray.from_arrays(indices, pa.array([cell], kind))
    return pa.ListArray.from_arrays(pa.array(range(0, count * lists + 1, lists), pa.int32()), many) if lists else many


def write_unlike(path: Path, columns: dict[str, pa.Array]) -> None:
    """Write Parquet whose columns are read as they are, whatever they were written from."""
    table = pa.table(columns)
    with parquet.ParquetWriter(path, table.schema, store_schema=False, compression="zstd") as file:
        file.write_table(table)


MIB = "x" * (1 << 20)
BOMBS: dict[str, Callable[[Path], None]] = {
    "a text in each row": lambda path: write_unlike(path, {"text": repeated(MIB, pa.string(), 2048)}),
    "a few long texts": lambda path: write_unlike(path, {"text": repeated(MIB * 16, pa.string(), 64)}),
    "long texts among others": lambda path: write_unlike(
        path,
        {
            "text": pa.concat_arrays(
                [pa.array(["y" * 4096] * 4096).dictionary_encode(), repeated(MIB, pa.string(), 1024)]
            )
        },
    ),
    "bytes of a struct": lambda path: write_unlike(
        path,
        {
            "text": pa.StructArray.from_arrays(
                [repeated(MIB, pa.binary(), 2048), repeated("p", pa.string(), 2048)], ["bytes", "path"]
            )
        },
    ),
    "a list of one row": lambda path: write_unlike(path, {"text": repeated(MIB, pa.string(), 1, lists=2048)}),
    "lists in structs": lambda path: write_unlike(
        path, {"text": pa.StructArray.from_arrays([repeated(MIB, pa.string(), 4, lists=512)], ["a.b"])}
    ),
    "numbers of one row": lambda path: write_unlike(
        path, {"text": pa.ListArray.from_arrays([0, 1 << 22], pa.array(np.zeros(1 << 22, np.int64)))}
    ),
    "a page": lambda path: parquet.write_table(
        pa.table({"text": ["x" * (1 << 25)]}), path, compression="zstd", use_dictionary=False
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_columns_of_parquet_that_would_fill_the_memory_are_refused_before_they_do(tmp_path, monkeypatch, bomb):
    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 20)
    path = tmp_path / "t.parquet"
    BOMBS[bomb](path)
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(JobError, match="become more than 200 times as many") as error:
            read_table(str(path), ["text"], WHERE)
    finally:
        pa.set_memory_pool(usual)
    assert error.value.reason == "InvalidData"
    assert pool.max_memory() < 150 << 20  # of gigabytes, mostly


def one_in_many_views(count: int) -> pa.Array:
    one = pa.array([MIB], pa.string_view())
    view, content = one.buffers()[1].to_pybytes()[:16], one.buffers()[2]
    return pa.Array.from_buffers(one.type, count, [None, pa.py_buffer(view * count), content])


ARROW_BOMBS: dict[str, Callable[[], pa.Array]] = {
    "a text": lambda: pa.array([MIB * 32]),
    "lists": lambda: pa.array([[MIB] * 32]),
    "a dictionary": lambda: pa.array([MIB * 32]).dictionary_encode(),
    "one text in many views": lambda: one_in_many_views(1000),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bomb", ARROW_BOMBS)
def test_batches_of_arrow_that_would_fill_the_memory_are_refused_before_they_do(tmp_path, monkeypatch, bomb, stream):
    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 20)
    path, column = tmp_path / "t.arrow", ARROW_BOMBS[bomb]()
    table = pa.table({"text": column})
    made = pa.ipc.new_stream if stream else pa.ipc.new_file
    with made(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(table)
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(JobError, match="become more than 200 times as many"):
            read_table(str(path), ["text"], WHERE)
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < 16 << 20


UNREAD = {
    "lists": (pa.list_(pa.int64()), [[0] * 100]),
    "fixed lists": (pa.list_(pa.int8(), 2), [[0, 0]]),
    "views": (pa.list_(pa.string_view()), [["x" * 50, "y" * 50]]),
    "structs": (pa.struct([("a", pa.int8()), ("b", pa.large_string())]), [{"a": 1, "b": "x"}]),
    "maps": (pa.map_(pa.string(), pa.int64()), [[("x", 1)]]),
    "nothing": (pa.null(), [None]),
    "dictionaries": (pa.dictionary(pa.int32(), pa.string()), ["x"]),
    "runs": (pa.run_end_encoded(pa.int32(), pa.string()), None),
    "unions": (None, None),
}
MASKS = pa.ListArray.from_arrays(np.arange(65, dtype=np.int32) * 20_000, np.zeros(64 * 20_000, np.int64))
"""Of 64 rows, ten megabytes that are a few bytes when they are packed."""


def unread_column(kind: str) -> pa.Array:
    if kind == "runs":
        return pa.RunEndEncodedArray.from_arrays(pa.array([64], pa.int32()), pa.array(["x"]))
    if kind == "unions":
        return pa.UnionArray.from_sparse(pa.array([0] * 64, pa.int8()), [pa.array(range(64)), pa.array(["x"] * 64)])
    return pa.array(UNREAD[kind][1] * 64, UNREAD[kind][0])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("before", UNREAD)
def test_columns_of_arrow_that_nobody_reads_do_not_count(tmp_path, monkeypatch, before, stream):
    """Masks of lists as segmentation has them become a thousand times as many bytes; what is read beside them counts as ever."""
    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 10)
    path = tmp_path / "t.arrow"
    columns = {before: unread_column(before), "text": pa.array(["a"] * 64), "mask": MASKS}
    table = pa.table({**columns, "view": pa.array(["z" * 5000] * 64, pa.string_view())})
    made = pa.ipc.new_stream if stream else pa.ipc.new_file
    with made(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(table)
    assert read_table(str(path), ["text"], WHERE)["text"].to_pylist() == ["a"] * 64
    sizes = [sum(unpacked_sizes(str(path), [name], is_file=not stream)) for name in ("text", "mask", "view", "none")]
    assert sizes[0] < 1000 < 64 * 5000 <= sizes[2] < sizes[1]
    assert sizes[3] == sum(unpacked_sizes(str(path), [before], is_file=not stream)), "one is read at least"
    with pytest.raises(JobError, match="become more than 200 times as many"):
        read_table(str(path), ["mask"], WHERE)


def test_a_batch_of_arrow_that_only_the_footer_names_is_measured_too(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 20)
    path, table = tmp_path / "t.arrow", pa.table({"text": [MIB * 32]})
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(table)
    content = path.read_bytes()
    content = content[:8] + bytes.fromhex("ffffffff00000000") + content[16:]  # a stream would end here
    path.write_bytes(content)
    with pytest.raises(JobError, match="become more than 200 times as many"):
        next(read_arrow(str(path), ["text"], WHERE, Unread(WHERE, skip=False), head=False))


@pytest.mark.parametrize("count", range(0, 600, 40))
def test_arrow_that_is_cut_off_or_has_another_footer_is_refused_by_name(tmp_path, count):
    path = tmp_path / "t.arrow"
    write_arrow(path, ROWS)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 10 - count] + content[-10:])
    if count:
        assert "cannot be read as .arrow" in refused(path)
    path.write_bytes(content[: len(content) - 10 - count] + bytes(count) + content[-10:])
    if count > 40:
        assert "cannot be read as .arrow" in refused(path)


def test_what_is_large_and_no_bomb_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacked, "PIECE_BYTES", 1 << 16)
    kinds = {
        "text": [f"{n} {'x' * 50 * (n % 7)}" for n in range(3000)],
        "words": [[f"{'a' * 40}{n if n % 2 else ''}"] * (n % 5) for n in range(3000)],
        "file": [{"bytes": b"x" * 300, "path": str(n)} for n in range(3000)],
        "a.b": ["one", "two", None] * 1000,
    }
    parquet.write_table(pa.table(kinds), tmp_path / "t.parquet", row_group_size=700, dictionary_pagesize_limit=4096)
    parts = list(read_parquet(str(tmp_path / "t.parquet"), [*kinds], WHERE, Unread(WHERE, skip=False), head=False))
    assert len(parts) > 20
    whole = pa.concat_tables(parts)
    assert whole.to_pydict() == kinds
    assert [str(kind) for kind in whole.schema.types] == [
        *("string", "list<item: string>", "struct<bytes: binary, path: string>", "string")
    ]


@pytest.mark.parametrize("long", [1, 200])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()])
def test_texts_keep_their_type_however_they_are_read(tmp_path, kind, long):
    cells = pa.array([None, *[f"{'x' * long}{n % 9}" for n in range(400)]]).cast(kind)
    parquet.write_table(pa.table({"text": cells}), tmp_path / "t.parquet", row_group_size=150)
    [*parts] = read_parquet(str(tmp_path / "t.parquet"), ["text"], WHERE, Unread(WHERE, skip=False), head=False)
    found = pa.concat_tables(parts)["text"]
    assert found.to_pylist() == cells.to_pylist()
    assert found.type == (pa.large_string() if kind == pa.string_view() else kind)


@pytest.mark.parametrize(
    ("column", "size"),
    [
        (pa.array(["x" * 100, None, "y"], pa.string_view()), 101),
        (
            pa.ListViewArray.from_arrays(
                pa.array([0] * 50, pa.int32()), pa.array([9] * 50, pa.int32()), pa.array(range(9))
            ),
            3600,
        ),
        (pa.array(["x" * 100, "y"] * 50).dictionary_encode(), 5050),
        (pa.array([["x" * 100]] * 50, pa.list_(pa.dictionary(pa.int32(), pa.string()))), 5000),
        (pa.array([{"a": "x" * 100}] * 50, pa.struct({"a": pa.dictionary(pa.int32(), pa.string())})), 5000),
        (pa.array([[("k", "x" * 100)]] * 50, pa.map_(pa.string(), pa.string())), 5050),
    ],
)
def test_what_stands_for_several_values_counts_as_often_as_it_does(column, size):
    assert size <= unpacked.unpacked_bytes(column) < 2 * size + 200
    assert unpacked.unpacked_bytes(column.slice(0, 1)) <= unpacked.unpacked_bytes(column)


ROWS = pa.table(
    {"text": [f"t{n}" for n in range(5)], "label": pa.array(list("aabab")).dictionary_encode(), "n": range(5)}
)


def write_arrow(path: Path, rows: pa.Table, *, stream: bool = False) -> None:
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, rows.schema) as file:
        file.write_table(rows, max_chunksize=2)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("suffix", [".arrow", ".feather"])
def test_arrow_files_and_streams(tmp_path, stream, suffix):
    path = tmp_path / f"t{suffix}"
    write_arrow(path, ROWS, stream=stream)
    found = read_table(str(path), ["label", "text"], WHERE)
    assert (found.column_names, found["text"].to_pylist()) == (["label", "text"], [f"t{n}" for n in range(5)])
    assert len(texts(path, head=True)) == 2
    cells = read_cells(str(path), WHERE)
    assert (cells.names, cells.texts["n"].to_pylist()) == (["text", "label", "n"], list("01234"))
    with pytest.raises(JobError, match="no column 'txt'; did you mean 'text'"):
        read_table(str(path), ["txt"], WHERE)
    path.write_bytes(path.read_bytes()[:-150])
    assert f"cannot be read as {suffix}" in refused(path)


def test_arrow_of_offsets_beyond_its_texts_is_refused(tmp_path):
    path = tmp_path / "t.arrow"
    write_arrow(path, pa.table({"text": ["some", "more"], "label": ["a", "b"]}))
    offsets, beyond = (b"".join(n.to_bytes(4, "little") for n in (0, 4, end)) for end in (8, 1 << 30))
    path.write_bytes(path.read_bytes().replace(offsets, beyond))
    assert "cannot be read as .arrow" in refused(path)


def test_a_folder_of_tables_is_one_table(tmp_path):
    for name, rows in (("b.csv.gz", b"3,z\n"), ("a.csv.gz", b"1,x\n2,y\n")):
        (tmp_path / name).write_bytes(gzip.compress(b"text,label\n" + rows))
    for name in ("README.md", ".hidden.csv", "state.json"):
        (tmp_path / name).write_text("nothing\n")
    assert texts(tmp_path) == ["1", "2", "3"]
    assert read_cells(str(tmp_path), WHERE).numbers.tolist() == [0, 1, 2]
    (tmp_path / "c.csv").write_text("text,label\nd,e,f\n")
    assert f"{WHERE}: c.csv: row 1 has 3 cells" in refused(tmp_path)
    unread = Unread(WHERE, skip=True)
    assert (texts(tmp_path, unread=unread), unread.others(4).tolist()) == (["1", "2", "3"], [0, 1, 2])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.csv", "b.jsonl"], "of several formats, a.csv, b.jsonl"),
        (["train-0.csv", "test-0.csv"], "of several splits, test-0.csv, train-0.csv"),
        (["notes.txt", "sub/a.csv"], "it has files notes.txt and the folders sub"),
        ([], "it has no files"),
    ],
)
def test_a_folder_that_is_no_table_says_what_lies_there(tmp_path, names, said):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text,label\n")
    assert said in refused(tmp_path)


def test_pins_of_a_folder_change_with_its_tables(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny,b\n")
    job = make_job(tmp_path / "model", tmp_path)
    pins = [pin_data(read_texts(job.data.train, WHERE))]
    (tmp_path / "b.csv").write_text("text,label\nz,b\n")
    pins.append(pin_data(read_texts(job.data.train, WHERE)))
    (tmp_path / "notes.md").write_text("no table\n")
    pins.append(pin_data(read_texts(job.data.train, WHERE)))
    assert pins[0] != pins[1] == pins[2]


def test_a_file_of_the_training_folder_is_no_data_to_measure_on(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny,b\n")
    job = make_job(
        tmp_path / "model", tmp_path, data={"validation": {"source": f"file://{tmp_path}/a.csv", "fraction": None}}
    )
    with pytest.raises(JobError, match="is the training data"):
        read_splits(job, read_texts, None)


def test_a_file_in_both_of_two_patterns_is_warned_of(tmp_path, caplog):
    for name, label in (("a", "x"), ("b", "y"), ("c", "x")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\none {name},{label}\ntwo {name},y\n")
    data = {"train": {"source": f"file://{tmp_path}/[ab].csv"}}
    data["validation"] = {"source": f"file://{tmp_path}/[bc].csv", "fraction": None}
    job = make_job(tmp_path / "model", tmp_path, data=data, training={"batchSize": 2})
    _, splits = read_splits(job, read_texts, encoder("Labels"))
    assert len(splits["validation"]) == 4
    assert f"are measured on as well, where they are learned by heart: {tmp_path}/b.csv" in caplog.text


def test_long_lines_are_cut_into_parts_by_their_length(tmp_path, monkeypatch):
    monkeypatch.setattr("unfreeze_trainer.data.json_lines.CHUNK_CHARACTERS", 100)
    (tmp_path / "t.jsonl").write_bytes(LINES)
    parts = list(read_json_lines(str(tmp_path / "t.jsonl"), ["text"], WHERE, Unread(WHERE, skip=False), head=False))
    assert len(parts) > 9
    assert [text for part in parts for text in part["text"].to_pylist()] == [f"some, text {n}" for n in range(50)]


@settings(max_examples=30, deadline=None)
@given(
    cells=st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.sampled_from("ab")), min_size=1, max_size=30),
    parts=st.integers(1, 4),
    suffix=st.sampled_from([".parquet", ".arrow", ".jsonl", *(f".jsonl{packed}" for packed in PACKERS)]),
)
def test_parts_of_any_format_are_the_whole(tmp_path_factory, cells, parts, suffix):
    folder = tmp_path_factory.mktemp("parts")
    for part in range(parts):
        rows = [
            {"text": text, "label": label}
            for text, label in cells[part * len(cells) // parts : (part + 1) * len(cells) // parts]
        ]
        path = folder / f"{part}{suffix}"
        if ".jsonl" in suffix:
            content = "".join(json.dumps(row) + "\n" for row in rows).encode()
            if not rows:
                continue
            path.write_bytes(PACKERS.get(path.suffix, bytes)(content))
        else:
            table = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in ("text", "label")})
            (parquet.write_table if suffix == ".parquet" else lambda rows, path: write_arrow(path, rows))(table, path)
    found = read_table(str(folder), ["text", "label"], WHERE)
    assert list(zip(*(found[name].to_pylist() for name in ("text", "label")), strict=True)) == cells
