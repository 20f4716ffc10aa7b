"""Which files of a repository are read, from listings as repositories of each kind have them."""

import json

import pytest

from unfreeze_api.sources.hf import parse
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.sources.pins import is_plain
from unfreeze_trainer.sources.selection import data_files, model_files

COMMON = {".gitattributes", "README.md", "config.json"}
KINDS = {
    "text": (
        COMMON | {"model.safetensors", "pytorch_model.bin", "tf_model.h5", "vocab.txt", "tokenizer.json", "tokenizer_config.json"},
        {"model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json"},
    ),
    "sentence encoder": (
        COMMON | {"1_Pooling/config.json", "modules.json", "model.safetensors", "onnx/model.onnx", "openvino/openvino_model.bin"},
        {"1_Pooling/config.json", "modules.json", "model.safetensors"},
    ),
    "an old one": (
        COMMON | {"pytorch_model.bin", "rust_model.ot", "flax_model.msgpack", "spiece.model", "training_args.bin"},
        {"pytorch_model.bin", "spiece.model"},
    ),
    "timm": (COMMON | {"model.safetensors", "pytorch_model.bin"}, {"model.safetensors"}),
    "ViT": (
        COMMON | {"preprocessor_config.json", "model.safetensors", "flax_model.msgpack"},
        {"preprocessor_config.json", "model.safetensors"},
    ),
    "Whisper": (
        COMMON
        | {"model.safetensors", "model.fp32-00001-of-00002.safetensors", "model.fp32-00002-of-00002.safetensors", "merges.txt"}
        | {"preprocessor_config.json", "normalizer.json", "vocab.json"},
        {"model.safetensors", "merges.txt", "preprocessor_config.json", "normalizer.json", "vocab.json"},
    ),
    "an export of ours": (
        COMMON | {"model.safetensors", "pooled_config.json", "pooled.py", "2_Dense/config.json", "2_Dense/model.safetensors"},
        {"model.safetensors", "pooled_config.json", "2_Dense/config.json", "2_Dense/model.safetensors"},
    ),
    "with code": (COMMON | {"model.safetensors", "modeling_own.py", "configuration_own.py"}, {"model.safetensors"}),
}  # fmt: skip


def chosen(names, *, weights=True, index=None):
    return model_files(names, "here", weights=weights, read=lambda _: json.dumps(index).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_one_format_of_the_weights_and_what_goes_with_it(kind):
    names, found = KINDS[kind]
    assert set(chosen(names)) == found | {"README.md", "config.json"}


def test_shards_are_those_that_the_index_names():
    shards = {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    names = (
        COMMON | shards | {"model.safetensors.index.json", "pytorch_model.bin.index.json", "model-other.safetensors"}
    )
    index = {"weight_map": dict(zip("ab", sorted(shards), strict=True))}
    assert set(chosen(names, index=index)) == shards | {"model.safetensors.index.json", "README.md", "config.json"}


@pytest.mark.parametrize(
    "index",
    [
        {},
        [],
        {"weight_map": {"a": "../secret"}},
        {"weight_map": {"a": 1}},
        {"weight_map": {"a": "missing.safetensors"}},
    ],
)
def test_an_index_that_is_none_or_names_something_else_is_refused(index):
    with pytest.raises(JobError, match=r"here: model\.safetensors\.index\.json (is no index|names)") as caught:
        chosen(COMMON | {"model.safetensors.index.json"}, index=index)
    assert caught.value.reason == "InvalidModel"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"adapter_config.json", "adapter_model.safetensors"}, "holds an adapter .* and no model: name the base model"),
        ({"unet/config.json", "model_index.json"}, "no config.json, and so no model of transformers or timm"),
        (COMMON | {"model.Q4.gguf"}, r"no weights that are read .*model\.Q4\.gguf.* set spec.model.initialization"),
    ],
)
def test_what_is_no_model_is_refused_by_what_it_is(names, told):
    with pytest.raises(JobError, match=told) as caught:
        chosen(names)
    assert caught.value.reason == "InvalidModel"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"base_model_name_or_path": "org/bert"}, r"trained on, org/bert as it says$"),
        ({"base_model_name_or_path": ["org/bert"]}, r"trained on$"),
        ([], r"trained on$"),
    ],
)
def test_an_adapter_says_what_its_base_is(config, told):
    with pytest.raises(JobError, match=told):
        chosen({"adapter_config.json", "adapter_model.safetensors"}, index=config)


def test_random_weights_need_none():
    assert set(chosen(COMMON, weights=False)) == {"README.md", "config.json"}


NAMES = [
    "data/train-0.parquet",
    "data/train-1.parquet",
    "data/load.py",
    "data/x.pkl",
    "a/b/c.png",
    ".git/config",
    "README.md",
]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/data/train-0.parquet", ["data/train-0.parquet"]),
        ("/data/train-*.parquet", ["data/train-0.parquet", "data/train-1.parquet"]),
        ("/data/train-[1-9].parquet", ["data/train-1.parquet"]),
        ("/data", ["README.md", "data/train-0.parquet", "data/train-1.parquet"]),
        ("/data/train-{1..1}.parquet", ["data/train-1.parquet"]),
        ("", ["README.md", "a/b/c.png", "data/train-0.parquet", "data/train-1.parquet"]),
    ],
)
def test_of_data_neither_code_nor_pickles_nor_what_is_hidden(path, found):
    assert data_files(NAMES, parse(f"datasets/o/n{path}"), "here", beside=False, read=lambda _: b"") == found


@pytest.mark.parametrize(
    ("path", "reason", "told"),
    [
        ("data/trian-0.parquet", "NotFound", r"is not among its files; there are data/train-0\.parquet"),
        ("none/*.csv", "NotFound", "is not among its files"),
        ("data/load.py", "NotFound", "is not among its files"),
        ("d*/train-0.parquet", "InvalidData", "stand in the file's name alone"),
    ],
)
def test_what_there_is_not_of_data(path, reason, told):
    with pytest.raises(JobError, match=told) as caught:
        data_files(NAMES, parse(f"datasets/o/n/{path}"), "here", beside=False)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["a", "a/b", "a b/ü.txt", "..a", "a..", ".hidden"])
def test_names_that_stay_below(name):
    assert is_plain(name)


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\\b", "a\0b", "a\nb", "\x7f", "x" * 1025]
)
def test_names_that_do_not(name):
    assert not is_plain(name)
