"""Every alert and every recording rule fires when it should and rests when it should, and docs/operations.md has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import REPOSITORY
from tests.observability.prometheus import promtool

pytestmark = pytest.mark.slow  # needs promtool
RULES = sorted((REPOSITORY / "charts/unfreeze/files/rules").glob("*.yaml"))
TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
ALL = [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule["alert"] for rule in ALL if "alert" in rule]
RECORDS = [rule["record"] for rule in ALL if "record" in rule]


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_rules(file):
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_written_as_they_should_be():
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_is_tested_both_ways():
    cases = [case for file in TESTS for case in yaml.safe_load(file.read_text())["tests"]]
    alerts = {
        (test["alertname"], bool(test["exp_alerts"])) for case in cases for test in case.get("alert_rule_test", ())
    }
    assert alerts == {(name, fires) for name in ALERTS for fires in (True, False)}
    asked = [(test["expr"], bool(test["exp_samples"])) for case in cases for test in case.get("promql_expr_test", ())]
    for record in RECORDS:
        assert {found for expression, found in asked if record in expression} == {True, False}, record


def test_the_document_has_each_alert_with_what_it_means_and_what_to_do():
    section = (REPOSITORY / "docs/operations.md").read_text().split("\n## Alerts\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(Unfreeze\w+)` \| .+ \| .+ \|$", section, re.MULTILINE) == ALERTS
