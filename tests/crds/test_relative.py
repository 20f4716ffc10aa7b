"""Relative paths: on this machine they count from the manifest's folder, and no cluster takes them."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.crds.corpus import FOLDER
from unfreeze_api.cli import main
from unfreeze_api.relative import absolute


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("words.csv", "file:///jobs/words.csv"),
        ("./data/words.csv", "file:///jobs/data/words.csv"),
        ("../words.csv", "file:///words.csv"),
        ("data/", "file:///jobs/data"),
        ("/data/words.csv", "file:///data/words.csv"),
        ("file://words.csv", "file:///jobs/words.csv"),
        ("file://./words.csv", "file:///jobs/words.csv"),
        ("file:///words.csv", "file:///words.csv"),
        ("pvc://data/words.csv", "pvc://data/words.csv"),
        ("s3://data/words.csv", "s3://data/words.csv"),
        ("", ""),
        ("file://", "file://"),
        (None, None),
        (3, 3),
    ],
)
def test_paths_count_from_the_manifests_folder(written, meant):
    model = {"source": written, "candidates": [{"source": written}], "towers": [{"source": written}]}
    spec = {"model": model, "data": {"train": {"source": written}, "test": {"fraction": 0.1}}}
    spec["evidence"] = {"forgetting": {"anchor": {"source": written}}}
    spec["sources"] = {"featureCache": {"destination": written}}
    found = absolute({"kind": "FineTuneJob", "spec": spec | {"output": {"destination": written}}}, Path("/jobs"))
    parts = {part: [{"source": meant}] for part in ("candidates", "towers")}
    assert found["spec"]["model"] == {"source": meant} | parts
    assert found["spec"]["evidence"]["forgetting"]["anchor"] == {"source": meant}
    assert found["spec"]["data"] == {"train": {"source": meant}, "test": {"fraction": 0.1}}
    assert found["spec"]["sources"]["featureCache"]["destination"] == meant
    assert found["spec"]["output"]["destination"] == meant
    assert spec["model"]["source"] == written


@pytest.mark.parametrize(
    "spec", [None, [], {"model": None, "data": [1], "output": "x"}, {"data": {"train": "words.csv"}}]
)
def test_what_is_no_spec_is_left_for_the_validation(spec):
    assert absolute({"spec": spec}, Path("/jobs")) == {"spec": spec}


def test_validate_says_where_they_count():
    text = (FOLDER / "base.yaml").read_text()
    assert "pvc://data/" in text
    answer = CliRunner().invoke(main, ["validate", "-"], input=text.replace("pvc://data/", "data/"))
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1].startswith("  relative paths are for this machine: `unfreeze run`")
    answer = CliRunner().invoke(main, ["validate", "-"], input=text.replace("pvc://data/", "s3://data/"))
    assert "relative" not in answer.stderr
