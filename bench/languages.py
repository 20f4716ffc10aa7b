"""Whether captions in other languages find pictures, by a bridge that has read English captions alone: Tux Paint's stamps.

    python -m bench.languages FOLDER

Needs `apt-get` and pip, as `bench.alignment` does, whose split it takes. Prints JSON, and keeps it in bench/results: recall@1 and @5 of the 100 test pictures by
their captions as Tux Paint's translators wrote them, with 95 % intervals (a bootstrap over captions), of multilingual-e5-small and of MiniLM,
which was trained on English. Heads are linear, on both encoders of pictures, and trained on features that are computed once. A language counts the captions that it
has and that are not written as in English.
"""

from __future__ import annotations

import json
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.support.frozen import LINEAR, PICTURES, Rows, bridged, features, seen, splits_of
from bench.support.outcomes import interval, record
from examples.prepare_multilingual import write_multilingual
from examples.prepare_stamps import captioned, flat, key, prepare_all, unpacked

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "de": "German", "ru": "Russian", "ja": "Japanese"}
TEXTS = ("multilingual-e5-small", "minilm")


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_all(folder)
    write_multilingual(folder / "models" / "multilingual-e5-small")
    splits = splits_of(folder)
    captions = cache(lambda: translated(splits["test"]))
    scores = {text: cache(partial(_scores, folder, splits, text)) for text in TEXTS}
    rows = [
        record("languages", f"{text}, {LANGUAGES[language]}", partial(_measured, scores[text], captions, language))
        for language in LANGUAGES
        for text in TEXTS
    ]
    print(json.dumps(rows, indent=1), flush=True)


def translated(test: Rows) -> dict[str, dict[int, str]]:
    """Return the captions of the test rows in each language, by the row's number."""
    found: dict[str, dict[int, str]] = {language: {} for language in LANGUAGES}
    places = {picture: number for number, picture in enumerate(test.pictures)}
    with unpacked() as (_, root):
        for name, english in captioned(root):
            number = places.get(f"pictures/{flat(name)}")
            if number is None:
                continue
            found["en"][number] = test.texts[number]
            for language, text in translations((root / name).with_suffix(".txt").read_text("utf-8", "replace")).items():
                if language in found and key(text) != key(english):
                    found[language][number] = text
    return found


def translations(content: str) -> dict[str, str]:
    """Return what a file of captions says, by language; its lines are like `fr.utf8=Un basson.`, the first is English."""
    lines = (line.partition(".utf8=") for line in content.splitlines())
    return {language: text.strip() for language, mark, text in lines if mark and text.strip()}


def _scores(folder: Path, splits: dict[str, Rows], text: str) -> Any:
    """Return what gives cosines of captions with the test pictures, (captions, pictures)."""
    see, read = bridged(*seen(folder, splits, [*PICTURES], text), splits, **LINEAR)
    shown = see(*(features(folder, one, splits["test"].pictures) for one in PICTURES))
    return lambda captions: read(features(folder, text, captions)) @ shown.T


def _measured(scores: Any, found: Any, language: str) -> dict[str, Any]:
    captions: dict[int, str] = found()[language]
    cosines = scores()([*captions.values()])
    nearest = np.argsort(-cosines, axis=1, kind="stable")
    figures: dict[str, Any] = {"captions": len(captions), "among": cosines.shape[1]}
    for best in (1, 5):
        hits = (nearest[:, :best] == np.array([*captions])[:, None]).any(axis=1)
        figures[f"recall@{best}"] = round(float(hits.mean()), 4)
        figures[f"recall@{best} 95 %"] = interval(partial(_share, hits), len(hits))
    return figures


def _share(hits: np.ndarray, drawn: np.ndarray) -> float:
    return float(hits[drawn].mean())


if __name__ == "__main__":
    main()
