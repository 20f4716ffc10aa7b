"""How well spoken digits are told apart by Whisper's encoder in languages that it was not trained on, beside scikit-learn.

    python -m bench.digits FOLDER

Needs what `examples/prepare_audio.py` fetches. Prints JSON: accuracy on the languages that were held out, with its 95 % interval, of the
example's job and of the same with other seconds of each clip, and of a logistic regression on what the plain library gives: the encoder's
outputs over the same seconds, and over the moments of the clip alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.support.outcomes import SEED, said, told, trained
from examples.prepare_audio import prepare_audio

EXAMPLE = Path(__file__).parents[1] / "examples" / "tasks" / "audio-classification.yaml"
SECONDS = (1, 2)
RATE, MOMENTS = 16_000, 50
"""Values and outputs of the encoder a second."""


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare_audio(folder)
    found: dict[str, Any] = {"benchmark": "digits"}
    for seconds in SECONDS:
        found |= _plain(folder, seconds)
        spec = yaml.safe_load(EXAMPLE.read_text().replace("pvc://", f"file://{folder}/"))["spec"]
        spec["task"]["audioClassification"]["maxSeconds"] = seconds
        trained(folder, f"digits-{seconds}", {key: spec[key] for key in spec if key != "output"})
        rows = said(folder, f"digits-{seconds}")
        found[f"example, {seconds} s"] = told(np.array(rows["label"]) == np.array(rows["prediction"]))
        print(json.dumps(found), file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1), flush=True)


def _plain(folder: Path, seconds: int) -> dict[str, Any]:
    """Return what a logistic regression on the encoder's outputs is right in, over all of the seconds and over the clips alone."""
    (train, labels), (test, actual) = (_outputs(folder, split, seconds) for split in ("train", "test"))
    found: dict[str, Any] = {"train": len(labels), "test": len(actual)}
    for name, place in ((f"logistic regression, {seconds} s", 0), ("logistic regression, the clip alone", 1)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, random_state=SEED))
        found[name] = told(model.fit(train[place], labels).predict(test[place]) == actual)
    return found


def _outputs(folder: Path, split: str, seconds: int) -> tuple[list[np.ndarray], list[str]]:
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
