"""Footers of Parquet that would end the process, or have more read than was measured."""

import base64
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from pyarrow.parquet import encryption

from tests.trainer.test_packed import WHERE, refused
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.thrift_compact import Compact
from unfreeze_trainer.errors import JobError

TABLE = pa.table({"text": [f"text {n}" for n in range(40)], "label": ["a", "b"] * 20})


class Keys(encryption.KmsClient):
    """Keys that are kept beside what they lock."""

    def __init__(self, _):
        encryption.KmsClient.__init__(self)

    def wrap_key(self, key_bytes, _):
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, _):
        return base64.b64decode(wrapped_key)


def write_encrypted(path: Path, *, plain: bool, columns: list[str]) -> None:
    """Write TABLE with some of its columns encrypted, and the footer signed where it is plain, else encrypted."""
    how = encryption.EncryptionConfiguration("footer", column_keys={"key": columns}, plaintext_footer=plain)
    properties = encryption.CryptoFactory(Keys).file_encryption_properties(encryption.KmsConnectionConfig(), how)
    with parquet.ParquetWriter(path, TABLE.schema, encryption_properties=properties) as writer:
        writer.write_table(TABLE)


def footer_of(content: bytes) -> int:
    """Return where the footer of a file begins."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def place_of(content: bytes, field: int) -> int:
    """Return where the value of a field of the first row group stands in a footer."""
    reader = Compact(content, "the footer")
    for number, kind in reader.fields():
        if number != 4:
            reader.skip(kind)
            continue
        reader.list_head()
        for inner, of in reader.fields():
            if inner == field:
                return reader.at
            reader.skip(of)
    raise AssertionError(field)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize(
    ("plain", "columns"), [(True, ["label"]), (True, ["text", "label"]), (False, ["label"])], ids=str
)
def test_what_is_encrypted_is_refused_and_ends_no_process(tmp_path, plain, columns, head):
    path = tmp_path / "t.parquet"
    write_encrypted(path, plain=plain, columns=columns)
    assert "it is encrypted, whole or in part" in refused(path, head=head)
    with pytest.raises(JobError, match="it is encrypted"):  # nor where that column is not asked for
        read_table(str(path), ["text"], WHERE, head=head)


def test_a_chunk_alone_that_says_it_is_encrypted(tmp_path):
    """The footer's own sign left away, as no writer leaves it."""
    path = tmp_path / "t.parquet"
    write_encrypted(path, plain=True, columns=["label"])
    content = bytearray(path.read_bytes())
    begin = footer_of(content)
    reader = Compact(bytes(content[begin:-8]), "the footer")
    for number, kind in reader.fields():
        if number == 8:
            break
        reader.skip(kind)
    content[begin + reader.at - 1] = 0  # the struct ends there
    path.write_bytes(content)
    assert "it is encrypted, whole or in part" in refused(path)


def test_a_group_that_says_it_has_rows_lets_no_other_be_read_unmeasured(tmp_path):
    path, size = tmp_path / "t.parquet", 1 << 24
    with parquet.ParquetWriter(path, TABLE.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(TABLE.slice(0, 0))
        writer.write_table(pa.table({"text": ["x" * size], "label": ["a"]}))
    content = bytearray(path.read_bytes())
    at = footer_of(content) + place_of(bytes(content[footer_of(content) : -8]), 3)
    assert content[at] == 0
    content[at] = 5 << 1
    path.write_bytes(content)
    pool, usual = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert read_table(str(path), ["text"], WHERE, head=True).num_rows == 0
    finally:
        pa.set_memory_pool(usual)
    assert (pool.max_memory() or 0) < size


@pytest.mark.parametrize("end", [b"PAR1", b"PARE", b"", b"\xff\xff\xff\xffPAR1", b"\x04\x00\x00\x00PAR1"])
def test_footers_that_are_none(tmp_path, end):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1" + b"\x19" * 40 + end)
    assert refused(path)


@pytest.mark.slow
def test_any_footer_is_told_of_and_none_ends_the_process(tmp_path):
    """Each byte of a footer, one at a time, as another one."""
    path = tmp_path / "t.parquet"
    parquet.write_table(TABLE, path, row_group_size=30, store_schema=False)
    whole = path.read_bytes()
    for at in range(footer_of(whole), len(whole) - 8):
        content = bytearray(whole)
        content[at] ^= 1 + at % 255
        path.write_bytes(content)
        try:
            read_table(str(path), ["text", "label"], WHERE)
        except JobError as error:
            assert error.reason == "InvalidData"  # noqa: PT017 - it may be a footer as well
