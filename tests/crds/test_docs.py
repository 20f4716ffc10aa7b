"""What docs/strategies.md shows is what the API takes."""

import re
from pathlib import Path

import pytest
import yaml

from tests.crds.corpus import load, patched
from unfreeze_api.manifest import Loader
from unfreeze_api.validate import validate

TEXT = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()
SHOWN = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("text", SHOWN)
def test_shown_strategies_are_valid(text):
    shown = yaml.load(text, Loader)
    assert set(shown) == {"strategy"}
    assert validate(patched(load("base.yaml"), {"spec": shown})) == []


def test_every_field_and_choice_is_told():
    from unfreeze_api.crd import schema

    def words(node):
        for key, inner in node.get("properties", {}).items():
            yield key
            yield from words(inner)
        yield from node.get("enum", ())

    strategy = schema()["properties"]["spec"]["properties"]["strategy"]
    assert [word for word in words(strategy) if word not in TEXT] == []
