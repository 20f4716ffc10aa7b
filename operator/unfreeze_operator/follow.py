"""Follows a FineTuneJob to its end: `python -m unfreeze_operator.follow NAMESPACE NAME`. The chart's test runs it.

Needs no right but to get the job.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import click

from unfreeze_operator.cluster import connection
from unfreeze_operator.cluster.api import Api
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS


async def follow(namespace: str, name: str, pause: float) -> dict[str, Any]:
    """Print each new state of a job, and return the last one: of the job that has ended."""
    shown = ""
    async with Api(await connection.load(), connection.load) as api:
        while True:
            status = (await api.get(FINE_TUNE_JOBS.path(namespace, name))).get("status", {})
            if (line := _line(status)) != shown:
                click.echo(line)
                shown = line
            # A job that is refused has failed without an end, and waits for another spec, which nobody will write here.
            if "completionTime" in status or status.get("phase") == "Failed":
                return status
            await asyncio.sleep(pause)


def _line(status: dict[str, Any]) -> str:
    summary = status.get("summary", {})
    words = [status.get("phase", "not seen by an operator yet"), summary.get("progress", ""), summary.get("metric", "")]
    waits = [f"{pod['pod']} waits: {pod['reason']} {pod.get('message', '')}" for pod in status.get("waiting", ())]
    return "  ".join(word for word in (*words, *waits) if word)


@click.command()
@click.argument("namespace")
@click.argument("name")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds after which to give up.")
@click.option("--pause", default=1.0, show_default=True, help="Seconds between two looks.")
def main(namespace: str, name: str, timeout: float, pause: float) -> None:
    """Follow FineTuneJob NAME in NAMESPACE; exit with 1 when it fails or takes too long."""
    try:
        status = asyncio.run(asyncio.wait_for(follow(namespace, name, pause), timeout))
    except TimeoutError:
        click.echo(f"{namespace}/{name} has not ended after {timeout:g} s", err=True)
        sys.exit(1)
    if status["phase"] == "Failed":
        click.echo(json.dumps(status.get("failure"), indent=2), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
