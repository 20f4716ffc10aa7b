#!/usr/bin/env bash
# pyarrow 26.0.1: pc.or_ of true and null is null, and pc.any passes over nulls. So the usual way to look for cells that are
# missing or empty, any(or_(is_null(x), equal(x, ""))), says False for a column whose only fault is a null: is_null says true
# there, equal says null, and or_ of both says null.
#
# One would guess Kleene's logic, as in SQL and pandas, where true or unknown is true; that has a name of its own, or_kleene.
# It matters here, since the check that every sample has a label passed over exactly the labels that are missing.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check pyarrow==26.0.1

cat > try.py <<'PY'
import pyarrow as pa
import pyarrow.compute as pc

column = pa.array(["a", None, "b"])
missing, empty = pc.is_null(column), pc.equal(column, "")
plain, kleene = pc.or_(missing, empty), pc.or_kleene(missing, empty)
print("or_:", plain.to_pylist(), "any:", pc.any(plain).as_py())
print("or_kleene:", kleene.to_pylist(), "any:", pc.any(kleene).as_py())
assert plain.to_pylist() == [False, None, False]
assert pc.any(plain).as_py() is False
assert pc.any(kleene).as_py() is True
PY
venv/bin/python try.py
