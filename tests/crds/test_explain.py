"""`kubectl explain` at every level, as the API server has it: what a person reads who knows no more than the kind's name."""

import re

import pytest

from tests.crds.test_api_server import crd  # noqa: F401 - the CRD has to be there
from unfreeze_api.generate.crd import schema

pytestmark = pytest.mark.cluster


def levels(node, path):
    """Yield every path that has fields of its own, with the names of the fields."""
    node = node.get("items", node)
    if "properties" in node:
        yield path, sorted(node["properties"])
        for name, part in node["properties"].items():
            yield from levels(part, f"{path}.{name}")


LEVELS = dict(levels({"properties": {k: schema()["properties"][k] for k in ("spec", "status")}}, "ftj"))


def explained(cluster, path):
    """Return the description and the fields, by name, that kubectl explain prints for a path."""
    text = cluster.kubectl("explain", path)
    description = text.partition("DESCRIPTION:\n")[2].partition("FIELDS:\n")[0]
    blocks = re.split(r"^  (?=\S+\t)", text.partition("FIELDS:\n")[2], flags=re.MULTILINE)[1:]
    return description, {block.split("\t", 1)[0]: " ".join(block.split("\n")[1:]).strip() for block in blocks}


@pytest.mark.parametrize("path", ["ftj", *(path for path in LEVELS if path.count(".") in (1, 2))])
def test_each_level_has_a_description_and_one_for_each_of_its_fields(cluster, path):
    cluster.wait_for("/openapi/v3/apis/unfreeze.dev/v1alpha1", bool)
    description, fields = explained(cluster, path)
    assert len(description.split()) >= 4, path
    assert "<empty>" not in description
    if path != "ftj":
        assert sorted(fields) == LEVELS[path]
    assert all(len(text.split()) >= 3 and "<no description>" not in text for text in fields.values()), fields


def test_the_deepest_level_reads_as_well_as_the_first(cluster):
    deepest = max(LEVELS, key=lambda path: path.count("."))
    description, fields = explained(cluster, deepest)
    assert len(description.split()) >= 4
    assert sorted(fields) == LEVELS[deepest]


def test_the_published_schema_has_every_description(cluster):
    document = cluster.get("/openapi/v3/apis/unfreeze.dev/v1alpha1")
    published = document["components"]["schemas"]["dev.unfreeze.v1alpha1.FineTuneJob"]

    def same(ours, theirs, path):
        assert theirs.get("description") == ours["description"], path
        for name, part in ours.get("properties", {}).items():
            same(part, theirs["properties"][name], f"{path}.{name}")
        if "items" in ours and "properties" in ours["items"]:
            same(ours["items"], theirs["items"], f"{path}[]")

    for root in ("spec", "status"):  # the rest is Kubernetes' own
        same(schema()["properties"][root], published["properties"][root], root)
