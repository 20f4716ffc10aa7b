#!/usr/bin/env bash
# pyarrow 26.0.1: open_file with IpcReadOptions(included_fields=...) leaves out a column that nobody wants, but not its dictionary:
# the values of a dictionary-encoded column that is not among them are unpacked and held while the file is open.
#
# One would guess that a column which is left out costs nothing, as a plain one of the same size does. It matters here, since a
# small compressed file may unpack to what fills a pod's memory: dictionaries count towards a file's size, whoever reads them.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check pyarrow==26.0.1

cat > read.py <<'PY'
import sys

import pyarrow as pa

values = pa.array(["x" * 1_000_000 + str(number) for number in range(50)])
beside = {
    "plain": values,
    "dictionary": pa.DictionaryArray.from_arrays(pa.array(range(50), pa.int32()), values),
}[sys.argv[1]]
table = pa.table({"wanted": pa.array(range(50)), "beside": beside})
with pa.OSFile("table.arrow", "wb") as sink:
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
del table, beside, values
before = pa.total_allocated_bytes()
reader = pa.ipc.open_file(pa.OSFile("table.arrow"), options=pa.ipc.IpcReadOptions(included_fields=[0]))
batch = reader.get_batch(0)
assert batch.schema.names == ["wanted"], batch.schema
print((pa.total_allocated_bytes() - before) >> 20)
PY
plain=$(venv/bin/python read.py plain)
dictionary=$(venv/bin/python read.py dictionary)
echo "50 MB of values in a column that is left out: $plain MiB held where it is plain, $dictionary MiB where it is a dictionary"
test "$plain" -lt 5
test "$dictionary" -gt 40
