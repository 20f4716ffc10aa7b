"""The examples' programs that fetch data: what is no folder is not taken for one."""

import json
import sys

import pytest

from examples import prepare, prepare_audio, prepare_dialogues, prepare_multilingual
from examples.prepare_audio import NAMES, VALIDATED, write_names


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


def test_no_language_is_heard_on_two_sides_and_neighbours_have_other_names(tmp_path):
    for split, languages in (("train", ["de", "es", *VALIDATED]), ("test", ["be", "fr"])):
        for language in languages:
            for digit in (1, 2, 9) if language == "be" else range(10):
                file = tmp_path / split / str(digit) / f"{language}.ogg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
    write_names(tmp_path)
    heard = {}
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (tmp_path / f"named-{split}.jsonl").read_text().splitlines()]
        heard[split] = {row["audio"].rpartition("/")[2] for row in rows}
        assert all((tmp_path / row["audio"]).parent.name == str(NAMES.index(row["text"])) for row in rows)
        names = [row["text"] for row in rows]
        assert all(one != other for one, other in zip(names, [*names[1:], names[0]], strict=True))
    assert heard["validation"] == {f"{language}.ogg" for language in VALIDATED}
    assert not heard["train"] & heard["test"] | heard["validation"] & (heard["train"] | heard["test"])
