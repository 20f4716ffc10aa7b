#!/usr/bin/env bash
# pyarrow 26.0.1: ParquetFile.iter_batches over a plain file on a disk holds what it has read: memory grows by the size of the
# file while one reads small batches and keeps none of them. open without pre_buffer, the same loop takes a few row groups.
#
# One would guess that reading by batches is what one does to files larger than memory, and that buffer_size or a small
# batch_size bounds it. What does it is pre_buffer, meant for stores with a high latency, which reads the columns of all row
# groups ahead. It matters here, since a table larger than a pod's memory is read in one pass: the trainer opens without it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6

cat > table.py <<'PY'
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

schema = pa.schema({"value": pa.float64()})
draw = np.random.default_rng(0)
with pq.ParquetWriter("table.parquet", schema, compression="none", use_dictionary=False) as writer:
    for _ in range(50):  # row groups of 8 MB
        writer.write_table(pa.table({"value": draw.random(1_000_000)}, schema=schema))
PY
cat > read.py <<'PY'
import os
import sys

import pyarrow.parquet as pq


def anonymous():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


options = {} if sys.argv[1] == "default" else {"pre_buffer": False}
before = most = anonymous()
for batch in pq.ParquetFile("table.parquet", **options).iter_batches(batch_size=1000):
    most = max(most, anonymous())
print(round(most - before))
PY
venv/bin/python table.py
whole=$(($(stat -c %s table.parquet) >> 20))
ahead=$(venv/bin/python read.py default)
plain=$(venv/bin/python read.py plain)
echo "a file of $whole MiB, read by batches of 1,000 rows: $ahead MiB more memory, without pre_buffer $plain MiB"
test "$ahead" -gt $((whole / 2))
test "$plain" -lt $((whole / 5))
