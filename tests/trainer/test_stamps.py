"""What examples/prepare_stamps.py holds out: no picture and no caption of one file stands in another."""

from __future__ import annotations

from collections import defaultdict
from unittest.mock import patch

import pytest

from examples import prepare_stamps
from examples.prepare_stamps import captioned, divided


def key(caption):
    return caption.casefold().strip(" .!")


@pytest.fixture
def parts():
    """Thirty pictures: captions repeat in other spellings, and so do contents under other names."""
    stamps = {f"{'ab'[n % 2]}/{n}.png": ("A cat.", "a  CAT", "A dog!", f"Thing {n}")[min(n % 7, 3)] for n in range(30)}
    contents = {name: f"content {n % 26}" for n, name in enumerate(stamps)}
    with patch.dict(prepare_stamps.HELD_OUT, {"test": 5, "validation": 4}):
        return stamps, contents, divided(stamps, contents)


def test_no_picture_and_no_caption_of_one_file_stands_in_another(parts):
    stamps, contents, found = parts
    files = defaultdict(set)
    for split, names in found.items():
        for name in names:
            files["caption", " ".join(key(stamps[name]).split())].add(split)
            files["content", contents[name]].add(split)
    assert all(len(splits) == 1 for splits in files.values())


def test_what_is_measured_on_stands_there_once(parts):
    stamps, _, found = parts
    assert len(found["test"]) == 5
    assert len(found["validation"]) == 4
    for split in ("test", "validation"):
        assert len({key(stamps[name]) for name in found[split]}) == len(found[split])


def test_the_split_is_the_same_each_time(parts):
    stamps, contents, found = parts
    with patch.dict(prepare_stamps.HELD_OUT, {"test": 5, "validation": 4}):
        assert divided(stamps, contents) == found


def test_captions_are_the_first_lines_and_signs_are_left_out(tmp_path):
    for name, text in (
        ("animals/cat", "A cat.\nde.utf8=Eine Katze."),
        ("symbols/a", "A"),
        ("food/pie", "\n"),
        ("food/jam", None),
    ):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
        if text is not None:
            file.with_suffix(".txt").write_text(text)
    assert dict(captioned(tmp_path)) == {"animals/cat.png": "A cat."}
