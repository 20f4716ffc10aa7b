"""The health check of FineTuneJobs on its test data. On jobs that run: test_gitops.py."""

import pytest
import yaml

from tests.charts.argocd import FOLDER, health

TESTS = yaml.safe_load((FOLDER / "health_test.yaml").read_text())["tests"]


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test["inputPath"])
def test_health(test):
    job = yaml.safe_load((FOLDER / test["inputPath"]).read_text())
    assert health(job) == (test["healthStatus"]["status"], test["healthStatus"]["message"])


def test_every_phase_and_file_has_its_test():
    from unfreeze_api.generate.crd import schema

    phases = schema()["properties"]["status"]["properties"]["phase"]["enum"]
    inputs = {FOLDER / test["inputPath"] for test in TESTS}
    assert inputs == set((FOLDER / "testdata").iterdir())
    seen = {yaml.safe_load(path.read_text()).get("status", {}).get("phase") for path in inputs}
    assert set(phases) <= seen
