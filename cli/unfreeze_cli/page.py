"""`kubectl ftj status`: one job on one page. Pure: objects of the API in, something that rich prints out.

Objects are read as they come, field by field: a plugin may be older or newer than the cluster's CRD.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from textwrap import indent
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from unfreeze_api.contracts.evaluation import Evaluation
from unfreeze_api.contracts.names import INDEX_ANNOTATION
from unfreeze_api.grammar.sizes import share
from unfreeze_cli.spark import spark
from unfreeze_cli.text import line, plain, since

Json = dict[str, Any]

SUCCEEDED = "the job has succeeded. "
"""What stands before the trainer's sentence in the message of condition Complete."""
MOST_CLASSES = 20
"""That are shown."""
COLOURS = {"Running": "green", "Succeeded": "green", "Failed": "red", "Queued": "yellow", "Pending": "yellow"}


def page(job: Json, pods: list[Json] | None, now: datetime) -> RenderableType:
    """Return everything about a job.

    Parameters
    ----------
    job
        The FineTuneJob.
    pods
        Its pods, oldest first; None when the person may not list them.
    now
        The time, for ages.
    """
    status = job.get("status", {})
    parts: list[RenderableType] = [_head(job, status, now)]
    parts += _reason(status)
    parts += _course(job, status)
    parts += _phases(job, status)
    parts += _gang(status, pods, now)
    parts += _facts(status, now)
    parts += _results(status)
    parts += _decisions(status)
    parts += _failure(status)
    parts += _warnings(status)
    return Group(*parts)


def _head(job: Json, status: Json, now: datetime) -> RenderableType:
    spec, meta = job["spec"], job["metadata"]
    state = status.get("phase", "Pending")
    end = status.get("completionTime")
    times = (
        f"took {since(status['startTime'], datetime.fromisoformat(end))}, ended {since(end, now)} ago"
        if (end and "startTime" in status)
        else f"created {since(meta.get('creationTimestamp'), now)} ago"
    )
    title = Text.assemble(
        (f"{meta.get('namespace', '')}/{meta['name']}", "bold"), "  ", (state, COLOURS.get(state, "")), f"  {times}"
    )
    distribution = spec.get("distribution", {})
    adapter = spec.get("adapter", {}).get("type")
    how = f"{spec['strategy']['type']}{f' with {adapter}' if adapter else ''}"
    nodes = distribution.get("numNodes", 1)
    where = f"{distribution.get('engine', 'DDP')} on {nodes} node{'s' if nodes != 1 else ''}"
    return Group(title, Text(line(f"{spec['task']['type']} from {_base(spec['model'])}: {how}, {where}")))


def _base(model: Json) -> str:
    """Return where the model lies, or each of its towers or candidates."""
    if source := model.get("source"):
        return str(source)
    sources = ", ".join(part["source"] for part in (*model.get("towers", ()), *model.get("candidates", ())))
    return f"one of {sources}" if "candidates" in model else sources


def _metric(job: Json) -> str:
    """Return the name of training.metric; where the spec leaves it to the task, the operator tells."""
    told = job.get("status", {}).get("summary", {}).get("metric", "").partition(" ")[0]
    return str(job["spec"].get("training", {}).get("metric") or told or "metric")


def _reason(status: Json) -> Iterator[RenderableType]:
    """Say why it does not run, while nothing has ended it; or how good its model is, and that it is of no use, if it is not."""
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    if outcome := conditions.get("Complete", {}).get("message", "").partition(SUCCEEDED)[2]:
        yield Text(plain(outcome))
    running, useful = conditions.get("Running"), conditions.get("Useful")
    if useful and useful["status"] == "False":
        yield Text(plain(f"{useful['reason']}: {useful.get('message', '')}"), "yellow")
    if "phase" not in status:
        yield Text("No operator has looked at this job yet.", "yellow")
    elif running and running["status"] != "True" and status.get("phase") not in ("Succeeded", "Failed"):
        yield Text(line(f"{running['reason']}: {running.get('message', '')}"), "yellow")


def _course(job: Json, status: Json) -> Iterator[RenderableType]:
    progress = status.get("progress")
    if progress and (total := progress.get("totalBytes")):
        done = progress.get("fetchedBytes", 0)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total, done, width=24), f"fetching {share(done, total)}")
        yield bar
    if not progress or not progress.get("totalSteps"):
        return
    words = [f"{progress.get('percent', 0)} %", f"step {progress.get('step', 0)}/{progress['totalSteps']}"]
    if progress.get("epoch"):
        words.append(f"epoch {progress['epoch']:.1f}")
    if progress.get("samplesPerSecond"):
        words.append(f"{progress['samplesPerSecond']:.0f} samples/s")
    if eta := status.get("summary", {}).get("eta"):
        words.append(f"{eta} left")
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(100, progress.get("percent", 0), width=24), "  ".join(words))
    yield Text()
    yield bar
    metric = _metric(job)
    points = [*status.get("history", ())]
    now = {"loss": progress.get("loss"), "metric": progress.get("metrics", {}).get(metric)}
    lines = Table.grid(padding=(0, 1))
    for name, field in (("loss", "loss"), (metric, "metric")):
        values = [point.get(field) for point in points] + [now[field]]
        known = [value for value in values if value is not None]
        if known:
            lines.add_row(line(name), f"{known[0]:.4g}", spark(values), f"{known[-1]:.4g}")
    yield lines


def _phases(job: Json, status: Json) -> Iterator[RenderableType]:
    ended, progress = status.get("phases", []), status.get("progress", {})
    earlier = status.get("omitted", {}).get("phases", 0)
    count = progress.get("phaseCount", 0)
    several = count > 1 or "stage" in progress
    now = several and progress.get("phaseName") and status.get("phase") == "Running"
    now = now and (not ended or ended[-1]["name"] != _present(progress))
    if not ended and not now:
        return
    metric = _metric(job)
    table = Table(
        "PHASE", "", "STEPS", "TIME", "TRAINABLE", line(metric).upper(), box=None, pad_edge=False, show_edge=False
    )
    if earlier:
        table.add_row(f"{earlier} earlier", "done", "", "", "", "report.json")
    for phase in ended:
        value = phase.get("metrics", {}).get(metric)
        table.add_row(
            line(phase["name"]),
            "done",
            str(phase["steps"]),
            f"{phase['seconds']:.0f}s",
            f"{phase['trainableParameters']:,}",
            "" if value is None else f"{value:.4g}",
        )
    if now:
        table.add_row(line(_present(progress)), f"now ({progress.get('phaseIndex', 0) + 1} of {count})")
    yield Text()
    yield table


def _present(progress: Json) -> str:
    """Return the name that the present phase has among those that have ended: one of a stage has that of its stage before it."""
    number, _, rest = progress.get("stage", "").partition(" of ")
    count, _, stage = rest.partition(": ")
    name = str(progress["phaseName"])
    return name if number == count else f"{stage}.{name}"  # the last stage is the job itself


def _gang(status: Json, pods: list[Json] | None, now: datetime) -> Iterator[RenderableType]:
    if pods is None or pods or status.get("waiting"):
        yield Text()
    if pods is None:
        yield Text("You may not list the pods of this namespace.", "yellow")
    elif pods:
        table = Table("INDEX", "POD", "NODE", "STATE", "AGE", box=None, pad_edge=False, show_edge=False)
        newest = {index_of(pod): pod["metadata"]["name"] for pod in pods}
        for pod in sorted(pods, key=index_of):
            meta = pod["metadata"]
            replaced = " (replaced)" if newest[index_of(pod)] != meta["name"] else ""
            node = pod.get("spec", {}).get("nodeName", "")
            age = since(meta.get("creationTimestamp"), now)
            table.add_row(str(index_of(pod)), meta["name"], node, pod_state(pod) + replaced, age)
        yield table
    for waiting in status.get("waiting", ()):
        yield Text(line(f"{waiting['pod']}: {waiting['reason']}: {waiting.get('message', '')}"), "yellow")


def index_of(pod: Json) -> int:
    """Return which of the gang a pod is; -1 when it does not say."""
    text = pod["metadata"].get("annotations", {}).get(INDEX_ANNOTATION, "")
    return int(text) if text.isdecimal() else -1


def pod_state(pod: Json) -> str:
    """Return the state of a pod in a few words, like `Running`, or `Failed: OOMKilled, exit code 137`."""
    status = pod.get("status", {})
    phase = "Terminating" if "deletionTimestamp" in pod["metadata"] else status.get("phase", "Pending")
    for container in status.get("containerStatuses", ()):
        if ended := container.get("state", {}).get("terminated"):
            return line(f"{phase}: {ended.get('reason', 'ended')}, exit code {ended['exitCode']}")
        if waiting := container.get("state", {}).get("waiting"):
            return line(f"{phase}: {waiting.get('reason', 'waiting')}")
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))
    return f"{phase}, not ready" if phase == "Running" and not ready else phase


def _facts(status: Json, now: datetime) -> Iterator[RenderableType]:
    facts = []
    if checkpoint := status.get("checkpoint"):
        facts.append(f"Newest checkpoint: step {checkpoint['step']}, {since(checkpoint['time'], now)} old")
    if restarts := status.get("restarts"):
        facts.append(f"Restarts: {restarts.get('inPlace', 0)} in place, {restarts.get('pods', 0)} pods replaced")
    if seconds := status.get("acceleratorSeconds"):
        facts.append(f"Accelerators: {seconds / 3600:.2f} hours{_cost(status.get('cost', {}))}")
    if facts:
        yield Text()
        yield Text("\n".join(facts))


def _cost(cost: Json) -> str:
    """Return what is known of a cost beside its hours, as far as the operator has told it."""
    estimated, amount, end = (cost.get(name) for name in ("estimatedAcceleratorHours", "amount", "estimatedAmount"))
    text = "" if estimated is None else f" of about {estimated:.2f}"
    if amount is not None:
        about = "" if end is None else f" of about {end:.2f}"
        text += f": {amount:.2f}{about} {line(cost.get('currency', ''))}"
    return text


def _results(status: Json) -> Iterator[RenderableType]:
    if results := status.get("results"):
        yield Text()
        yield Text("Results", "bold")
        for name, value in sorted(results.items()):
            yield Text(f"  {line(name)}  {value:.4g}")
        if more := status.get("omitted", {}).get("results", 0):
            yield Text(f"  and {more} more in report.json")


def _decisions(status: Json) -> Iterator[RenderableType]:
    if decisions := status.get("decisions"):
        yield Text()
        yield Text("Decisions", "bold")
        for one in decisions:
            text = f"  {one['type']}: {one['answer']}: {one['message']}"
            yield Text(line(text), "yellow" if one.get("warning") else "")


def figures(text: str) -> RenderableType:
    """Return the figures of the classes, of test data where there is some; evaluation.json is given, as any version has it.

    Raises
    ------
    click.ClickException
        It cannot be read.
    """
    try:
        evaluation = Evaluation.read(text)
    except ValueError as error:
        raise click.ClickException(f"evaluation.json cannot be read: {error}") from None
    name = "test" if "test" in evaluation.splits else "validation"
    split = evaluation.splits.get(name)
    if split is None or not split.classes:
        return Text("\nNo figures of classes: the model predicts numbers")
    worst = sorted(split.classes, key=lambda one: (one.f1, -one.support))
    columns = ("CLASS", "PRECISION", "RECALL", "F1", "ROWS")
    table = Table(*columns, box=None, pad_edge=False, show_edge=False)
    for one in worst[:MOST_CLASSES]:
        table.add_row(
            line(one.label), *(f"{value:.3f}" for value in (one.precision, one.recall, one.f1)), f"{one.support:,}"
        )
    more = len(worst) - MOST_CLASSES + split.classes_left_out
    rest = [Text(f"and {more:,} more in evaluation.json")] if more > 0 else []
    return Group(Text(), Text(f"Classes of the {name} data, the lowest F1 first", "bold"), table, *rest)


def _failure(status: Json) -> Iterator[RenderableType]:
    failure = status.get("failure")
    if not failure:
        return
    where = [
        f"pod {failure['pod']}" if "pod" in failure else "",
        f"node {failure['node']}" if "node" in failure else "",
    ]
    where += [f"rank {failure['rank']}" if "rank" in failure else ""]
    where += [f"exit code {failure['exitCode']}" if "exitCode" in failure else ""]
    title = "Failure" if status.get("phase") == "Failed" else "Newest failure, after which the job continues"
    yield Text()
    yield Text(title, "bold red")
    yield Text(indent(plain(f"{failure['reason']}: {failure.get('message', '')}"), "  "))
    if place := ", ".join(filter(None, where)):
        yield Text(line(f"  {place}"))
    if tail := failure.get("logTail"):
        yield Text(indent(plain(tail.rstrip()), "    "), "dim")


def _warnings(status: Json) -> Iterator[RenderableType]:
    if warnings := status.get("warnings"):
        yield Text()
    for warning in warnings or ():
        yield Text(line(f"Warning: {warning}"), "yellow")
