"""What docs/strategies.md, docs/adapters.md and docs/engines.md show is what the API takes."""

import re
from pathlib import Path

import pytest
import yaml

from tests.crds.corpus import load, patched
from unfreeze_api.apiserver.manifest import Loader
from unfreeze_api.apiserver.validate import validate

FOLDER = Path(__file__).parents[2] / "docs"
TEXTS = {
    part: (FOLDER / file).read_text() for part, file in (("strategy", "strategies.md"), ("adapter", "adapters.md"))
}
ENGINES = (FOLDER / "engines.md").read_text()
PAGES = [*TEXTS.values(), ENGINES]
SHOWN = [text for page in PAGES for text in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)]


@pytest.mark.parametrize("text", SHOWN)
def test_shown_strategies_are_valid(text):
    shown = yaml.load(text, Loader)
    assert set(shown) <= {*TEXTS, "model", "distribution", "training", "stages", "sources"}
    assert validate(patched(load("base.yaml"), {"spec": shown})) == []


@pytest.mark.parametrize("part", TEXTS)
def test_every_field_and_choice_is_told(part):
    from unfreeze_api.generate.crd import schema

    def words(node):
        for key, inner in node.get("properties", {}).items():
            yield key
            yield from words(inner)
        yield from node.get("enum", ())

    spec = schema()["properties"]["spec"]["properties"]
    assert [word for word in words(spec[part]) if word not in TEXTS[part]] == []
