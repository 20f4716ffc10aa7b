"""The CRD stays small enough to grow: its size, its lists with rules, and what the API server estimates these to cost."""

import copy
import json
import re

import pytest

from tests.cluster.binaries import MODULE_DIR
from tests.cluster.cel_cost import estimate
from tests.cluster.cluster import REPOSITORY
from unfreeze_api.generate import crd
from unfreeze_api.grammar.model import ONCE

MAX_BYTES = 240_000
"""kubectl's client-side apply keeps the CRD in an annotation, and all annotations of an object share 262,144 bytes; a
second served version doubles the schema's part."""
MAX_ITEMS, MAX_PLACES = 128, 4096
"""Of a list or map below which rules stand, and of all such lists above a rule together: what a rule costs is multiplied
by them. In 4,096 places it may cost 1,220 and is within half of the limit; that of a label's value costs 313."""
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def size(value):
    """Return the bytes of compact JSON, as the API server stores it."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def parts(node, path=""):
    """Yield each field of a schema with its path."""
    for name, part in node.get("properties", {}).items():
        yield f"{path}.{name}".lstrip("."), part
        yield from parts(part, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in node:
            yield f"{path}{mark}".lstrip("."), node[key]
            yield from parts(node[key], path + mark)


def largest(definition):
    """Return lines about the largest fields, each before those that lie in it."""
    sizes = {
        path: size(part)
        for version in definition["spec"]["versions"]
        for path, part in parts(version["schema"]["openAPIV3Schema"])
    }
    chosen = sorted(sizes, key=lambda path: -sizes[path])[:20]
    return "\n".join(f"{sizes[path]:>9,}  {path}" for path in sorted(chosen))


def test_the_crd_leaves_room_for_annotations_and_another_version():
    definition = crd.definition()
    assert size(definition) <= MAX_BYTES, f"the CRD is too large; its largest fields:\n{largest(definition)}"


def test_the_largest_fields_are_named():
    lines = largest(crd.definition()).splitlines()
    paths = [line.split()[1] for line in lines]
    assert len(paths) == 20
    assert {"spec", "spec.template", "spec.template.affinity"} < {*paths}


def has_rules(node):
    return "x-kubernetes-validations" in node or any("x-kubernetes-validations" in part for _, part in parts(node))


def places(node, path="", above=1):
    """Yield each list and map below which rules stand: its path, its bound, and that of it and all above together."""
    for name, part in node.get("properties", {}).items():
        yield from places(part, f"{path}.{name}".lstrip("."), above)
    for key, bound, mark in (("items", "maxItems", "[]"), ("additionalProperties", "maxProperties", "{}")):
        if key in node and has_rules(node[key]):
            assert bound in node, f"{path}: a list with rules has no bound"
            yield path + mark, node[bound], above * node[bound]
            yield from places(node[key], path + mark, above * node[bound])


def about_updates(text):
    """Whether a rule compares an object with what it was."""
    return "oldSelf" in text and not text.startswith(ONCE)


def looked_up(node):
    """Return how many fields' schemas the API server copies for the rules about updates: all of an object for each lookup."""
    total = 0
    for rule in node.get("x-kubernetes-validations", ()):
        text = rule["rule"]
        for mention in re.findall(r"\b(?:self|oldSelf)((?:\.\w+)+)", text) if about_updates(text) else ():
            place = node
            for name in mention.strip(".").split("."):
                total += len(place.get("properties", ()))
                place = place.get("properties", {}).get(name, {})
    return total


def test_rules_about_updates_are_cheap_where_nothing_was_changed():
    # They are evaluated with each write of a status, in which spec never changes.
    schema = crd.schema()
    found = {path: looked_up(part) for path, part in parts(schema) if looked_up(part)}
    assert "spec.training" in found
    assert sum(found.values()) < 900, (
        found
    )  # a third of what it is where all of them stand at spec; it grows with the fields


def test_rules_about_what_cannot_be_changed_are_evaluated_of_new_jobs_alone():
    spec = crd.schema()["properties"]["spec"]
    again = [rule["rule"] for rule in spec["x-kubernetes-validations"] if not rule["rule"].startswith(ONCE)]
    free = re.compile(
        r"\b(?:evidence|tracking|sources|template|runPolicy\.budget|distribution\.(?:numNodes|resourcesPerNode))\b"
    )
    assert [text for text in again if "oldSelf" not in text and not free.search(text)] == []
    assert len(again) < len(spec["x-kubernetes-validations"]) / 3
    for rule in (*spec["x-kubernetes-validations"], *spec["properties"]["task"]["x-kubernetes-validations"]):
        assert rule["rule"].startswith(ONCE) == ("optionalOldSelf" in rule)


def test_lists_that_carry_rules_are_small():
    found = list(places(crd.schema()))
    assert len(found) > 40
    assert [(path, bound) for path, bound, _ in found if bound > MAX_ITEMS] == []
    assert [(path, together) for path, _, together in found if together > MAX_PLACES] == []


def test_the_oldest_release_is_the_one_that_chart_and_documents_name():
    chart, mod, plane, install = (
        path.read_text()
        for path in (
            REPOSITORY / "charts/unfreeze/Chart.yaml",
            MODULE_DIR / "oldest.mod",
            MODULE_DIR / "oldest-plane.mod",
            REPOSITORY / "docs/install.md",
        )
    )
    minor = re.search(r'^kubeVersion: ">=1\.(\d+)\.0-0"$', chart, re.MULTILINE)[1]
    assert set(re.findall(r"k8s\.io/api\w+ v0\.(\d+)\.", mod)) == {minor}
    assert set(re.findall(r"k8s\.io/kubernetes v1\.(\d+)\.", plane)) == {minor}
    assert f"Kubernetes 1.{minor} or newer" in install


@pytest.mark.cluster
@pytest.mark.parametrize("program", ["celcost", "celcost-tested"])
def test_rules_cost_at_most_half_of_what_the_api_server_allows(program):
    """In the oldest release that is supported, and in that of the tests."""
    versions, errors = estimate(crd.to_yaml(), program)
    assert errors == []
    for version in versions:
        assert version.dearest[0].cost * 2 <= version.rule_limit, f"a rule is too dear:\n{version}"
        assert version.total * 2 <= version.total_limit, f"the rules together are too dear:\n{version}"


@pytest.mark.cluster
def test_the_dearest_rules_are_listed():
    ((version,), _) = estimate(crd.to_yaml())
    head, *lines = str(version).splitlines()
    assert f"{len(version.rules)} rules" in head
    assert f"{version.total:,}" in head
    assert len(lines) == 10
    costs = [int(line.split()[0].replace(",", "")) for line in lines]
    assert costs == sorted((rule.cost for rule in version.rules), reverse=True)[:10]
    assert "spec.template.affinity." in lines[0]


def dear(items):
    """Return a CRD like ours, whose dearest list of labels has so many items."""
    definition = copy.deepcopy(crd.definition())
    names = {"plural": "dearjobs", "singular": "dearjob", "kind": "DearJob", "listKind": "DearJobList"}
    definition["spec"]["names"] = names
    definition["metadata"] = {"name": f"dearjobs.{definition['spec']['group']}"}
    node = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    affinity = node["template"]["properties"]["affinity"]["properties"]
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity[kind]["properties"]["requiredDuringSchedulingIgnoredDuringExecution"]["items"]["properties"]
        selector = terms["labelSelector"]["properties"]["matchExpressions"]["items"]["properties"]
        selector["values"]["maxItems"] = items
    return definition


def told_of(errors):
    return sorted(error for error in errors if "contributed" not in error)


@pytest.mark.cluster
@pytest.mark.parametrize("items", [120, 140, 1200], ids=["allowed", "dear rule", "dear rule and CRD"])
def test_the_api_server_says_what_the_estimate_does(cluster, items):
    ((version,), errors) = estimate(json.dumps(dear(items)), "celcost-tested")
    status, answer = cluster.request("POST", f"{CRDS}?dryRun=All", dear(items))
    causes = [f"{cause['field']}: {cause['message']}" for cause in answer.get("details", {}).get("causes", ())]
    # Of rules that cost the same it names any as those that contribute most.
    assert told_of(causes) == told_of(errors)
    factors = [cost / version.rule_limit for cost in (rule.cost for rule in version.rules) if cost > version.rule_limit]
    factors += [version.total / version.total_limit] if version.total > version.total_limit else []
    assert (status, len(factors)) == {120: (201, 0), 140: (422, 2), 1200: (422, 3)}[items]
    told = re.findall(r"factor of ([\d.]+)x", answer.get("message", ""))
    assert sorted(map(float, told)) == sorted(float(f"{f:.6f}" if f < 1.5 else f"{f:.1f}") for f in factors)
