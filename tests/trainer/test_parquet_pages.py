"""Pages of Parquet are measured by their own headers: a footer that lies, and values that share beginnings, fill no memory."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.trainer.test_packed import MIB, WHERE, refused
from unfreeze_trainer.data import packed
from unfreeze_trainer.data.parquet_footer import read_footer
from unfreeze_trainer.data.parquet_pages import _headers, pages_of
from unfreeze_trainer.data.tables import read_table


def lie_about_sizes(path: Path) -> None:
    """Have the footer say of each column that it has 100 bytes, in a number that is as long as the one before."""
    content, metadata = bytearray(path.read_bytes()), parquet.read_metadata(path)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for place in range(metadata.row_group(0).num_columns):
        said, number = b"", metadata.row_group(0).column(place).total_uncompressed_size << 1
        while number:
            said, number = said + bytes([number & 127 | 128 * (number > 127)]), number >> 7
        if len(said) > 2:
            at = content.index(said, footer)
            content[at : at + len(said)] = b"\xc8\x81" + b"\x80" * (len(said) - 3) + b"\0"
    path.write_bytes(content)


BEYOND = 1 << 23


@pytest.mark.parametrize(
    "write",
    [
        lambda path: (
            parquet.write_table(
                pa.table({"text": ["x" * BEYOND], "label": ["a"]}), path, compression="zstd", use_dictionary=False
            ),
            lie_about_sizes(path),
        ),
        lambda path: (
            parquet.write_table(pa.table({"text": ["x" * BEYOND] * 2, "label": ["a"] * 2}), path, compression="zstd"),
            lie_about_sizes(path),
        ),
        lambda path: parquet.write_table(
            pa.table({"text": [f"{MIB}{n}" for n in range(40)], "label": ["a"] * 40}),
            path,
            compression="zstd",
            use_dictionary=False,
            column_encoding={"text": "DELTA_BYTE_ARRAY", "label": "PLAIN"},
        ),
        lambda path: parquet.write_table(
            pa.table({"text": [[f"{MIB}{n}" for n in range(40)]], "label": ["a"]}),
            path,
            compression="zstd",
            use_dictionary=False,
            column_encoding={"text.list.element": "DELTA_BYTE_ARRAY", "label": "PLAIN"},
        ),
    ],
    ids=["a footer that lies of a page", "a footer that lies of a dictionary", "shared beginnings", "in a list"],
)
def test_what_a_footer_says_of_pages_is_no_bound(tmp_path, monkeypatch, write):
    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr("unfreeze_trainer.data.columnar._BATCH_MOST_BYTES", 1 << 21)
    write(tmp_path / "t.parquet")
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        said = refused(tmp_path / "t.parquet")
    finally:
        pa.set_memory_pool(before)
    assert "more than 200 times" in said or "save it with another encoding" in said
    assert (pool.max_memory() or 0) < BEYOND


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_pages_are_those_that_were_written(tmp_path, version, compression, dictionary):
    table = pa.table(
        {
            "text": [None if n % 7 == 0 else f"text {n}" for n in range(3000)],
            "list": [[f"{n}"] * (n % 3) for n in range(3000)],
            "number": [n * 0.5 for n in range(3000)],
            "flag": [n % 2 == 0 for n in range(3000)],
        }
    )
    path = tmp_path / "t.parquet"
    parquet.write_table(
        table,
        path,
        row_group_size=1000,
        data_page_size=2000,
        data_page_version=version,
        compression=compression,
        use_dictionary=dictionary,
        write_page_checksum=True,
        write_page_index=True,
    )
    metadata = parquet.read_metadata(path)
    footer = read_footer(str(path), WHERE)
    found = {one.path: one for one in pages_of(str(path), metadata.schema, footer, table.column_names)}
    for number, group in enumerate(footer):
        assert group.rows == metadata.row_group(number).num_rows
        for place, chunk in enumerate(group.chunks):
            told = metadata.row_group(number).column(place)
            assert (chunk.values, chunk.unpacked) == (told.num_values, told.total_uncompressed_size)
            assert (chunk.packed, chunk.data) == (told.total_compressed_size, told.data_page_offset)
            assert chunk.dictionary == (told.dictionary_page_offset or 0)
    groups = [metadata.row_group(n) for n in range(3)]
    for place in range(4):
        columns = [group.column(place) for group in groups]
        pages = found[columns[0].path_in_schema]
        assert pages.values == sum(one.num_values for one in columns)
        assert pages.size <= sum(one.total_uncompressed_size for one in columns)
        assert pages.dictionary == any(one.has_dictionary_page for one in columns)
        assert pages.repeats == (place == 1)
    assert read_table(str(path), ["text", "list"], WHERE).to_pydict() == table.select(["text", "list"]).to_pydict()


@given(st.binary(max_size=60))
def test_a_broken_header_of_a_page_is_told(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "pages"
    path.write_bytes(content)
    with path.open("rb") as file:
        try:
            assert list(_headers(file.fileno(), 0, len(content))) is not None
        except ValueError as error:
            assert "header of a page" in str(error)  # noqa: PT017 - it may be a header as well


def test_row_groups_without_rows_have_no_pages(tmp_path):
    """Arrow writes a dictionary for them, and gives no place of data."""
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    with parquet.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table, table.slice(0, 0)):
            writer.write_table(part)
    assert read_table(str(tmp_path / "t.parquet"), ["text"], WHERE).to_pydict() == {"text": ["a", "b"]}
