"""`unfreeze run` end to end: a tiny BERT made from its configuration, two workers, Ctrl-C, and on from there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.trainer.jobs import WORDS, make_job, write_csv
from unfreeze_trainer.commands.local import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MANIFEST = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: words}
spec:
  model: {source: pvc://models/bert}
  task: {type: TextClassification}
  data:
    train: {source: pvc://data/words.csv}
    validation: {fraction: 0.2}
    test: {fraction: 0.2}
  strategy: {type: LinearProbeThenFineTune, learningRate: {head: 1e-2, backbone: 5e-3}}
  training: {epochs: 30, batchSize: 8, checkpoint: {everySteps: 1000}}
  distribution: {numNodes: 2, engine: DeepSpeed, resourcesPerNode: {requests: {cpu: "1"}}}
  output: {destination: pvc://results/words}
"""


def write_bert(folder: Path, layers: int = 2) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    shape = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS) + 5, max_position_embeddings=64, **shape)).save_pretrained(folder)


@pytest.fixture(scope="module")
def claims(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    write_bert(folder / "models" / "bert")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "words.csv", rows=120)
    (folder / "job.yaml").write_text(MANIFEST)
    return folder


def start(claims: Path) -> subprocess.Popen:
    # A shell lets what it starts in the background ignore Ctrl-C, and these tests may be run there.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from unfreeze_api.cli import main; main()"
    command = [sys.executable, "-c", program, "run", claims / "job.yaml", "--claims", claims]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=claims)


def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(claims):
    run_folder = claims / "results" / "words"
    first = start(claims)
    events = run_folder / "events.jsonl"
    while first.poll() is None and not (events.exists() and '"evaluation"' in events.read_text()):
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    said = first.communicate()[0]
    assert first.returncode == 143, said
    assert "the same command resumes from it" in said
    assert "starting: starting the workers, which load PyTorch" in said
    stopped = json.loads(events.read_text().splitlines()[-1])
    assert stopped["event"] == "stopped"
    assert (run_folder / "checkpoints" / f"step-{stopped['step']}" / "manifest.json").exists()

    second = start(claims)
    said = second.communicate()[0]
    assert second.returncode == 0, said
    assert "trainable parameters" in said
    assert "exporting: loading Model in a fresh process" in said
    assert f'model="{run_folder}/model"' in said
    starts = [json.loads(line) for line in events.read_text().splitlines() if '"start"' in line]
    assert [event["step"] for event in starts] == [0, stopped["step"]]
    report = json.loads((run_folder / "report.json").read_text())
    assert report["results"]["test"]["accuracy"] > 0.6, "the first word tells the label, one of three"
    assert [phase["name"] for phase in report["phases"]] == ["head", "all"]
    assert report["phases"][0]["trainableParameters"] < report["phases"][1]["trainableParameters"]
    private = [path for path in run_folder.rglob("*") if path.is_file() and not path.stat().st_mode & 0o044]
    assert not private, "others must be able to read what a run wrote"

    third = start(claims)
    said = third.communicate()[0]
    assert third.returncode == 0, said
    assert json.loads((run_folder / "report.json").read_text()) == report
    assert len([line for line in events.read_text().splitlines() if '"start"' in line]) == 2

    (claims / "data" / "words.csv").open("a").write("how far,a\n")
    fourth = start(claims)
    said = fourth.communicate()[0]
    assert fourth.returncode == 2, said
    assert "data changed since" in said


def test_a_claim_without_a_folder_is_asked_for(claims):
    answer = CliRunner().invoke(run, [str(claims / "job.yaml"), "--claim", f"models={claims}/models"])
    assert answer.exit_code == 2
    assert "--claim data=DIR" in answer.output


def test_a_former_name_is_told_of(claims, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(MANIFEST.replace("pvc://results/words}", "pvc://results/words, export: [Model]}"))
    answer = CliRunner().invoke(run, [str(file)])
    assert answer.stderr.startswith(f"{file}: Warning: spec.output.export is deprecated: write exports, ")
    assert "say which folder stands for it" in answer.stderr


def test_an_invalid_manifest_is_refused_with_its_field(claims, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(MANIFEST.replace("epochs: 30", "epochs: 0"))
    answer = CliRunner().invoke(run, [str(file), "--claims", str(claims)])
    assert answer.exit_code == 2
    assert "spec.training.epochs" in answer.output


@pytest.mark.parametrize(
    ("version", "message"),
    [(1, "this is the job.json of default/job"), (3, "UnsupportedJobFile: it has schemaVersion 3")],
)
def test_a_job_file_is_no_manifest(tmp_path, version, message):
    file = tmp_path / "job.json"
    file.write_text(make_job("/none", "/none.csv").model_copy(update={"schema_version": version}).to_json())
    answer = CliRunner().invoke(run, [str(file)])
    assert (answer.exit_code, message in answer.output) == (2, True), answer.output
