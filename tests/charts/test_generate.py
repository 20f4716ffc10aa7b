"""What the chart takes from elsewhere is up to date, and every value is explained."""

import json

import pytest
import yaml

from charts.generate import CHART, REPOSITORY, ValuesError, outputs, schema, values

TEXT = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


@pytest.mark.parametrize(("path", "text"), outputs().items(), ids=[str(path.name) for path in outputs()])
def test_generated_files_are_up_to_date(path, text):
    assert path.read_text() == text, "run `make chart`"


def test_the_crd_is_the_generated_one():
    assert (CHART / "files/crd.yaml").read_bytes() == (REPOSITORY / "crds/unfreeze.dev_finetunejobs.yaml").read_bytes()


def test_the_schema_is_closed_and_describes_every_value():
    def walk(node, path):
        if "default" not in node:
            assert node["additionalProperties"] is False, path
            for name, inner in node["properties"].items():
                if name != "global":
                    walk(inner, f"{path}.{name}")
        else:
            assert node["description"].endswith("."), path

    walk(SCHEMA, "")


def test_defaults_of_the_schema_are_those_of_the_file():
    def defaults(node):
        if "default" in node:
            return node["default"]
        return {name: defaults(inner) for name, inner in node["properties"].items() if name != "global"}

    assert defaults(SCHEMA) == yaml.safe_load(TEXT)


def test_a_value_without_a_comment_is_an_error():
    with pytest.raises(ValuesError, match=r"a\.c has no comment in values\.yaml"):
        values("a:\n  # Good.\n  b: 1\n  c: 2\n")


def test_a_comment_over_lines_and_a_hint():
    made = schema(values("# One\n# two.\n# @schema {minimum: 1}\na: 3\n"))
    assert made["properties"]["a"] == {"type": "integer", "description": "One two.", "default": 3, "minimum": 1}
