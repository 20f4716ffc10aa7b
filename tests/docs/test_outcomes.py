"""Tables of outcomes have the figures that their benchmarks have kept, with command and commit."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    pytest.param(row, id=f"{file.stem}: {row['row']}")
    for file in sorted((ROOT / "bench/results").glob("*.jsonl"))
    for row in map(json.loads, file.read_text().splitlines())
]
INTERVAL = "95 %"


def shown(value):
    return f"{value:.3f}".replace("0.", ".", 1)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_stands_in_a_table_with_its_interval_command_and_commit(row):
    text = (ROOT / "docs/tasks.md").read_text()
    figures = {key.removesuffix(INTERVAL).strip() or "accuracy": row[key] for key in row if key.endswith(INTERVAL)}
    assert figures
    for name, (low, high) in figures.items():
        assert f"{shown(row[name])} ({shown(low)} to {shown(high)})" in text, name
    assert f"`{row['command']}`" in text
    assert row["commit"].split(",")[0] in text
