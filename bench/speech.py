"""How many words of spoken captions Whisper tiny.en, which was trained on English alone, gets wrong in another language, before and after.

    python -m bench.speech FOLDER [LANGUAGE]

Needs what `examples/prepare_speech.py` fetches. Prints JSON, and keeps it in bench/results: word and character error rate on captions that
are in no other file, in whatever language, with the 95 % interval of the former, of the model as it comes and of the example's job on the
first 300 training captions of a language (es or fr; es by default). Both write by plain transformers, the most probable token each time;
nothing is normalised.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.support.outcomes import example, interval, record, trained
from examples.prepare_speech import prepare_speech
from unfreeze_trainer.objectives.word_errors import WordErrors, edits

MODEL = "whisper-tiny-en-decoder"
CAPTIONS = 300
TOKENS = 64
RATE = 16_000


def main() -> None:
    """Measure and print."""
    folder, language = Path(sys.argv[1]).resolve(), (*sys.argv[2:], "es")[0]
    prepare_speech(folder)
    found: dict[str, Any] = {"benchmark": "speech"}
    names = {
        f"{MODEL} as it comes, {language}": _plain,
        f"speech-recognition.yaml, {CAPTIONS} captions, {language}": _tuned,
    }
    for name, measure in names.items():
        found[name] = record("speech", name, partial(measure, folder, language))
    print(json.dumps(found, indent=1), flush=True)


def _plain(folder: Path, language: str) -> dict[str, Any]:
    return _errors(folder / "models" / MODEL, _table(folder, "test", language))


def _tuned(folder: Path, language: str) -> dict[str, Any]:
    spec = example(folder, "tasks/speech-recognition.yaml")
    tables = {split: _table(folder, split, language) for split in ("train", "validation", "test")}
    spec["data"] = {split: {"source": f"file://{table}"} for split, table in tables.items()}
    metrics = trained(folder, f"speech-{language}", spec)
    return _errors(folder / f"speech-{language}" / "model", tables["test"]) | {"test loss": round(metrics["loss"], 3)}


def _table(folder: Path, split: str, language: str) -> Path:
    """Return a table of the captions of a language, the first ones where they are trained on."""
    place = folder / "data" / "captions"
    rows = [json.loads(line) for line in (place / f"{split}.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["language"] == language][: CAPTIONS if split == "train" else None]
    file = place / f"{split}-{language}.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file


def _errors(model: Path, table: Path) -> dict[str, Any]:
    """Return how far what a model writes of the clips of a table is from their texts."""
    import soundfile
    import soxr
    import torch
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    whisper: Any = AutoModelForSpeechSeq2Seq.from_pretrained(model, trust_remote_code=False).eval()
    processor: Any = AutoProcessor.from_pretrained(model, trust_remote_code=False)
    scores, wrong, words = WordErrors(), [], []
    for line in table.read_text().splitlines():
        row = json.loads(line)
        sound, rate = soundfile.read(table.parent / row["audio"], dtype="float32", always_2d=True)
        heard = processor(soxr.resample(sound.mean(axis=1), rate, RATE), sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            ids = whisper.generate(heard.input_features, max_new_tokens=TOKENS, do_sample=False)[0]
        said = processor.decode(ids, skip_special_tokens=True)
        scores.add(said, row["text"])
        wrong.append(edits(said.split(), row["text"].split()))
        words.append(len(row["text"].split()))
    errors, counts = np.array(wrong), np.array(words)
    between = interval(lambda rows: errors[rows].sum() / counts[rows].sum(), len(errors))
    return (
        {"clips": len(errors)}
        | {name: round(value, 4) for name, value in scores.compute().items()}
        | {"wer 95 %": between}
    )


if __name__ == "__main__":
    main()
