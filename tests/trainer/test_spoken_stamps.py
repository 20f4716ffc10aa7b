"""What examples/prepare_stamps.py holds out of spoken captions: no picture, no caption and no speaker of one file stands in another."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from examples import prepare_stamps
from examples.prepare_stamps import HELD_OUT, SPEAKERS, captioned, divided, spoken, spoken_rows

LANGUAGES = ("en", "fr", "ca", "es", "be", "da")


@pytest.fixture
def files(tmp_path):
    """Forty pictures of twenty captions, each read aloud in some languages."""
    for n in range(40):
        file = tmp_path / "animals" / f"{n}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
        file.with_suffix(".txt").write_text(f"Animal {n // 2}.")
        for language in LANGUAGES[n % 3 :]:
            file.with_name(f"{n}_desc{'' if language == 'en' else f'_{language}'}.ogg").write_bytes(b"")
    file.with_name("39_desc_da.ogg.ogg").write_bytes(b"")
    return tmp_path


def test_no_picture_no_caption_and_no_speaker_of_one_file_stands_in_another(files):
    stamps = dict(captioned(files))
    clips = {name: spoken(files, name) for name in stamps}
    with patch.dict(prepare_stamps.HELD_OUT, {"test": 5, "validation": 4}):
        parts = divided(stamps, {name: name for name in stamps})
    rows = {
        split: spoken_rows(split, names, stamps, {name: [*clips[name]] for name in names})
        for split, names in parts.items()
    }
    seen = {
        split: (
            {row["image"] for row in part},
            {stamps[row["image"]] for row in part},
            {row["audio"][1] for row in part if "audio" in row},
        )
        for split, part in rows.items()
    }
    for split in HELD_OUT:
        assert all("text" in row and "audio" in row for row in rows[split])
        for other in seen.keys() - {split}:
            assert all(mine.isdisjoint(theirs) for mine, theirs in zip(seen[split], seen[other], strict=True))
        assert seen[split][2] == {*SPEAKERS[split]}
    assert seen["train"][2] == {"en", "fr", "ca"}


def test_no_row_of_training_has_a_text_and_a_clip(files):
    stamps = dict(captioned(files))
    rows = spoken_rows("train", [*stamps], stamps, {name: [*spoken(files, name)] for name in stamps})
    assert len(rows) > len(stamps)
    assert not any("text" in row and "audio" in row for row in rows)


def test_clips_are_found_by_their_language(files):
    found = spoken(files, "animals/39.png")
    assert {language: file.name for language, file in found.items()} == {
        "en": "39_desc.ogg",
        "fr": "39_desc_fr.ogg",
        "ca": "39_desc_ca.ogg",
        "es": "39_desc_es.ogg",
        "be": "39_desc_be.ogg",
        "da": "39_desc_da.ogg",
    }
