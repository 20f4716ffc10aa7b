"""`kubectl ftj top`: jobs with progress and throughput, those that run first. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from unfreeze_cli.text import line, since

Json = dict[str, Any]

ORDER = ("Running", "Pending", "Queued", "Suspended", "Failed", "Succeeded")


def table(jobs: list[Json], now: datetime, *, namespaces: bool) -> RenderableType:
    """Return the jobs as a table, with a sum over those that run."""
    heads = [
        "NAME",
        "STATE",
        "PROGRESS",
        "STEP",
        "LOSS",
        "METRIC",
        "SAMPLES/S",
        "ETA",
        "NODES",
        "RESTARTS",
        "GPU-HOURS",
    ]
    heads = [*(["NAMESPACE"] if namespaces else []), *heads, "AGE"]
    out = Table(*heads, box=None, pad_edge=False, show_edge=False)
    for job in sorted(jobs, key=_rank):
        place = [job["metadata"].get("namespace", "")] if namespaces else []
        out.add_row(*place, *_row(job), since(job["metadata"].get("creationTimestamp"), now))
    return Group(out, "", _sum(jobs))


def _rank(job: Json) -> tuple[int, str, str]:
    phase = job.get("status", {}).get("phase", "Pending")
    meta = job["metadata"]
    return (ORDER.index(phase) if phase in ORDER else len(ORDER), meta.get("namespace", ""), meta["name"])


def _row(job: Json) -> list[str]:
    status = job.get("status", {})
    progress, summary, nodes = status.get("progress", {}), status.get("summary", {}), status.get("nodes", {})
    restarts = status.get("restarts", {})
    seconds = status.get("acceleratorSeconds")
    loss, rate = progress.get("loss"), progress.get("samplesPerSecond")
    return [
        job["metadata"]["name"],
        status.get("phase", "Pending"),
        summary.get("progress", ""),
        f"{progress.get('step', 0)}/{progress['totalSteps']}" if progress.get("totalSteps") else "",
        "" if loss is None else f"{loss:.4g}",
        line(summary.get("metric", "")),
        "" if rate is None else f"{rate:.0f}",
        summary.get("eta", ""),
        f"{nodes.get('ready', 0)}/{nodes['desired']}" if "desired" in nodes else "",
        str(restarts.get("inPlace", 0) + restarts.get("pods", 0)),
        "" if seconds is None else f"{seconds / 3600:.1f}",
    ]


def _sum(jobs: list[Json]) -> str:
    running = [job["status"] for job in jobs if job.get("status", {}).get("phase") == "Running"]
    rate = sum(status.get("progress", {}).get("samplesPerSecond") or 0 for status in running)
    nodes = sum(status.get("nodes", {}).get("ready", 0) for status in running)
    return f"{len(running)} of {len(jobs)} jobs running, {rate:.0f} samples/s on {nodes} nodes"
