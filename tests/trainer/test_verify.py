"""`unfreeze verify`: an export is what the run wrote, or it is said what is not."""

import errno
import json

import pytest
from click.testing import CliRunner

from unfreeze_api.cli import main
from unfreeze_trainer.exports import seal as module
from unfreeze_trainer.exports.seal import seal


@pytest.fixture
def export(tmp_path):
    """Folder of an export."""
    folder = tmp_path / "model"
    (folder / "shards").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "shards/1"):
        (folder / name).write_text(name)
    seal(folder, fingerprint="f", kind="Model")
    return folder


def verify(folder):
    done = CliRunner().invoke(main, ["verify", str(folder)])
    return done.exit_code, done.stdout + done.stderr


def test_one_that_nobody_touched(export):
    assert verify(export) == (0, f"{export}: 3 files, each as the run wrote it\n")


def test_each_difference_is_named(export):
    (export / "config.json").write_text("{}")
    (export / "model.safetensors").unlink()
    (export / "extra").touch()
    assert verify(export) == (1, "changed: config.json\nmissing: model.safetensors\nadded: extra\n")


def test_a_link_is_not_the_file_that_it_leads_to(export, tmp_path):
    (tmp_path / "elsewhere").write_text("config.json")
    (export / "config.json").unlink()
    (export / "config.json").symlink_to(tmp_path / "elsewhere")
    (export / "more").symlink_to(tmp_path)
    assert verify(export) == (1, "changed: config.json\nadded: more\n")


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ({"fingerprint": "f", "kind": "Model"}, "has no hashes: a version of Unfreeze before 0.2.0 wrote it"),
        ({"files": ["a"]}, "is no map of names to hashes"),
        ([], "has no hashes"),
    ],
)
def test_nothing_to_compare_with(export, marker, said):
    (export / "unfreeze.json").write_text(json.dumps(marker))
    code, out = verify(export)
    assert (code, said in out) == (2, True), out


def test_a_runs_folder_is_not_its_model(export):
    code, out = verify(export.parent)
    assert (code, f"is no export of Unfreeze: name {export}" in out) == (2, True), out
    for marker in ("{", "[" * 100_000):
        (export / "unfreeze.json").write_text(marker)
        assert verify(export)[0] == 2


def test_what_cannot_be_read_is_not_what_was_changed(export, monkeypatch):
    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(module, "hash_file", denied)
        code, out = verify(export)
    assert (code, f"{export}/config.json: Permission denied" in out) == (2, True), out
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "scandir", denied)
        code, out = verify(export)
    assert (code, "Permission denied" in out) == (2, True), out
    (export / "unfreeze.json").unlink()
    (export / "unfreeze.json").mkdir()
    assert verify(export)[0] == 2


def test_a_large_folder_is_not_read_to_its_end(export, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILES", 2)
    code, out = verify(export)
    assert (code, "has more than 2 files" in out) == (2, True), out
