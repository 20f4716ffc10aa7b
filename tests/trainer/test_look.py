"""Good messages come early: what a job reads is looked at before anything that trains is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.trainer.jobs import image_folder, make_job, write_csv
from unfreeze_api.cli import main
from unfreeze_trainer.commands import look as looks
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.errors import JobError

MANIFEST = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: words}
spec:
  model: {source: pvc://models/bert}
  task: {type: TextClassification}
  data:
    train: {source: pvc://data/words.csv, columns: {text: TEXT}}
    test: {source: pvc://data/test.csv}
  strategy: {type: FullFineTuning}
  output: {destination: pvc://results/words}
"""


def model_folder(folder: Path, **config: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "bert"}))
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def claims(tmp_path) -> Path:
    model_folder(tmp_path / "models" / "bert")
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "words.csv", rows=40)
    write_csv(tmp_path / "data" / "test.csv", rows=8)
    return tmp_path


def manifest(claims: Path, text: str = "text") -> str:
    (claims / "job.yaml").write_text(MANIFEST.replace("TEXT", text))
    return str(claims / "job.yaml")


def ask(*arguments: str):
    return CliRunner().invoke(main, arguments)


@pytest.mark.slow
def test_run_tells_what_is_wrong_without_the_libraries_that_train(claims):
    program = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('torch', 'transformers', 'timm', 'accelerate', 'peft', 'safetensors'))\n"
        "import unfreeze_trainer.runs.recipe, unfreeze_trainer.commands.show\n"
        "from unfreeze_api.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "run", manifest(claims, "txt"), "--claims", str(claims)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        "InvalidData: spec.data.train.source pvc://data/words.csv: no column 'txt'; did you mean 'text'?" in done.stderr
    )
    assert not (claims / "results" / "words").exists()


def test_validate_looks_at_what_claims_hold(claims):
    file = manifest(claims)
    assert ask("validate", file).stdout == f'{file}: FineTuneJob "words" is valid\n'
    seen = "3 labels, samples: 36 in train, 4 in validation, 8 in test"
    assert ask("validate", file, "--claims", str(claims)).stdout == f'{file}: FineTuneJob "words" is valid; {seen}\n'
    (claims / "data" / "test.csv").write_text("text,label\nhow far,d\n")
    wrong = ask("validate", file, "--claims", str(claims))
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith(
        f'{file}: FineTuneJob "words": InvalidData: spec.data.test.source pvc://data/test.csv'
    )
    assert "label 'd' does not occur in the training data" in wrong.stderr
    lost = ask("validate", file, "--claim", f"data={claims}/data")
    assert (lost.exit_code, "--claim models=DIR" in lost.stderr) == (1, True)


def test_weights_of_labels_that_do_not_occur_are_told(claims):
    text = MANIFEST.replace("TEXT", "text").replace(
        "TextClassification}", "TextClassification, textClassification: {classWeightsByLabel: {z: 2}}}"
    )
    (claims / "job.yaml").write_text(text)
    wrong = ask("validate", str(claims / "job.yaml"), "--claims", str(claims))
    assert (
        wrong.exit_code,
        "spec.task.textClassification.classWeightsByLabel: 'z' does not occur" in wrong.stderr,
    ) == (1, True)


def test_the_anchor_is_looked_at_too(claims):
    anchor = "  evidence: {forgetting: {anchor: {source: pvc://data/old.csv}}}\n"
    (claims / "job.yaml").write_text(MANIFEST.replace("TEXT", "text") + anchor)
    for text, said in (
        (
            "sentence\nhow far\n",
            "no column 'text'. The columns are 'sentence'; name the right one in spec.evidence.forgetting.anchor.columns",
        ),
        ("text\nhow far\n", "1 rows tell nothing of what a model has lost: give 8 or more"),
    ):
        (claims / "data" / "old.csv").write_text(text)
        wrong = ask("validate", str(claims / "job.yaml"), "--claims", str(claims))
        assert wrong.exit_code == 1
        assert f"spec.evidence.forgetting.anchor.source pvc://data/old.csv: {said}" in wrong.stderr
    write_csv(claims / "data" / "old.csv", rows=8)
    assert ask("validate", str(claims / "job.yaml"), "--claims", str(claims)).exit_code == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("words.csv", "text;label\nhow far;a\n", "did you mean cells separated by semicolons"),
        ("words.jsonl", '{"text": "how", "label": "a"}\n{"text": "how"}\n', "line 2: no column 'label'"),
        ("words.txt", "how a", "files end in .csv"),
    ],
)
def test_tables(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(JobError, match=message):
        look(make_job(model_folder(tmp_path / "bert"), tmp_path / name))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"adapter_config.json": {}, "adapter_model.safetensors": {}},
            r"It is an adapter alone: merge it into its base .*\(spec\.adapter\)",
        ),
        (
            {"0_Transformer/config.json": {"model_type": "bert"}, "1_Pooling/config.json": {}},
            "A model lies in 0_Transformer: name that folder",
        ),
        (
            {"refs/main": {}, "snapshots/12ab/config.json": {"model_type": "bert"}},
            "A model lies in snapshots/12ab: name that folder",
        ),
        ({"model-Q4_K_M.gguf": {}}, "name the model that they were made of"),
        ({"a/config.json": {"model_type": "bert"}, "b/config.json": {"model_type": "bert"}}, "the folder holds a, b"),
    ],
)
def test_a_folder_that_is_no_model_yet_is_told(tmp_path, files, said):
    for name, content in files.items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_text(json.dumps(content))
    with pytest.raises(JobError, match=f"no config.json in .*{said}$"):
        look(make_job(tmp_path / "m", write_csv(tmp_path / "t.csv")))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_of_large_tables_the_first_rows_are_read(tmp_path, monkeypatch, suffix):
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr(looks, "MAX_BYTES", 0)
    rows = [{"text": "how" * 200, "label": "a"}] * 3000 + [{"text": "", "label": "b"}] * 5000
    file, model = tmp_path / f"words.{suffix}", model_folder(tmp_path / "bert")
    if suffix == "csv":
        file.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), file)
    assert "first rows" in look(make_job(model, file, data={"onError": "Skip"}))
    assert "first rows" in look(make_job(model, file))
    with pytest.raises(JobError, match="no column 'words'"):
        look(make_job(model, file, data={"train": {"columns": {"text": "words"}}}))


def test_folders_of_images(tmp_path):
    model, images = model_folder(tmp_path / "net", architecture="resnet10t"), image_folder(tmp_path / "images")
    job = make_job(model, images, task={"type": "ImageClassification"})
    assert look(job).startswith("2 labels")
    (images / "red" / "0.png").write_text("no picture")
    with pytest.raises(JobError, match=r"red/0\.png: it is no picture"):
        look(job)
    skip = job.data.model_copy(update={"on_error": "Skip"})
    assert look(job.model_copy(update={"data": skip})).startswith("2 labels")
    with pytest.raises(JobError, match="this is a timm model"):
        look(make_job(model, images))
    bert = model_folder(tmp_path / "bert")
    with pytest.raises(JobError, match=r"no preprocessor_config\.json, which says how a picture"):
        look(make_job(bert, images, task={"type": "ImageClassification"}))
    with pytest.raises(JobError, match="does not exist; check claim and path"):
        look(make_job(tmp_path / "none", images, task={"type": "ImageClassification"}))


def test_relative_paths_count_from_the_manifest(claims, monkeypatch):
    monkeypatch.chdir("/")
    text = MANIFEST.replace("TEXT", "text").replace("pvc://", "")
    (claims / "job.yaml").write_text(text.replace("data/words.csv", "file://data/words.csv"))
    answer = ask("validate", str(claims / "job.yaml"), "--claims", str(claims))
    assert "is valid on this machine (no cluster takes relative paths); 3 labels" in answer.stdout
    (claims / "data" / "words.csv").unlink()
    answer = ask("run", str(claims / "job.yaml"))
    assert f"no such file: {claims}/data/words.csv" in answer.stderr
