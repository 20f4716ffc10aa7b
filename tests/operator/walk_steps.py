"""Every leaf field that a spec may have, and for each of them two valid specs that differ in it alone. Made from the CRD's schema.

A leaf is a value, or a list or map of values. Specs to start from are the corpus's; where none has a field, its parents are made.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.crds import of_tasks
from tests.crds.corpus import load, patched
from tests.crds.generate import EXAMPLES, _repaired
from unfreeze_api.apiserver.validate import defaulted
from unfreeze_api.generate.crd import schema
from unfreeze_api.grammar.former import renamed
from unfreeze_api.spec.job import FineTuneJobSpec

Json = dict[str, Any]
Judge = Callable[[Json], bool]
"""Whether the API server takes a spec."""

ITEM, ENTRY = "[]", "{}"
"""Parts of a leaf's path: an item of a list of objects, an entry of a map of objects."""
TEXTS = (
    "a",
    "b-1",
    "https://mlflow.example/a",
    "layer.0",
    "layer.1",
    "{} a",
    "{} b",
    "text",
    "label",
    "A",
    "B_1",
    "Exists",
)
MOST_NODES = 4
"""Pods that a walked job may have."""
_STAGE: Json = {"name": "domain", "data": {"train": {"source": "pvc://data/other.csv"}}}
_PARTIAL = {"type": "PartialFineTuning", "learningRate": {"head": 1e-3, "backbone": 1e-4, "layerDecay": 0.9}}
_AFFINITIES = ("podAffinity", "podAntiAffinity")
_LABEL_KEYS = ("matchLabelKeys", "mismatchLabelKeys")


def _near(keys: str) -> Json:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"team": "a"}}, keys: ["a"]}
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": [term],
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}],
    }


MORE_STARTS: tuple[Json, ...] = (
    {"stages": [{**_STAGE, "strategy": {**_PARTIAL, "partialFineTuning": {"lastBlocks": 1}}}]},
    {"stages": [{**_STAGE, "strategy": {**_PARTIAL, "partialFineTuning": {"blocks": ["layer.0"]}}}]},
    {"stages": [{**_STAGE, "strategy": {"type": "FullFineTuning"}}]},
    {"stages": [{**_STAGE, "adapter": {"type": "LoRA"}}]},
    {"stages": [{**_STAGE, "data": {**_STAGE["data"], "validation": {"source": "pvc://data/held.csv"}}}]},
    {"task": {"type": "TextEmbedding", "textEmbedding": {"annotation": "Scores"}}},
    {"strategy": {"type": "Auto", "auto": {"rungs": [{"type": "PartialFineTuning", "lastBlocks": 1}]}}},
    {"strategy": {"type": "Auto", "auto": {"rungs": [{"type": "PartialFineTuning", "blocks": ["layer.0"]}]}}},
    {"adapter": {"type": "PromptTuning", "promptTuning": {"promptTuningInit": "Text", "promptTuningInitText": "a"}}},
    {"template": {"tolerations": [{"key": "a", "operator": "Equal", "value": "b"}]}},
    *({"template": {"affinity": {kind: _near(keys)}}} for kind in _AFFINITIES for keys in _LABEL_KEYS),
)
"""Merge patches on the smallest spec, for fields that need more beside them than the corpus has."""
MEMBERS = {"pEFT": "peft", "loRA": "lora", "iA3": "ia3", "causalLM": "causalLm", "seq2SeqLM": "seq2SeqLm"}


@dataclass(frozen=True)
class Leaf:
    """A leaf field of spec."""

    path: tuple[str, ...]
    node: Json
    """Its schema."""

    @property
    def said(self) -> tuple[str, ...]:
        """The path as messages name it: by today's names, without the marks of items and entries."""
        names = {(*path[:-1], old): path for path, old in renamed(FineTuneJobSpec)}
        return tuple(part for part in names.get(self.path, self.path) if part not in (ITEM, ENTRY))

    def __str__(self) -> str:
        return ".".join(self.path).replace(f".{ITEM}", ITEM).replace(f".{ENTRY}", ENTRY)


@dataclass(frozen=True)
class Step:
    """A leaf and two specs that differ in it alone."""

    leaf: Leaf
    before: Json
    after: Json

    @property
    def change(self) -> Json:
        """The merge patch from the one to the other."""
        return _difference(self.before, self.after)


@cache
def root() -> Json:
    """Return the schema of spec."""
    found: Json = schema()["properties"]["spec"]
    return found


def leaves() -> list[Leaf]:
    """Return all leaf fields, in the order of the CRD."""
    return list(_leaves(root(), ()))


def _leaves(node: Json, path: tuple[str, ...]) -> Iterator[Leaf]:
    items, entries = node.get("items", {}), node.get("additionalProperties", {})
    if node.get("properties"):
        for name, part in node["properties"].items():
            yield from _leaves(part, (*path, name))
    elif items.get("properties"):
        yield from _leaves(items, (*path, ITEM))
    elif entries.get("properties"):
        yield from _leaves(entries, (*path, ENTRY))
    else:
        yield Leaf(path, node)


def step(leaf: Leaf, takes: Judge, seen: Callable[[Json], Any]) -> Step | None:
    """Return two specs that differ in a leaf alone, and in what is made of them where that can be; None where there are none.

    Parameters
    ----------
    takes
        Judges the specs.
    seen
        What is made of a spec that is taken, to compare.
    """
    found, left = None, [MOST_TRIES]

    def judged(spec: Json) -> bool:
        left[0] -= 1
        return left[0] >= 0 and takes(spec)

    for before, after in _pairs(leaf, judged):
        if _said(before) == _said(after):
            continue
        if seen(before) != seen(after):
            return Step(leaf, before, after)
        if found is None:
            found, left[0] = Step(leaf, before, after), min(left[0], MORE_TRIES)
    return found


def _said(node: Any) -> Any:
    """Return a spec without empty texts, which mean as much to Kubernetes as none."""
    if isinstance(node, dict):
        return {name: _said(value) for name, value in node.items() if value != ""}
    return [_said(value) for value in node] if isinstance(node, list) else node


def _pairs(leaf: Leaf, takes: Judge) -> Iterator[tuple[Json, Json]]:
    """Yield pairs of specs that are taken: of the first start of each kind two changes, then all of all."""
    there = [spec for spec in pool() if spec["distribution"]["numNodes"] <= MOST_NODES]
    groups: dict[bool | None, list[Json]] = {True: [], None: [], False: []}
    for spec in there:
        has = _place(spec, leaf.path) is not None
        groups[True if has else None if _holder(spec, leaf.path[:-1]) is not None else False].append(spec)
    for starts, most in itertools.product((groups[True], groups[None]), (2, 100)):
        for before in _first_ones(starts) if most == 2 else starts:
            for after in itertools.islice(_changed(leaf, before), most):
                if after != before and takes(after):
                    yield before, after
    for before in _made(leaf, _first_ones(groups[False])):
        if takes(before):
            yield from ((before, after) for after in _changed(leaf, before) if after != before and takes(after))


def _first_ones(specs: Iterable[Json]) -> list[Json]:
    """Return the first spec of each combination of kinds."""
    kinds: dict[tuple[Any, ...], Json] = {}
    for spec in specs:
        kind = (spec["task"]["type"], spec["strategy"]["type"], spec.get("adapter", {}).get("type"))
        kinds.setdefault(kind, spec)
    return list(kinds.values())


MOST_TRIES = 400
"""Specs that are judged for one leaf."""
MORE_TRIES = 20
"""Specs that are judged after a pair was found of which the same is made."""


# -- specs to start from ---------------------------------------------------------------------------------------------


@cache
def pool() -> list[Json]:
    """Return the specs of the corpus: the smallest one, one of each task, then all others; each as it is stored."""
    smallest = load("base.yaml")
    tasks = list(of_tasks.good().values())
    good = [patched(smallest, case["patch"]) for case in load("good.yaml")]
    more = [patched(smallest, {"spec": patch}) for patch in MORE_STARTS]
    return [defaulted(manifest)["spec"] for manifest in (smallest, *tasks, *good, *more)]


def _made(leaf: Leaf, specs: Iterable[Json]) -> Iterator[Json]:
    """Yield specs in which the parents of a leaf are made."""
    above = leaf.path[:-1]
    for spec in specs:
        made = forced(spec, above)
        yield made
        repaired = _repaired(copy.deepcopy(made))
        if repaired != made and _holder(repaired, above) is not None:
            yield repaired


def forced(spec: Json, path: tuple[str, ...]) -> Json:
    """Return a spec in which the objects on a path are there, with what they need."""
    made = copy.deepcopy(spec)
    node, at = root(), made
    holder: Any = None
    for name in path:
        if name == ITEM:
            node = node["items"]
            if not at:
                at.append(_smallest(node))
            at = at[0]
        elif name == ENTRY:
            node = node["additionalProperties"]
            at = at.setdefault(next(iter(at), "a"), _smallest(node))
        else:
            _choose(node, at, name)
            if name == "columns":  # only data of their own have columns of their own
                at.setdefault("source", "pvc://data/other.csv")
                at.pop("fraction", None)
            node, holder = node["properties"][name], at
            at = holder.setdefault(name, _smallest(node))
    return defaulted({"spec": made})["spec"]


def _choose(node: Json, holder: Json, member: str) -> None:
    """Set the type of a union to the one that a member belongs to, and take its other members out."""
    kinds = {_member(kind): kind for kind in node["properties"].get("type", {}).get("enum", ())}
    if member not in kinds:
        return
    holder["type"] = kinds[member]
    for other in kinds:
        if other != member:
            holder.pop(other, None)


def _member(kind: str) -> str:
    name = kind[:1].lower() + kind[1:]
    return MEMBERS.get(name, name)


def _smallest(node: Json) -> Any:
    """Return the least that a schema takes."""
    if "default" in node:
        return copy.deepcopy(node["default"])
    if node.get("properties"):
        return {name: _smallest(node["properties"][name]) for name in node.get("required", ())}
    if node.get("type") == "array":
        return [_smallest(node["items"]) for _ in range(node.get("minItems", 0))]
    if node.get("type") == "object":
        return {}
    return next(iter(values(node)), None)


# -- changes -----------------------------------------------------------------------------------------------------------


def _changed(leaf: Leaf, before: Json) -> Iterator[Json]:
    """Yield specs that differ from one in the leaf alone."""
    now = _place(before, leaf.path)
    for value in values(leaf.node, now):
        if value != now:
            made = copy.deepcopy(before)
            holder = _holder(made, leaf.path[:-1])
            holder[leaf.path[-1]] = value
            yield made
    if now is not None and "default" not in leaf.node:
        made = copy.deepcopy(before)
        del _holder(made, leaf.path[:-1])[leaf.path[-1]]
        yield made


def values(node: Json, now: Any = None) -> Iterator[Any]:
    """Yield values that a schema takes, beside the present one; rules may refuse some."""
    if node.get("x-kubernetes-preserve-unknown-fields"):
        yield from ({"r": 4}, {"r": 8}, {})
    elif node.get("x-kubernetes-int-or-string"):
        found = (2, 1, "Auto") if "minimum" in node else ("2", "1", "64Gi", "500m")
        yield from (value for value in found if str(value) != str(now))
    elif "enum" in node:
        yield from node["enum"]
    elif node["type"] == "boolean":
        yield from (True, False)
    elif node["type"] in ("integer", "number"):
        yield from _numbers(node, now)
    elif node["type"] == "string":
        yield from _texts(node)
    elif node["type"] == "array":
        yield from _lists(node, now or [])
    elif "additionalProperties" in node:
        yield from _maps(node, now or {})
    else:
        yield {}


def _numbers(node: Json, now: Any) -> Iterator[Any]:
    low, high = node["minimum"], node["maximum"]
    inner_low, inner_high = node.get("exclusiveMinimum", False), node.get("exclusiveMaximum", False)
    near = [] if now is None else [now + 1, now - 1, now * 2, now / 2]
    whole = node["type"] == "integer"
    found = [*near, 1, 2, 0.5, 0.25, 0.1, 0.01, 1e-4, low, low + 1, high]
    for number in found:
        fits = low <= number <= high and not (number == low and inner_low) and not (number == high and inner_high)
        if fits and (not whole or number == math.floor(number)):
            yield int(number) if whole else number


def _texts(node: Json) -> Iterator[str]:
    said = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
    fitting = [text for start, all_ in EXAMPLES.items() for text in all_ if any(m.startswith(start) for m in said)]
    for text in (*fitting, *TEXTS):
        if node.get("minLength", 0) <= len(text) <= node["maxLength"]:
            yield text


def _lists(node: Json, now: list[Any]) -> Iterator[list[Any]]:
    for value in values(node["items"]):
        yield [value]
        if value not in now:
            yield [*now, value]
    if len(now) > 1:
        yield now[::-1]
        yield now[:-1]
    some = list(values(node["items"]))
    yield from (some[:count] for count in (2, 3))


def _maps(node: Json, now: Json) -> Iterator[Json]:
    said = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
    keys = [text for start, all_ in EXAMPLES.items() for text in all_ if any(m.startswith(start) for m in said)]
    for key in (*keys, "text", "label", "a", "layer.0", "0", "1"):
        for value in values(node["additionalProperties"], now.get(key)):
            yield {**now, key: value}
            if value != now.get(key):
                yield {key: value}


# -- places --------------------------------------------------------------------------------------------------------


def _holder(spec: Any, path: tuple[str, ...]) -> Any:
    """Return the object at a path, in the first item or entry of what has several; None where it is not there."""
    at = spec
    for name in path:
        if name == ITEM:
            at = at[0] if at else None
        elif name == ENTRY:
            at = next(iter(at.values()), None) if at else None
        else:
            at = at.get(name) if isinstance(at, dict) else None
        if at is None:
            return None
    return at


def _place(spec: Json, path: tuple[str, ...]) -> Any:
    holder = _holder(spec, path[:-1])
    return holder.get(path[-1]) if isinstance(holder, dict) else None


def _difference(before: Json, after: Json) -> Json:
    """Return a merge patch (RFC 7386)."""
    change: Json = dict.fromkeys(before.keys() - after.keys())
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := _difference(old, value):
                change[name] = inner
        elif value != old:
            change[name] = value
    return change
