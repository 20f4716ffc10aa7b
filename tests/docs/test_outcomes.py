"""Tables of outcomes have the figures that their benchmarks have kept, with command and commit."""

import json
import re
from pathlib import Path

import pytest

from bench.support.beside import table

ROOT = Path(__file__).parents[2]
TEXT = "\n".join((ROOT / "docs" / page).read_text() for page in ("tasks.md", "strategies.md"))
INTERVAL = "95 %"
ROWS = [
    pytest.param(row, id=f"{file.stem}: {row['row']}")
    for file in sorted((ROOT / "bench/results").glob("*.jsonl"))
    for row in map(json.loads, file.read_text().splitlines())
    if any(key.endswith(INTERVAL) for key in row)
]
COMMIT, BOUNDS = re.compile(r"^\|.*\| `([0-9a-f]{7})` \|$"), re.compile(r"\((-?[0-9.]+ to -?[0-9.]+)\)")


def shown(value):
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}")


@pytest.mark.parametrize("row", ROWS)
def test_each_row_stands_in_a_table_with_its_interval_command_and_commit(row):
    figures = {key.removesuffix(INTERVAL).strip() or "accuracy": row[key] for key in row if key.endswith(INTERVAL)}
    cells = [f"{shown(row[name])} ({shown(low)} to {shown(high)})" for name, (low, high) in figures.items()]
    commit = row["commit"].split(",")[0]
    lines = [line for line in map(str.strip, TEXT.splitlines()) if line.startswith("|") and f"`{commit}`" in line]
    assert [line for line in lines if all(f"| {cell} |" in line for cell in cells)], (cells, commit)
    assert f"`{row['command']}`" in TEXT


def test_what_was_forgotten_is_told_as_it_was_kept():
    text = " ".join((ROOT / "docs/judgement.md").read_text().replace("\n> ", " ").split())
    rows = [json.loads(line) for line in (ROOT / "bench/results/forgetting.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        if "loss" in row:  # a language model's, in a table
            kept = [*row["figures"].values()][:3]
            assert f"| {' | '.join(f'{one:.3f}' for one in (row['loss'], *kept))} |" in text
            continue
        assert row["said"] in text
        assert f"{row['accuracy']:.3f}" in text


def test_auto_beside_single_strategies_is_told_as_it_was_kept():
    rows = [json.loads(line) for line in (ROOT / "bench/results/auto.jsonl").read_text().splitlines()]
    assert len({row["row"] for row in rows}) == len(rows)
    text = (ROOT / "docs/judgement.md").read_text()
    known, told = (
        [line for line in lines.splitlines() if line.startswith(tuple(f"| {row['set']} |" for row in rows))]
        for lines in (table(rows), text)
    )
    assert told == known


def test_a_figure_with_an_interval_and_a_commit_is_of_a_row():
    known = {
        (row["commit"].split(",")[0], f"{shown(low)} to {shown(high)}")
        for row in (parameter.values[0] for parameter in ROWS)
        for low, high in (row[key] for key in row if key.endswith(INTERVAL))
    }
    lines = [line for line in map(str.strip, TEXT.splitlines()) if COMMIT.search(line)]
    assert lines
    told = {(COMMIT.search(line)[1], interval) for line in lines for interval in BOUNDS.findall(line)}
    assert told - known == set()
