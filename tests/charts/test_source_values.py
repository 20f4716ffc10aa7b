"""What docs/sources.md tells the platform to set is taken by the chart, and read by the operator."""

import json
import re
import shlex

import pytest
import yaml

from charts.generate import REPOSITORY
from tests.charts.render import only, parsed, render, render_text
from tests.operator.fakes import job
from unfreeze_operator.manifests.children import network_policy
from unfreeze_operator.settings.network import Network
from unfreeze_operator.settings.sources import parse_sources

pytestmark = pytest.mark.cluster

TEXT = (REPOSITORY / "docs/sources.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(# values of the chart.*?)```", TEXT, re.DOTALL | re.MULTILINE)
ROWS = re.findall(r"^\| (?:from|through|without) .*? \| `(hf: .*?)`", TEXT, re.MULTILINE)
OTHERS = re.findall(r"`trainer\.sources(?:\.(hf))?: (\{.*?\})`", TEXT)


def sources_of(manifests):
    """Return what the operator makes of its environment."""
    (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    return parse_sources(env["UNFREEZE_OPERATOR_SOURCES"])


def test_all_of_them_are_found():
    assert (len(BLOCKS), len(ROWS), len(OTHERS)) == (4, 2, 2)


@pytest.mark.parametrize("text", BLOCKS)
def test_blocks_of_values(text):
    values = yaml.safe_load(text)
    found = sources_of(render(values))
    assert set(found) == set(values["trainer"]["sources"])
    for scheme, place in found.items():
        told = values["trainer"]["sources"][scheme]
        assert place.endpoint == told.get("endpoint")
        if "egress" in told:
            (rule,) = place.opened
            written = network_policy(job(), Network(), [rule])["spec"]["egress"]
            assert told["egress"][0]["to"] == written[-1]["to"]
            assert told["egress"][0]["ports"][0]["port"] == written[-1]["ports"][0]["port"]


@pytest.mark.parametrize("text", [*ROWS, *(f"{scheme or '0'}: {value}" for scheme, value in OTHERS)])
def test_values_in_sentences(text):
    ((scheme, value),) = yaml.safe_load(text).items()
    found = sources_of(render({"trainer": {"sources": value if scheme == 0 else {scheme: value}}}))
    assert set(found) == (set(value) if scheme == 0 else {scheme})


def test_the_command_that_opens_the_hub():
    (line,) = re.findall(r"^helm upgrade .*trainer\.sources.*$", TEXT, re.MULTILINE)
    words = shlex.split(line)
    flags = tuple(words[words.index("--set-json") :])
    assert json.loads(flags[1].partition("=")[2]) == {"hf": {}}
    assert set(sources_of(parsed(render_text(flags=("--skip-tests", *flags))))) == {"hf"}
