"""The command line: exit codes, one line per cause, subcommands of other packages, and what is not imported."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.crds.corpus import FOLDER
from unfreeze_api import cli

EXAMPLES = sorted(
    path for path in (Path(__file__).parents[2] / "examples").rglob("*.yaml") if "kind: FineTuneJob" in path.read_text()
)


def run(*arguments, stdin=None):
    return CliRunner().invoke(cli.main, arguments, input=stdin)


def test_valid_file():
    result = run("validate", str(FOLDER / "base.yaml"))
    assert result.exit_code == 0
    assert result.stdout == f'{FOLDER / "base.yaml"}: FineTuneJob "job" is valid\n'


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(file):
    assert run("validate", str(file)).exit_code == 0


def test_one_line_per_cause_and_the_other_documents_are_still_judged():
    base = (FOLDER / "base.yaml").read_text()
    bad = base.replace("name: job", "name: Bad_Name").replace(
        "FullFineTuning}", "FullFineTuning}\n  training: {epochs: 0}"
    )
    result = run("validate", "-", stdin=f"{bad}\n---\nkind: ConfigMap\nmetadata: {{name: c}}\n---\n{base}")
    assert result.exit_code == 1
    wrong = result.stderr.splitlines()
    assert len(wrong) == 3
    assert all(line.startswith('-: FineTuneJob "Bad_Name": ') for line in wrong)
    assert '-: FineTuneJob "Bad_Name": spec.training.epochs: Invalid value: 0: ' in result.stderr
    assert result.stdout.splitlines() == [
        '-: ConfigMap "c" skipped: only FineTuneJob is judged here',
        '-: FineTuneJob "job" is valid',
    ]


def test_a_former_name_is_valid_and_told():
    base = (FOLDER / "base.yaml").read_text()
    result = run("validate", "-", stdin=base.replace("pvc://results/job", "pvc://results/job, export: [Model]"))
    assert (result.exit_code, result.stdout) == (0, '-: FineTuneJob "job" is valid\n')
    assert result.stderr == (
        '-: FineTuneJob "job": Warning: spec.output.export is deprecated: write exports, the former name is gone in the'
        " next minor release\n"
    )


def test_a_typo_is_told_with_the_names_that_there_are():
    base = (FOLDER / "base.yaml").read_text()
    typo = "FullFineTuning}\n  adapter: {type: LoRA, lora: {rang: 4}}\n  template: {env: [{nam: A}]}"
    result = run("validate", "-", stdin=base.replace("FullFineTuning}", typo))
    assert result.exit_code == 1
    first, adapter, environment = result.stderr.splitlines()
    assert 'unknown field "spec.adapter.lora.rang"' in first
    assert adapter.startswith("  spec.adapter.lora has r, loraAlpha, loraDropout, targetModules, ")
    assert environment.startswith("  spec.template.env[0] has name, value, ")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("strategy: {type: fullfinetuning}", "spec.strategy.type: did you mean FullFineTuning?"),
        ("strategy: {type: FullFinetune}", "spec.strategy.type: did you mean FullFineTuning?"),
        ("strategy: {type: FullFineTuning}\n  adapter: {type: lora}", "spec.adapter.type: did you mean LoRA?"),
        (
            "strategy: {type: FullFineTuning}\n  training: {optimizer: Adam}",
            "spec.training.optimizer: did you mean AdamW?",
        ),
        ("strategy: {type: FullFineTuning}\n  distribution: {engine: Deepspeed}", "did you mean DeepSpeed?"),
    ],
)
def test_what_may_be_meant_by_an_unknown_value(tmp_path, written, meant):
    text = (FOLDER / "base.yaml").read_text().replace("strategy: {type: FullFineTuning}", written)
    assert meant in run("validate", "-", stdin=text).stderr.splitlines()[-1]
    (tmp_path / "job.yaml").write_text(text)
    assert meant in run("run", str(tmp_path / "job.yaml")).stderr.splitlines()[-1]


def test_former_names_are_not_among_the_names_that_there_are():
    base = (FOLDER / "base.yaml").read_text()
    result = run("validate", "-", stdin=base.replace("pvc://results/job", "pvc://results/job, exprots: [Model]"))
    assert result.stderr.splitlines()[1] == "  spec.output has destination, exports, predictions; did you mean exports?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "-: line 1, column 5: "),
        ("", "-: no manifest in it"),
        ("kind: FineTuneJob", '-: FineTuneJob "": apiVersion: Invalid value: "": must be unfreeze.dev/v1alpha1'),
    ],
)
def test_what_cannot_be_judged_fails(text, message):
    result = run("validate", "-", stdin=text)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)


def test_missing_and_binary_files_fail(tmp_path):
    binary = tmp_path / "model.safetensors"
    binary.write_bytes(b"\xff\xfe\x00")
    result = run("validate", "nowhere.yaml", str(binary))
    assert result.exit_code == 1
    assert "nowhere.yaml: No such file or directory\n" in result.stderr
    assert f"{binary}: " in result.stderr


def test_version():
    assert run("version").stdout.startswith("unfreeze ")


@pytest.fixture
def other_commands(monkeypatch):
    entries = []
    monkeypatch.setattr(cli, "_entries", lambda _: EntryPoints(entries))
    return entries


def test_a_missing_extra_is_told(other_commands):
    other_commands.append(EntryPoint("run", "unfreeze_absent.local:run", cli.COMMANDS))
    text = "run needs the absent extra: pip install '.[absent]' in Unfreeze's folder"
    result = run("run", "job.yaml", "--workers", "2")
    assert result.exit_code == 1
    assert result.stderr == f"Error: main {text} (No module named 'unfreeze_absent')\n"
    described = run("--help")
    assert described.exit_code == 0
    assert "unfreeze run needs the absent extra" in described.stdout
    assert run("validate", str(FOLDER / "base.yaml")).exit_code == 0


@click.command()
def heavy():
    """Needs a library that is imported late."""
    import unfreeze_library_that_is_absent  # noqa: F401


def test_an_extra_that_is_missed_late_is_told_too(other_commands):
    other_commands.append(EntryPoint("heavy", f"{__name__}:heavy", cli.COMMANDS))
    assert "needs the" in run("heavy").stderr
    assert "Needs a library" in run("--help").stdout


@pytest.mark.slow
def test_a_light_start():
    program = (
        "import sys\n"
        "from unfreeze_api.cli import main\n"
        f"try: main(['validate', {str(FOLDER / 'base.yaml')!r}])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'torch', 'transformers', 'kubernetes', 'kopf', 'aiohttp', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
