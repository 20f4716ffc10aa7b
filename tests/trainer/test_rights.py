"""What this user may not read or write ends `unfreeze run`, `phases` and `validate` in one line that names it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.rights import rights_count
from tests.trainer.jobs import image_folder, write_csv
from tests.trainer.test_look import MANIFEST, model_folder
from unfreeze_api.cli import main
from unfreeze_trainer.commands import local

IMAGES = MANIFEST.replace("TextClassification", "ImageClassification").replace(
    "words.csv, columns: {text: TEXT}", "images"
)
IMAGES = IMAGES.replace("    test: {source: pvc://data/test.csv}\n", "").replace("models/bert", "models/net")


@pytest.fixture
def claims(tmp_path) -> Path:
    model_folder(tmp_path / "models" / "bert")
    model_folder(tmp_path / "models" / "net", architecture="resnet10t")
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "words.csv")
    write_csv(tmp_path / "data" / "test.csv")
    image_folder(tmp_path / "data" / "images")
    (tmp_path / "data" / "images" / "red" / "more").mkdir()
    run = tmp_path / "results" / "words"
    (run / "logs").mkdir(parents=True)
    (run / "recipe.json").write_text("{}")
    (tmp_path / "words.yaml").write_text(MANIFEST.replace("TEXT", "text"))
    (tmp_path / "images.yaml").write_text(IMAGES)
    return tmp_path


@pytest.mark.parametrize(
    ("job", "closed", "message"),
    [
        (
            "words",
            "models",
            "InvalidModel: spec.model.source pvc://models/bert: the model folder",
        ),
        (
            "words",
            "models/bert",
            "InvalidModel: spec.model.source pvc://models/bert: the model folder",
        ),
        ("words", "models/bert/config.json", "models/bert/config.json: Permission denied"),
        (
            "words",
            "data",
            "InvalidData: spec.data.train.source pvc://data/words.csv: cannot be read: ",
        ),
        (
            "words",
            "data/test.csv",
            "InvalidData: spec.data.test.source pvc://data/test.csv: cannot",
        ),
        (
            "images",
            "data/images",
            "InvalidData: spec.data.train.source pvc://data/images: cannot",
        ),
        (
            "images",
            "data/images/red",
            "InvalidData: spec.data.train.source pvc://data/images: cannot",
        ),
        (
            "images",
            "data/images/red/more",
            "spec.data.train.source pvc://data/images: cannot be read: ",
        ),
        ("images", "data/images/red/0.png", "red/0.png: it cannot be read (Permission denied)"),
        ("words", "results", "results/words"),
        ("words", "results/words", "ForeignRunFolder: "),
        ("words", "results/words/recipe.json", "ForeignRunFolder: "),
        ("words", "results/words/logs", "ForeignRunFolder: "),
        ("words", "words.yaml", "words.yaml"),
    ],
)
def test_one_line_that_names_it(claims, monkeypatch, job, closed, message):
    commands = ["run"] if closed.startswith("results") else ["run", "phases", "validate"]
    monkeypatch.setattr(local, "_start", lambda *_: pytest.fail("an agent was started"))
    path = claims / closed
    if closed == "results/words/logs":
        (claims / "results" / "words" / "recipe.json").unlink()
    rights = path.stat().st_mode
    path.chmod(0)
    try:
        with rights_count():
            answers = [
                CliRunner().invoke(main, [command, str(claims / f"{job}.yaml"), "--claims", str(claims)])
                for command in commands
            ]
    finally:
        path.chmod(rights)
    for answer in answers:
        assert answer.exit_code in (1, 2)
        assert isinstance(answer.exception, SystemExit), answer.exception
        assert message in answer.stderr
        assert "denied" in answer.stderr or "not readable" in answer.stderr, answer.stderr


def test_a_run_folder_on_a_full_disk(claims, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/tmp/unfreeze-run-1/job.json")

    monkeypatch.setattr(local, "_start", full)
    (claims / "results" / "words" / "recipe.json").unlink()
    answer = CliRunner().invoke(main, ["run", str(claims / "words.yaml"), "--claims", str(claims)])
    assert answer.exit_code == 1
    assert answer.stderr.endswith(
        "the agents cannot be started: /tmp/unfreeze-run-1/job.json: No space left on device; make room there\n"
    )
