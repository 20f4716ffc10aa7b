"""Blocks of many architectures: from input to output, every parameter in exactly one, the head last."""

from typing import Any

import pytest
import torch
from torch import nn

from unfreeze_trainer.models.blocks import Block, find_blocks

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
NAMES = ["embeddings", "layer.0", "layer.1", "layer.2"]
TEXT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bert": (SMALL, [*NAMES, "pooler", "head"]),
    "roberta": (SMALL, [*NAMES, "head"]),
    "electra": (SMALL | {"embedding_size": 8}, [*NAMES, "head"]),
    "modernbert": (SMALL | {"global_attn_every_n_layers": 2}, [*NAMES, "norm", "head"]),
    "deberta-v2": (
        SMALL | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
        [*NAMES, "head"],
    ),
    "nomic_bert": (SMALL, [*NAMES, "pooler", "head"]),
    "distilbert": ({"vocab_size": 50, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}, [*NAMES, "head"]),
    "gpt2": ({"vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 2}, [*NAMES, "norm", "head"]),
    "llama": (SMALL, [*NAMES, "norm", "head"]),
    "bart": (
        {"vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2}
        | {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
        [*NAMES, "layer.3", "head"],
    ),
}
IMAGE: dict[str, tuple[dict[str, Any], int, str]] = {
    "resnet10t": ({}, 4, "fc"),
    "tf_efficientnet_lite0": ({}, 16, "classifier"),
    "convnext_atto": ({}, 12, "head.fc"),
    "vit_tiny_patch16_224": ({"depth": 3}, 3, "head"),
    "swin_tiny_patch4_window7_224": ({"depths": (1, 1, 2, 1), "embed_dim": 24}, 5, "head.fc"),
    "mobilenetv3_small_050": ({}, 12, "classifier"),
    "densenet121": ({"growth_rate": 4, "block_config": (2, 2, 2, 2)}, 8, "classifier"),
    "deit_tiny_distilled_patch16_224": ({"depth": 2}, 2, "head"),
}


def check_partition(module: nn.Module, blocks: list[Block], head: set[str]) -> None:
    names = [name for name, _ in module.named_parameters()]
    found = [name for block in blocks for name in block.parameters]
    assert sorted(found) == sorted(names)
    assert len(found) == len(set(found))
    assert set(blocks[-1].parameters) == head
    assert all(block.parameters for block in blocks)
    assert len({block.name for block in blocks}) == len(blocks)
    for block in blocks:
        assert list(block.parameters) == [name for name in names if name in block.parameters]


@pytest.mark.parametrize("kind", TEXT)
def test_transformers(kind: str) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    options, expected = TEXT[kind]
    module = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **options))
    inside = {id(parameter) for parameter in module.base_model.parameters()}
    head = {name for name, parameter in module.named_parameters() if id(parameter) not in inside}
    blocks = find_blocks(module, head)
    check_partition(module, blocks, head)
    assert [block.name for block in blocks] == expected
    assert any("embed" in name or "wte" in name for name in blocks[0].parameters)
    for block in blocks:
        if block.name.startswith("layer.") and kind != "bart":
            assert all(f".{block.name.removeprefix('layer.')}." in name for name in block.parameters)


def test_embeddings_declared_after_the_layers_are_embeddings_and_so_is_their_norm() -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    options, expected = TEXT["deberta-v2"]
    normed = options | {"norm_rel_ebd": "layer_norm"}
    with torch.device("meta"):
        module = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("deberta-v2", **normed))
    head = {name for name, _ in module.named_parameters() if not name.startswith("deberta.")}
    own = [
        "deberta.encoder.rel_embeddings.weight",
        "deberta.encoder.LayerNorm.weight",
        "deberta.encoder.LayerNorm.bias",
    ]
    blocks = find_blocks(module, head)
    assert [block.name for block in blocks] == expected
    assert {*own} <= {*blocks[0].parameters}
    *_, above, _ = begun = find_blocks(module, head, by_use=False)
    assert (above.name, above.parameters) == ("norm", tuple(own[1:])), "a run that has begun keeps its blocks"
    assert own[0] in begun[0].parameters


def test_convolutions_that_embed_positions_are_no_layers() -> None:
    from transformers import Data2VecAudioConfig, Data2VecAudioModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    small = Data2VecAudioConfig(
        **sizes, conv_dim=(8,), conv_kernel=(3,), conv_stride=(2,), num_conv_pos_embedding_groups=2
    )
    with torch.device("meta"):
        blocks = find_blocks(Data2VecAudioModel(small), ())
    assert [block.name for block in blocks] == ["embeddings", "layer.0", "layer.1"]
    assert any("pos_conv_embed" in name for name in blocks[0].parameters)


@pytest.mark.parametrize("name", IMAGE)
def test_timm(name: str) -> None:
    import timm

    options, layers, classifier = IMAGE[name]
    module = timm.create_model(name, num_classes=5, **options)
    prefixes = (f"{classifier}.", "head_dist.") if "distilled" in name else (f"{classifier}.",)
    head = {name for name, _ in module.named_parameters() if name.startswith(prefixes)}
    blocks = find_blocks(module, head)
    check_partition(module, blocks, head)
    assert [block.name for block in blocks if block.name.startswith("layer.")] == [f"layer.{i}" for i in range(layers)]
    assert blocks[0].name == "embeddings"
    if name in ("convnext_atto", "densenet121", "mobilenetv3_small_050"):  # what lies between the layers and the head
        assert len(blocks) == layers + 3
