"""A task is added by one file in the API and one in the trainer: ordinal regression of texts, which lives in tests alone."""

import json
import subprocess
import sys

import pytest

from tests.cluster.cluster import REPOSITORY

pytestmark = pytest.mark.slow


def test_a_task_is_added_by_one_file_in_each_room(tmp_path):
    command = [sys.executable, "-m", "tests.trainer.grown", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    names, default = seen["crd"]
    assert (names, default) == (["ImageClassification", "OrdinalRegression", "TextClassification"], 16)
    assert seen["reference"]
    assert seen["allowed"] == []
    [foreign] = seen["foreign"]
    assert "textClassification is only allowed when type is TextClassification" in foreign
    assert seen["look"] == "3 labels, samples: 30 in train, 10 in validation"
    assert seen["phases"] == 2 * 16 + 2
    assert seen["code"] == 0
    assert set(seen["results"]) == {"meanError", "loss"}
    assert seen["labels"] == ["1", "2", "3"]
    assert seen["card"]
    assert seen["results"]["meanError"] == 0
    assert (seen["how"], seen["what"], seen["who"]) == ("1", "3", "2")
