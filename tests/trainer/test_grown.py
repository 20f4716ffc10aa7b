"""A task is added by one file in the API and one in the trainer: ordinal regression of texts, which lives in tests alone."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.cluster.cluster import REPOSITORY
from tests.trainer.grown import seen
from tests.trainer.jobs import bert_folder, write_csv
from unfreeze_api.tasks import TASKS

pytestmark = pytest.mark.slow

GROWN = REPOSITORY / "tests/trainer/grown"
JOB = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {{name: grades}}
spec:
  model: {{source: "file://{0}/bert"}}
  task: {{type: OrdinalRegression, ordinalRegression: {{maxLength: 8}}}}
  data: {{train: {{source: "file://{0}/t.csv"}}, validation: {{fraction: 0.25}}}}
  strategy: {{type: FullFineTuning, learningRate: {{head: 0.02, backbone: 0.01}}}}
  training: {{epochs: 12, batchSize: 7, gradientAccumulationSteps: 2, metric: meanError}}
  distribution: {{numProcPerNode: 2}}
  output: {{destination: "file://{0}/run"}}
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Folder with a job, and what runs a program in a copy of the rooms that has the two files more."""
    folder = tmp_path_factory.mktemp("grown")
    for package, file in (("crds/unfreeze_api", "api.py"), ("trainer/unfreeze_trainer", "trainer.py")):
        shutil.copytree(REPOSITORY / package, folder / package)
        shutil.copy(GROWN / file, folder / package / "tasks" / "ordinal_regression.py")
    bert_folder(folder / "bert")
    write_csv(folder / "t.csv", rows=40, labels=("1", "3", "2"))
    (folder / "job.yaml").write_text(JOB.format(folder))
    paths = os.pathsep.join(str(folder / room) for room in ("crds", "trainer")) + os.pathsep + str(REPOSITORY)

    def program(*command) -> str:
        environment = os.environ | {"PYTHONPATH": paths, "DS_ACCELERATOR": "cpu"}
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return folder, program


def test_a_task_is_added_by_one_file_in_each_room(grown):
    folder, program = grown
    said = program("-c", "from unfreeze_api.cli import main; main()", "run", folder / "job.yaml")
    report = json.loads((folder / "run" / "report.json").read_text())
    assert report["world"]["worldSize"] == 2
    assert set(report["results"]["validation"]) == {"meanError", "loss"}
    assert report["results"]["validation"]["meanError"] == 0
    assert report["data"]["labels"] == ["1", "2", "3"]
    assert "loading Model in a fresh process, as you will, to compare what it predicts" in said
    found = json.loads(program(seen.__file__, folder).splitlines()[-1])
    assert found["crd"] == [sorted(task.name for task in (*TASKS, SimpleNamespace(name="OrdinalRegression"))), 16]
    assert found["reference"]
    assert found["allowed"] == []
    [foreign] = found["foreign"]
    assert "textClassification is only allowed when type is TextClassification" in foreign
    assert {"OrdinalRegression by meanError", "OrdinalRegression by accuracy"} <= {*found["corpus"]}
    assert found["wrong"] == []
    assert found["look"] == "3 labels, samples: 30 in train, 10 in validation"
    assert found["head"] == 2 * 16 + 2
    assert found["answers"] == {"how": "1", "what": "3", "who": "2"}
    assert "\n".join(f"  {line}" if line else "" for line in found["usage"].splitlines()) in said
    card = (folder / "run" / "model" / "README.md").read_text()
    assert found["usage"].replace(f"{folder}/run/model", ".") in card
