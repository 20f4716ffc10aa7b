"""Every name that another version of Unfreeze, or somebody's own program, reads: gathered from the code.

python -m tests.skew.names           shows them
python -m tests.skew.names --write   writes names.json, when names have been added
"""

from __future__ import annotations

import ast
import functools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from tests.observability.test_metrics import PAGES
from tests.operator.fakes import IMAGE, FakeCluster, job
from unfreeze_api.contracts.progress import ExitCode, Progress, TerminationMessage
from unfreeze_api.contracts.reasons import EVENT
from unfreeze_api.contracts.report import Report
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.generate.crd import schema
from unfreeze_operator.manifests.children import config_map, indexed_job, network_policy, service
from unfreeze_operator.objects import resources
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.settings.network import Network
from unfreeze_operator.status.conditions import REASONS

GOLDEN = Path(__file__).with_name("names.json")
_REPOSITORY = Path(__file__).parents[2]
_SERVER = _REPOSITORY / "trainer/unfreeze_trainer/agent/http.py"
COMMAND = "python -m tests.skew.names --write"


def gather() -> dict[str, list[str]]:
    """Return the names by the place that they stand in."""
    found = {
        "job.json": fields(ResolvedJob),
        "/progress": fields(Progress),
        "termination message": fields(TerminationMessage),
        "report.json": fields(Report),
        "carried": fields(Carried),
        "events.jsonl": {
            f"{kind}: {key}" for kind, keys in run_events(_trees("trainer")) for key in ("time", "event", *keys)
        },
        "FineTuneJob": properties(schema()),
        "condition reasons": {f"{kind}: {reason}" for kind, reasons in REASONS.items() for reason in reasons},
        "trainer reasons": trainer_reasons(_trees("crds", "trainer")),
        "event reasons": EVENT,
        "metrics": (name for page in PAGES.values() for name in series(page())),
        "labels and annotations": labels(),
        "pods": pod_contract(),
    }
    return {place: sorted(set(names)) for place, names in found.items()}


def fields(model: type[BaseModel], parent: str = "") -> Iterator[str]:
    """Yield the paths of a model's fields as they are written, and the words of those that have a choice."""
    for name, field in model.model_fields.items():
        path = f"{parent}{field.serialization_alias or field.alias or name}"
        yield path
        yield from _below(field.annotation, path)


def _below(kind: Any, path: str) -> Iterator[str]:
    origin = get_origin(kind)
    if origin is Literal:
        yield from (f"{path} = {json.dumps(word)}" for word in get_args(kind))
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from fields(kind, f"{path}.")
    elif origin is list:
        yield from _below(get_args(kind)[0], f"{path}[]")
    elif origin is dict:
        yield from _below(get_args(kind)[1], f"{path}.*")
    else:  # a union, or a type with remarks
        for part in get_args(kind):
            yield from _below(part, path)


def properties(node: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the paths of a structural schema, and the words of those that have a choice."""
    if path:
        yield path
    yield from (f"{path} = {json.dumps(word)}" for word in node.get("enum", ()))
    for name, child in node.get("properties", {}).items():
        yield from properties(child, f"{path}.{name}" if path else name)
    for key, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(node.get(key), dict):
            yield from properties(node[key], path + mark)


@functools.cache
def _trees(*rooms: str) -> list[ast.Module]:
    return [ast.parse(file.read_text()) for room in rooms for file in sorted((_REPOSITORY / room).rglob("*.py"))]


def run_events(trees: Iterable[ast.Module]) -> Iterator[tuple[str, list[str]]]:
    """Yield each kind of line that is added to events.jsonl, with its keys.

    Raises
    ------
    ValueError
        A line's kind or keys cannot be seen where it is added.
    """
    for node in _nodes(trees, ast.Call):
        function = node.func
        if not (isinstance(function, ast.Attribute) and function.attr == "add"):
            continue
        if not re.search(r"\bevents$|_events$", ast.unparse(function.value)):
            continue
        kind = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        keys = [keyword.arg for keyword in node.keywords]
        if not isinstance(kind, str) or len(node.args) != 1 or None in keys:
            raise ValueError(f"write kind and keys out, so that they are seen: {ast.unparse(node)}")
        yield kind, keys


def trainer_reasons(trees: Iterable[ast.Module]) -> Iterator[str]:
    """Yield the words that the trainer gives as a reason: for a JobError, by `reason=`, or held in `reason` before that."""
    trees = list(trees)
    for call in _nodes(trees, ast.Call):
        name = ast.unparse(call.func).rpartition(".")[2]
        told = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
        if re.fullmatch(r"\w*Error|Superseded", name):
            told += call.args[:1]
        yield from (word for value in told for word in _words(value))
    for assignment in _nodes(trees, ast.Assign):
        for target in assignment.targets:
            pairs = (
                zip(target.elts, assignment.value.elts, strict=True)
                if isinstance(target, ast.Tuple) and isinstance(assignment.value, ast.Tuple)
                else [(target, assignment.value)]
            )
            for one, value in pairs:
                if isinstance(one, ast.Name) and one.id == "reason":
                    yield from _words(value)


def _words(value: ast.expr) -> Iterator[str]:
    choices = [value.body, value.orelse] if isinstance(value, ast.IfExp) else []
    for choice in choices:
        yield from _words(choice)
    if isinstance(value, ast.Constant) and re.fullmatch(r"([A-Z][a-z]+)+", str(value.value)):
        yield str(value.value)


def _nodes(trees: Iterable[ast.Module], kind: type[Any]) -> Iterator[Any]:
    return (node for tree in trees for node in ast.walk(tree) if isinstance(node, kind))


def series(page: str) -> Iterator[str]:
    """Yield the series of a page of metrics, each with its labels."""
    for family in text_string_to_metric_families(page):
        if family.name.startswith("unfreeze"):
            yield f"{family.name} ({family.type})"
            for sample in family.samples:
                yield f"{sample.name}{{{', '.join(sorted(sample.labels))}}}"


def _children() -> list[dict[str, Any]]:
    view, names = job(queue="team"), resources.GangNames.of("job")
    spec = FakeCluster().context(view).spec
    return [
        config_map(view, spec, names),
        service(view, names.service),
        network_policy(view, Network()),
        indexed_job(view, spec, IMAGE, Carried(), names),
    ]


def labels() -> Iterator[str]:
    """Yield labels and annotations of what the operator makes, and those that it reads."""
    for manifest in _children():
        template = manifest["spec"].get("template", {}) if manifest["kind"] == "Job" else {}
        for place in (manifest, template):
            for kind in ("labels", "annotations"):
                yield from place.get("metadata", {}).get(kind, ())
    for name, value in vars(resources).items():
        if re.search(r"_(LABEL|ANNOTATION|SELECTOR)$", name):
            yield value
    yield from (f"{key}={value}" for key, value in resources.OPERATOR_LABELS.items())


def pod_contract() -> Iterator[str]:
    """Yield what a trainer's image finds in its pod, what it reads of it, and what it answers."""
    spec, names = FakeCluster().context(job()).spec, resources.GangNames.of("job")
    (container,) = indexed_job(job(), spec, IMAGE, Carried(), names)["spec"]["template"]["spec"]["containers"]
    yield f"container {container['name']}"
    yield f"command {' '.join(container['command'])}"
    own = {variable.name for variable in spec.template.env or ()}
    yield from (f"environment {variable['name']}" for variable in container["env"] if variable["name"] not in own)
    for constant in _nodes(_trees("trainer"), ast.Constant):
        if re.fullmatch(r"UNFREEZE_[A-Z_]+|JOB_COMPLETION_INDEX", str(constant.value)):
            yield f"environment {constant.value}"
    yield from (f"port {port['name']} {port['containerPort']}" for port in container["ports"])
    yield from (f"mount {mount['mountPath']}" for mount in container["volumeMounts"])
    yield from (f"file {name}" for name in config_map(job(), spec, names)["data"])
    yield from (f"exit code {code.value} {code.name}" for code in ExitCode)
    for constant in _nodes([ast.parse(_SERVER.read_text())], ast.Constant):
        if re.fullmatch(r"/[a-z]+", str(constant.value)):
            yield f"path {constant.value}"


def golden() -> dict[str, list[str]]:
    """Return the names that stand for good."""
    found: dict[str, list[str]] = json.loads(GOLDEN.read_text())
    return found


def lost(now: dict[str, list[str]], then: dict[str, list[str]]) -> list[str]:
    """Return the names that there were and are not any more, each with its place."""
    return [f"{place}: {name}" for place, names in then.items() for name in names if name not in now.get(place, ())]


def main() -> None:
    """Print the names or write them; names that would get lost are never written."""
    now = gather()
    text = json.dumps(now, indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] != ["--write"]:
        sys.stdout.write(text)
        return
    if GOLDEN.exists() and (gone := lost(now, golden())):
        sys.exit("These names are gone, and other versions read them. Add an alias:\n  " + "\n  ".join(gone))
    GOLDEN.write_text(text)


if __name__ == "__main__":
    main()
