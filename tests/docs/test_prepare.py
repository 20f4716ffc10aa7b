"""The examples' programs that fetch data: what is no folder is not taken for one."""

import sys

import pytest

from examples import prepare, prepare_audio, prepare_dialogues, prepare_multilingual


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (prepare, []),
        (prepare, ["--help"]),
        (prepare, ["trec"]),
        (prepare, ["folder", "no-set"]),
        (prepare_audio, []),
        (prepare_audio, ["-h"]),
        (prepare_dialogues, []),
        (prepare_multilingual, []),
    ],
)
def test_nothing_is_fetched_without_a_folder(program, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare", *arguments])
    with pytest.raises(SystemExit, match=r"usage: python (examples/prepare\w*\.py|-m examples\.prepare\w*) FOLDER"):
        program.main()
    assert not list(tmp_path.iterdir())
