"""No command prints a traceback for what people, disks and installations do."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.crds.corpus import FOLDER
from unfreeze_api.cli import main
from unfreeze_api.commands import explained, whole

BASE = FOLDER / "base.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 0o", 'line 1, column 4: "0o" is not to be read as int'),
        ("a: 0x_", 'line 1, column 4: "0x_" is not to be read as int'),
        ("a: !!int x", 'line 1, column 4: "x" is not to be read as int'),
        ("a: !!timestamp x", 'line 1, column 4: "x" is not to be read as timestamp'),
        ("a: " + "1" * 5000, "line 1, column 4: this is not to be read as int"),
        ("a: 1e999", 'line 1, column 4: "1e999" is not to be read as float: JSON has no number of that size'),
        ('a: "\\ud800"', 'line 1, column 4: "?" is not to be read as str'),
        ("{[a]: b}", "line 1, column 2: a key must be a text"),
        ("? {a: b}\n: c", "line 1, column 3: a key must be a text"),
        ("[" * 100_000, "nested deeper than any manifest is"),
        ("a: " + "{b: " * 3000, "nested deeper than any manifest is"),
    ],
    ids=lambda text: text[:20],
)
def test_what_looks_like_a_manifest(text, message):
    answer = CliRunner().invoke(main, ["validate", "-"], input=text)
    assert (answer.exit_code, answer.stderr) == (1, f"-: {message}\n")


def test_text_in_other_encodings(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_bytes(BASE.read_bytes() + "# d\u00e9j\u00e0 vu".encode("latin-1"))
    for command in ("validate", "run", "phases"):
        answer = CliRunner().invoke(main, [command, str(file)])
        assert f"{file}: not UTF-8 text: " in answer.stderr, command
    file.write_bytes(b"\xef\xbb\xbf" + BASE.read_bytes())  # as Windows' editors begin a file
    assert CliRunner().invoke(main, ["validate", str(file)]).exit_code == 0


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "job.yaml"

    def run_full():
        with whole(file) as aside:
            aside.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space") as ended:
        run_full()
    assert explained(ended.value) == f"{file}: No space left on device; make room there"
    assert not [*file.parent.iterdir()]
    for text in ("one", "another"):
        with whole(file) as aside:
            aside.write_text(text)
    assert ([*file.parent.iterdir()], file.read_text()) == ([file], "another")
    with pytest.raises(OSError, match="exists"), whole(file / "below") as aside:
        pass


@pytest.mark.parametrize("arguments", [["validate", str(BASE)], ["version"], ["--help"], ["validate", "--help"]])
def test_a_full_disk(monkeypatch, capsys, arguments):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.close()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "Error: No space left on device; make room there\n"


def test_a_reader_that_has_gone(monkeypatch, capsys):
    class Gone:
        def write(self, _text):
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(BASE)])
    assert (ended.value.code, capsys.readouterr().err) == (1, "")


def test_a_terminal_that_lacks_characters(tmp_path, monkeypatch):
    file = tmp_path / "\u5de5\u4f5c.yaml"
    file.write_bytes(BASE.read_bytes())
    answer = CliRunner(charset="latin-1").invoke(main, ["validate", str(file)])
    assert (answer.exit_code, "\\u5de5\\u4f5c.yaml: FineTuneJob" in answer.stdout) == (0, True)


def test_closed_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit) as ended:
        main(["validate", "-"])
    assert (ended.value.code, capsys.readouterr().err) == (1, "-: standard input is closed\n")


def without(module, program):
    """Return what a program says where a module is not installed."""
    lines = ["import sys", f"sys.modules[{module!r}] = None", *program]
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_programs_without_their_extras():
    plugin = without(
        "rich.console",
        [
            "from unfreeze_cli import kubectl, main",
            "kubectl.Kubectl.job, kubectl.Kubectl.pods = lambda *_: {}, lambda *_: []",
            "main.cli(['status', 'job'], prog_name='kubectl ftj')",
        ],
    )
    assert plugin.returncode == 1
    assert plugin.stderr.startswith("Error: kubectl ftj status needs the cli extra: pip install '.[cli]' in ")
    operator = without("kopf", ["from unfreeze_operator.__main__ import main", "main()"])
    assert operator.returncode == 1
    assert operator.stderr.startswith("Error: unfreeze-operator needs the operator extra: pip install ")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/a"), "/a: Permission denied; run this as a user who may"),
        (
            OSError(28, "No space left on device", "/a", None, "/b"),
            "/a and /b: No space left on device; make room there",
        ),
        (OSError("odd"), "odd"),
    ],
)
def test_errors_of_the_system_in_words(error, message):
    assert explained(error).startswith(message)
