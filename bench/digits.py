"""How well spoken digits are told apart by Whisper's encoder in languages that it was not trained on, beside scikit-learn.

    python -m bench.digits FOLDER

Needs what `examples/prepare_audio.py` fetches. Prints JSON, and keeps it in bench/results: accuracy on the languages that were held out,
with its 95 % interval, of the example's job and of the same with other seconds of each clip, and of a logistic regression on what the plain
library gives: the encoder's outputs over the same seconds, and over the moments of the clip alone.
"""

from __future__ import annotations

import json
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.support.outcomes import SEED, example, record, said, told, trained
from examples.prepare_audio import prepare_audio

SECONDS = (1, 2)
RATE, MOMENTS = 16_000, 50
"""Values and outputs of the encoder a second."""

Outputs = tuple[list[np.ndarray], list[str]]


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_audio(folder)
    found: dict[str, Any] = {"benchmark": "digits"}
    for seconds in SECONDS:
        name = f"audio-classification.yaml, {seconds} s"
        found[name] = record("digits", name, partial(_tuned, folder, seconds))
        plain = "scikit-learn: logistic regression on the frozen encoder's outputs"
        for place, moments in enumerate(("all moments", "the moments of the clip alone")):
            name = f"{plain}, {moments}, {seconds} s"
            found[name] = record("digits", name, partial(_plain, folder, seconds, place))
    print(json.dumps(found, indent=1), flush=True)


def _tuned(folder: Path, seconds: int) -> dict[str, Any]:
    """Return what the example's job is right in, hearing so many seconds of a clip."""
    spec = example(folder, "tasks/audio-classification.yaml")
    spec["task"]["audioClassification"]["maxSeconds"] = seconds
    trained(folder, f"digits-{seconds}", spec)
    rows = said(folder, f"digits-{seconds}")
    return told(np.array(rows["label"]) == np.array(rows["prediction"]))


def _plain(folder: Path, seconds: int, place: int) -> dict[str, Any]:
    """Return what a logistic regression is right in, on the means over all moments (0) or over those of the clips (1)."""
    (outputs, labels), (others, actual) = (_outputs(folder, split, seconds) for split in ("train", "test"))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, random_state=SEED))
    return told(model.fit(outputs[place], labels).predict(others[place]) == np.array(actual))


@cache
def _outputs(folder: Path, split: str, seconds: int) -> Outputs:
    """Return the means of the encoder's outputs over all moments, and over those of each clip, and labels."""
    import soundfile
    import soxr
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForAudioClassification

    place = folder / "models" / "whisper-tiny-en"
    model = WhisperForAudioClassification.from_pretrained(place, trust_remote_code=False)
    encoder = model.encoder.eval()
    weight = encoder.embed_positions.weight[: seconds * MOMENTS].detach().clone()
    encoder.embed_positions.weight = torch.nn.Parameter(weight, requires_grad=False)
    encoder.embed_positions.num_embeddings = len(weight)
    encoder.max_source_positions = encoder.config.max_source_positions = len(weight)
    extractor = WhisperFeatureExtractor(chunk_length=seconds)
    means, labels = [], []
    for file in sorted((folder / "data" / "spoken-digits" / split).glob("*/*.ogg")):
        wave, rate = soundfile.read(file, dtype="float32", always_2d=True)
        sound = soxr.resample(wave.mean(axis=1), rate, RATE)
        with torch.no_grad():
            outputs = encoder(
                extractor(sound, sampling_rate=RATE, return_tensors="pt").input_features
            ).last_hidden_state[0]
        own = max(1, min(len(outputs), -(-len(sound) * MOMENTS // RATE)))
        means.append([outputs.mean(dim=0).numpy(), outputs[:own].mean(dim=0).numpy()])
        labels.append(file.parent.name)
    return [np.stack(each) for each in zip(*means, strict=True)], labels


if __name__ == "__main__":
    main()
