"""What benchmarks of outcomes share: a job that is run, how sure a figure of it is, and where rows of tables are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SEED = 0
RESAMPLES = 500
ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"


def record(benchmark: str, name: str, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return a row of a table, and keep it in bench/results/BENCHMARK.jsonl with what it was measured by.

    A row that stands there is not measured again: take its line out to have it measured anew.

    Parameters
    ----------
    benchmark
        Name of its module.
    name
        Of the row.
    measure
        Returns the figures.
    """
    file = RESULTS / f"{benchmark}.jsonl"
    before: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if kept := [one for one in before if one["row"] == name]:
        return kept[0]
    start = time.monotonic()
    figures = dict(measure())
    command = f"python -m bench.{benchmark} {' '.join(['FOLDER', *sys.argv[2:]])}"
    by = {"row": name, "command": command, "commit": commit(), "seed": SEED}
    made = by | {"seconds": round(time.monotonic() - start)} | figures
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as rows:
        rows.write(json.dumps(made) + "\n")
    print(json.dumps(made), file=sys.stderr, flush=True)
    return made


def commit() -> str:
    """Return the last commit of the code that is measured, with a sign of what has been changed since."""
    names = ["crds", "trainer", "examples", "bench/*.py", "bench/support"]
    asked = (["log", "-1", "--format=%h", "--abbrev=7", "--", *names], ["status", "--porcelain", "--", *names])
    commit, changed = (
        subprocess.run(["git", *one], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        for one in asked
    )
    return f"{commit}, changed" if changed else commit


def trained(folder: Path, name: str, spec: Mapping[str, Any]) -> dict[str, float]:
    """Return the test metrics of a job, which is run below a folder; one that has ended is not trained again.

    Parameters
    ----------
    folder
        It gets NAME.yaml and the run's folder NAME.
    name
        Of the job.
    spec
        Of the job, without output.
    """
    whole = {**spec, "output": {"destination": f"file://{folder}/{name}"}}
    job = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": whole}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
    program = "from unfreeze_api.cli import main; main()"
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    command = [sys.executable, "-c", program, "run", str(folder / f"{name}.yaml")]
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | threads)
    results: dict[str, float] = json.loads((folder / name / "report.json").read_text())["results"]["test"]
    return results


def example(folder: Path, name: str) -> dict[str, Any]:
    """Return the spec of an example, without its output, whose claims are folders below a folder."""
    text = (ROOT / "examples" / name).read_text().replace("pvc://", f"file://{folder}/")
    spec: dict[str, Any] = yaml.safe_load(text)["spec"]
    return {key: value for key, value in spec.items() if key != "output"}


def said(folder: Path, name: str) -> dict[str, list[Any]]:
    """Return the columns of what a run's best weights say of its test data, in the order of the rows."""
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = pq.read_table(folder / name / "predictions" / "test.parquet").to_pydict()
    return columns


def told(right: np.ndarray | list[bool], **more: Any) -> dict[str, Any]:
    """Return the accuracy of answers, by which of them are right, and its 95 % interval over the rows (bootstrap)."""
    values = np.asarray(right, dtype=np.float64)
    return {
        "accuracy": round(float(values.mean()), 4),
        "95 %": interval(lambda rows: values[rows].mean(), len(values)),
    } | more


def interval(measure: Callable[[np.ndarray], float], count: int) -> list[float]:
    """Return the 95 % interval of a figure over rows: the percentiles of a bootstrap.

    Parameters
    ----------
    measure
        Returns the figure of some of them, by their indices.
    count
        How many there are.
    """
    rng = np.random.default_rng(SEED)
    found = [measure(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.percentile(found, [2.5, 97.5])
    return [round(float(low), 3), round(float(high), 3)]
