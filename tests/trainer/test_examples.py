"""Each strategy, engine and adapter of examples/ that learns from texts, and the tagging of words, run as it lies there, on a tiny model and few questions."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.trainer.jobs import (
    WORDS,
    decoder_folder,
    seq2seq_folder,
    speech_folder,
    write_dialogues,
    write_sequences,
    write_speech,
    write_words,
)
from tests.trainer.ranks import run_gang
from tests.trainer.test_local import write_bert
from tests.trainer.whole_worker import work
from unfreeze_api.spec.distribution import DistributionSpec
from unfreeze_api.spec.strategy import STRATEGIES
from unfreeze_trainer.commands.local import open_job

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def job_in(file: Path) -> dict:
    return yaml.safe_load(file.read_text())


FILES = [
    path
    for folder in ("adapters", "engines", "evidence", "strategies")
    for path in sorted(EXAMPLES.glob(f"{folder}/*.yaml"))
    if job_in(path)["spec"]["task"]["type"] == "TextClassification"
]
FILES += [EXAMPLES / f"tasks/{name}.yaml" for name in ("token-classification", "text-embedding")]
# The second reads what the first writes.
FILES += [EXAMPLES / f"tasks/few-labels-{name}.yaml" for name in ("embedding", "head")]


@pytest.fixture(scope="module")
def claims(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    write_bert(folder / "models" / "minilm", layers=6)  # as many as MiniLM: the examples name some
    (folder / "data").mkdir()
    (folder / "results").mkdir()
    for name, rows in (("trec-train", 80), ("trec-train-1000", 80), ("trec-train-48", 48), ("trec-test", 20)):
        with (folder / "data" / f"{name}.csv").open("w") as file:
            csv.writer(file).writerows([("question", "label"), *((WORDS[n % 3], "abc"[n % 3]) for n in range(rows))])
    with (folder / "data" / "sentences.csv").open("w") as file:
        csv.writer(file).writerows([("sentence",), *((f"{WORDS[n % 3]} {WORDS[n % 4]}",) for n in range(40))])
    for name, rows in (("lee-train", 40), ("lee-validation", 10), ("lee-test", 10)):
        with (folder / "data" / f"{name}.csv").open("w") as file:
            pairs = ((WORDS[n % 3], WORDS[n % 4], n % 3 == n % 4) for n in range(rows))
            csv.writer(file).writerows(
                [("one", "other", "similarity"), *((*texts, int(same)) for *texts, same in pairs)]
            )
    for name, rows in (("train", 40), ("test", 10)):
        write_words(folder / "data" / f"addresses-{name}.jsonl", rows)
        write_dialogues(folder / "data" / f"dialogues-{name}.jsonl", rows)
        write_sequences(folder / "data" / f"sequences-{name}.jsonl", rows)
    decoder_folder(folder / "models" / "smollm2-135m")
    seq2seq_folder(folder / "models" / "t5-small")
    speech_folder(folder / "models" / "whisper-tiny-en-decoder", encoder_layers=4, decoder_layers=4)
    captions = write_speech(folder / "data" / "captions")
    for split in ("train", "validation", "test"):
        (captions.parent / f"{split}.jsonl").write_text(captions.read_text())
    captions.unlink()
    return folder


def test_there_is_one_for_each_strategy_and_each_engine():
    specs = [job_in(file)["spec"] for file in FILES if file.parent.name in ("engines", "strategies")]
    assert {spec["strategy"]["type"] for spec in specs} == {strategy.name for strategy in STRATEGIES}
    engines = {
        (spec["distribution"]["engine"], spec["distribution"].get("deepSpeed", {}).get("zeroStage")) for spec in specs
    }
    assert {engine for engine, _ in engines} == set(DistributionSpec.model_fields["engine"].annotation.__args__)
    assert {stage for engine, stage in engines if engine == "DeepSpeed"} == {1, 2, 3}


def assert_it_succeeded(claims: Path, file: Path) -> None:
    report = json.loads((claims / "results" / file.stem / "report.json").read_text())
    assert report["outcome"] == "Succeeded"
    assert report["strategy"] == job_in(file)["spec"]["strategy"]["type"]
    assert report["metric"] in report["results"]["test"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_workers_run_as_it_lies_there(ranks, claims, tmp_path, file):
    job = open_job(file, (), claims)
    codes = run_gang(job.distribution.world_size, work, job, tmp_path / "log")
    assert codes == [0] * job.distribution.num_nodes, (tmp_path / "log").read_text()[-5000:]
    assert_it_succeeded(claims, file)


def test_dialogues_run_as_they_lie_there(ranks, claims, tmp_path):
    job = open_job(EXAMPLES / "tasks" / "causal-lm.yaml", (), claims)
    assert run_gang(1, work, job, tmp_path / "log") == [0], (tmp_path / "log").read_text()[-5000:]
    report = json.loads((claims / "results" / "causal-lm" / "report.json").read_text())
    assert report["results"]["test"]["perplexity"] > 1
    assert [export["kind"] for export in report["exports"]] == ["Adapter", "Merged"]


def test_sources_and_targets_run_as_they_lie_there(ranks, claims, tmp_path):
    job = open_job(EXAMPLES / "tasks" / "seq2seq-lm.yaml", (), claims)
    assert run_gang(1, work, job, tmp_path / "log") == [0], (tmp_path / "log").read_text()[-5000:]
    report = json.loads((claims / "results" / "seq2seq-lm" / "report.json").read_text())
    assert report["results"]["test"]["perplexity"] > 1
    assert "AutoModelForSeq2SeqLM" in report["exports"][0]["usage"]


def test_captions_run_as_they_lie_there(ranks, claims, tmp_path):
    job = open_job(EXAMPLES / "tasks" / "speech-recognition.yaml", (), claims)
    assert run_gang(1, work, job, tmp_path / "log") == [0], (tmp_path / "log").read_text()[-5000:]
    report = json.loads((claims / "results" / "speech-recognition" / "report.json").read_text())
    assert report["results"]["test"]["perplexity"] > 1
    assert "AutoModelForSpeechSeq2Seq" in report["exports"][0]["usage"]


def test_pairs_with_numbers_run_as_they_lie_there(ranks, claims, tmp_path):
    job = open_job(EXAMPLES / "tasks" / "text-regression.yaml", (), claims)
    assert run_gang(1, work, job, tmp_path / "log") == [0], (tmp_path / "log").read_text()[-5000:]
    report = json.loads((claims / "results" / "text-regression" / "report.json").read_text())
    assert report["results"]["test"]["rmse"] > 0
    assert '"some text", "another text"' in report["exports"][0]["usage"]


@pytest.mark.matrix
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_runs_as_it_lies_there(claims, file):
    program = "from unfreeze_api.cli import main; main()"
    command = [sys.executable, "-c", program, "run", file, "--claims", claims]
    done = subprocess.run(command, capture_output=True, text=True, cwd=claims, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_it_succeeded(claims, file)
