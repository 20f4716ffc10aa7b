"""The operator's process: it waits for the CRD and for its turn, works, and ends as soon as a part of it dies."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import uuid
from collections.abc import Coroutine
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from unfreeze_operator.cluster import connection, watch
from unfreeze_operator.cluster.api import Api
from unfreeze_operator.cluster.lease import Election
from unfreeze_operator.operate import operate
from unfreeze_operator.settings.allowed import NODE_ANNOTATIONS, Allowed
from unfreeze_operator.settings.network import DNS, EgressRule, Network, Peer, parse
from unfreeze_operator.settings.options import Settings
from unfreeze_operator.settings.prices import NO_PRICES, parse_prices
from unfreeze_operator.settings.sources import parse_sources
from unfreeze_operator.telemetry import logs
from unfreeze_operator.telemetry.health import Health
from unfreeze_operator.telemetry.metrics import Metrics
from unfreeze_operator.telemetry.review import TokenReview

logger = logging.getLogger(__name__)

API_DEPTH = 10_000
"""How deep the JSON of an object may be nested for the API server to take it (encoding/json of Go)."""


async def run(settings: Settings) -> None:
    """Run the operator until it is asked to stop, or until a part of it dies."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Api(await connection.load(), connection.load) as api:
        metrics = Metrics()
        health = Health(metrics, TokenReview(api) if settings.metrics_token_review else None)
        async with asyncio.TaskGroup() as group:
            server = group.create_task(health.serve(settings.http_host, settings.http_port), name="http server")
            health.watch(server)
            if await _unless(stop, watch.wait_for_crd(api)):
                await _in_turn(settings, api, metrics, health, stop)
            server.cancel()


async def _in_turn(settings: Settings, api: Api, metrics: Metrics, health: Health, stop: asyncio.Event) -> None:
    """Work when this process leads, at once where there is no election."""
    if not settings.lease_namespace:
        metrics.leading.set(1)
        await operate(settings, api, metrics, health, stop)
        return
    # A container that is started again keeps its host name, but not the caches that its lease was about.
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    election = Election(api, settings.lease_namespace, settings.lease_name, identity, settings.lease_seconds)
    health.standby = True
    if not await _unless(stop, election.acquire()):
        return
    health.standby = False
    metrics.leading.set(1)
    async with asyncio.TaskGroup() as group:
        hold = group.create_task(election.hold(), name="lease")
        health.watch(hold)
        await operate(settings, api, metrics, health, stop)
        hold.cancel()
    await election.release()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do some work to its end; give it up, and return False, when the process is asked to stop first."""
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
        return tasks[0].done()
    finally:
        for task in tasks:
            task.cancel()


class Json(click.ParamType[Any]):
    """Parts of a NetworkPolicy as JSON."""

    name = "json"

    def __init__(self, kind: type[Peer | EgressRule]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parts, or say what is wrong with them."""
        try:
            return parse(self._kind, value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SourcesType(click.ParamType[Any]):
    """Schemes of sources as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what is allowed, or say what is wrong with it."""
        try:
            return parse_sources(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class PricesType(click.ParamType[Any]):
    """A table of prices as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the table, or say what is wrong with it."""
        try:
            return parse_prices(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Patterns(click.ParamType[Any]):
    """A JSON list of patterns."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the patterns, or say what is wrong with them."""
        try:
            return tuple(TypeAdapter(list[str]).validate_json(value)) if isinstance(value, str) else value
        except ValidationError:
            self.fail(f"{value!r} is no JSON list of texts", param, ctx)


@click.command(context_settings={"auto_envvar_prefix": "UNFREEZE_OPERATOR", "show_default": True})
@click.option("--namespace", "namespaces", multiple=True, help="Namespace to look after, repeatable. Default: all.")
@click.option("--trainer-image", required=True, help="Image of the trainer, for jobs whose template names none.")
@click.option(
    "--trainer-pull-secret",
    "trainer_pull_secrets",
    multiple=True,
    help="Secret in a job's namespace that images are pulled with when its template names none, repeatable.",
)
@click.option("--http-host", default=Settings.http_host, help="Address of /metrics, /healthz and /readyz.")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=Settings.http_port,
    help="Port of /metrics, /healthz and /readyz.",
)
@click.option(
    "--metrics-token-review",
    is_flag=True,
    help="Let only those read /metrics whose token is of an account that may get the nonResourceURL /metrics.",
)
@click.option(
    "--workers", type=click.IntRange(1), default=Settings.workers, help="Jobs that are reconciled at the same time."
)
@click.option(
    "--progress-interval",
    type=click.FloatRange(0, min_open=True),
    default=Settings.progress_interval,
    help="Seconds between looks at a job's progress.",
)
@click.option(
    "--status-interval",
    type=click.FloatRange(0),
    default=Settings.status_interval,
    help="Least seconds between two writes of a running job's status, unless phase, a condition or failure change.",
)
@click.option(
    "--lost-pod-grace",
    type=click.FloatRange(0),
    default=Settings.lost_pod_grace,
    help="Seconds beyond its grace period after which a pod on a dead node is given up; 0: never.",
)
@click.option(
    "--gang-patience",
    type=click.FloatRange(0),
    default=Settings.gang_patience,
    help="Seconds that a gang may hold nodes while it finds too few, before it gives them back for a while; 0: for ever.",
)
@click.option(
    "--metrics-from",
    type=Json(Peer),
    default="[]",
    help="Who may read the trainers' metrics beside the operator: peers of a NetworkPolicy, a JSON list.",
)
@click.option(
    "--egress",
    type=Json(EgressRule),
    default=None,
    show_default="DNS of the cluster",
    help="What trainers may reach beside their gang: egress rules of a NetworkPolicy, a JSON list; [{}] is anything.",
)
@click.option(
    "--sources",
    type=SourcesType(),
    default="{}",
    help='Schemes whose sources jobs may read over the network, a JSON object: {"hf": {"endpoint": "https://...", "egress": [...]}};'
    " without egress it is every public address on port 443.",
)
@click.option(
    "--refused-annotations",
    type=Patterns(),
    default=None,
    show_default="those that act on the node past Pod Security",
    help="Annotations that pods of jobs must not have: patterns, a JSON list; [] refuses none.",
)
@click.option(
    "--allowed-labels",
    type=Patterns(),
    default=None,
    show_default="any",
    help="Labels that pods of jobs may have beside the operator's: patterns, a JSON list.",
)
@click.option(
    "--allowed-priority-classes",
    type=Patterns(),
    default=None,
    show_default="any but system-*-critical",
    help="Priority classes that jobs may name: patterns, a JSON list.",
)
@click.option(
    "--allowed-runtime-classes",
    type=Patterns(),
    default=None,
    show_default="any",
    help="Runtime classes that jobs may name: patterns, a JSON list.",
)
@click.option(
    "--prices",
    type=PricesType(),
    default=NO_PRICES,
    show_default="none",
    help="What accelerators cost, a JSON object; the first entry that fits a job counts:"
    ' {"currency": "USD", "table": [{"resource": "nvidia.com/gpu", "nodeSelector": {"LABEL": "VALUE"}, "perHour": 2.5}]}.',
)
@click.option(
    "--watch-silence",
    type=click.FloatRange(0, min_open=True),
    default=Settings.watch_silence,
    help="Seconds without a word of the API server, not even a bookmark, after which a watch is reopened.",
)
@click.option("--leader-election", is_flag=True, help="Of several operators one works, the others stand by.")
@click.option(
    "--lease-namespace",
    default=connection.own_namespace,
    show_default="its own",
    help="Where the operators' Lease lies.",
)
@click.option(
    "--lease-name",
    default=Settings.lease_name,
    help="Name of the Lease: operators with other namespaces to look after need another one.",
)
@click.option(
    "--lease-seconds",
    type=click.FloatRange(1),
    default=Settings.lease_seconds,
    help="Seconds after which another operator takes over from one that has died.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", help="Least level."
)
def main(
    *,
    log_level: str,
    metrics_from: tuple[Peer, ...],
    egress: tuple[EgressRule, ...] | None,
    leader_election: bool,
    lease_namespace: str,
    refused_annotations: tuple[str, ...] | None,
    allowed_labels: tuple[str, ...] | None,
    allowed_priority_classes: tuple[str, ...] | None,
    allowed_runtime_classes: tuple[str, ...] | None,
    **options: Any,
) -> None:
    """Run FineTuneJobs on the cluster of KUBECONFIG, or of the pod that this process runs in."""
    logs.configure(log_level)
    # Where a schema leaves a field open, one object that nobody could read would end every watch for ever.
    sys.setrecursionlimit(2 * API_DEPTH)
    if leader_election and not lease_namespace:
        raise click.UsageError("--leader-election needs --lease-namespace outside of a cluster")
    network = Network(connection.own_namespace(), metrics_from, (DNS,) if egress is None else egress)
    refused = NODE_ANNOTATIONS if refused_annotations is None else refused_annotations
    allowed = Allowed(refused, allowed_labels, allowed_priority_classes, allowed_runtime_classes)
    try:
        lease = lease_namespace if leader_election else ""
        asyncio.run(run(Settings(network=network, allowed=allowed, lease_namespace=lease, **options)))
    except* Exception as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        # No kubeconfig, no such port: nothing of ours is wrong.
        outside = isinstance(first, OSError | connection.ConfigException)
        logger.critical("The operator ends: %s", first, exc_info=None if outside else first)
        sys.exit(1)


if __name__ == "__main__":
    main()
