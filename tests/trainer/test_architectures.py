"""Blocks of a public sample of architectures, their order proven by a forward pass. Nothing has weights of its own."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from tests.trainer.architectures import BARE, CLASSES, TIMM, TRANSFORMERS, build, build_timm
from tests.trainer.order import first_uses
from unfreeze_trainer.models.blocks import Block, find_blocks
from unfreeze_trainer.models.heads import timm_head, transformers_head

pytestmark = pytest.mark.slow

ONE_LAYER = {"albert"}  # its layers share their weights
LARGE = {
    # Share of the largest block of the backbone where it is above a half, and what makes it so.
    "vgg11_bn": 0.95,  # its first dense layer
    "resnest14d": 0.8,  # four residual blocks, each with four times the weights of the one before
    "selecsls42b": 0.9,  # a stack of convolutions without a residual block
    "efficientvit_b0": 0.7,  # dense layers before the classifier, which a checkpoint has
    "davit_tiny": 0.6,  # one block in its last stage
    "hrnet_w18_small": 0.9,  # the convolutions that join the branches
    "ghostnet_100": 0.6,  # the convolution before the classifier
    "mobilenetv3_small_050": 0.7,
    "tf_efficientnet_lite0": 0.6,
}
OTHER_ORDER = {
    "cait_xxs24_224",  # timm lays the two layers of the class token beside the last two of the image
    "coat_tiny",  # all scales share the first scale's position convolutions
    "clip",  # two towers side by side
}


def check(module: nn.Module, blocks: list[Block], head: frozenset[str]) -> None:
    names = [name for name, _ in module.named_parameters()]
    found = list(itertools.chain.from_iterable(block.parameters for block in blocks))
    assert sorted(found) == sorted(names)
    assert len(found) == len(set(found))
    assert len({block.name for block in blocks}) == len(blocks)
    if head:
        assert blocks[-1].name == "head"
        assert set(blocks[-1].parameters) == head
    assert [block.name for block in blocks if block.name.startswith("layer.")] == [
        f"layer.{i}" for i in range(sum(block.name.startswith("layer.") for block in blocks))
    ]


def misplaced(blocks: list[Block], uses: list[str]) -> list[str]:
    """Return the parameters outside the embeddings that are used after those of a block above theirs."""
    place = {name: index for index, block in enumerate(blocks) for name in block.parameters}
    highest, wrong = 0, []
    for name in uses:
        if place[name] < highest and blocks[place[name]].name != "embeddings":
            wrong.append(f"{name} of {blocks[place[name]].name} after {blocks[highest].name}")
        highest = max(highest, place[name])
    return wrong


def largest_share(module: nn.Module, blocks: list[Block]) -> float:
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    weights = [sum(sizes[name] for name in block.parameters) for block in blocks if block.name != "head"]
    return max(weights) / sum(weights)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str) -> None:
    module, inputs = build(name)
    head = transformers_head(module)
    blocks = find_blocks(module, head)
    check(module, blocks, head)
    assert bool(head) == (TRANSFORMERS[name][1] != BARE)
    layers = [block for block in blocks if block.name.startswith("layer.")]
    assert len(layers) > 1 or name in ONE_LAYER
    uses = first_uses(module, lambda: module(**inputs))
    assert uses
    if name not in OTHER_ORDER:
        assert misplaced(blocks, uses) == []
        assert uses[0] in blocks[0].parameters
    owner = {parameter: block.name for block in blocks for parameter in block.parameters}
    assert {block.name for block in layers} <= {owner[use] for use in uses}


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    module, inputs = build_timm(name)
    with torch.device("meta"):
        head = timm_head(copy.deepcopy(module), CLASSES)
    blocks = find_blocks(module, head)
    check(module, blocks, head)
    assert sum(block.name.startswith("layer.") for block in blocks) > 3 or name == "crossvit_tiny_240"
    assert largest_share(module, blocks) < LARGE.get(name, 0.5)
    uses = first_uses(module, lambda: module(**inputs))
    if name not in OTHER_ORDER:
        assert misplaced(blocks, uses) == []
        assert uses[0] in blocks[0].parameters


def names_of(name: str) -> list[str]:
    module, _ = build(name)
    return [block.name for block in find_blocks(module, transformers_head(module))]


def block_of(name: str, parameter: str) -> str:
    module, _ = build(name)
    blocks = find_blocks(module, transformers_head(module))
    return next(block.name for block in blocks if parameter in block.parameters)


LAYERS = ["embeddings", "layer.0", "layer.1", "layer.2"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("albert", ["embeddings", "layer.0", "pooler", "head"]),
        ("xlm", [*LAYERS, "head"]),  # lists of attentions, norms and feed-forward parts
        ("funnel", [*LAYERS, "head"]),  # lists in a list
        ("t5", [*LAYERS, "layer.3", "layer.4", "norm", "head"]),  # two layers of the decoder above three of the encoder
        ("swin", [*LAYERS, "layer.3", "layer.4", "layer.5", "norm", "head"]),  # stages of 1, 2 and 3 layers
        ("segformer", ["layer.0", *[f"layer.{i}" for i in range(1, 6)], "head"]),
        ("clip", [*LAYERS, "neck"]),  # three layers of the image tower beside two of the text's
        ("opt", [*LAYERS, "neck", "head"]),
    ],
)
def test_names(name: str, expected: list[str]) -> None:
    assert names_of(name) == expected


@pytest.mark.parametrize(
    ("name", "parameter", "block"),
    [
        ("bart", "model.encoder.layernorm_embedding.weight", "embeddings"),
        ("opt", "model.decoder.final_layer_norm.weight", "neck"),
        ("mbart", "model.encoder.layer_norm.weight", "layer.3"),  # it is the decoder's input
        ("swin", "swin.encoder.layers.0.downsample.norm.weight", "layer.0"),
        ("swin", "swin.encoder.layers.2.blocks.1.layernorm_before.weight", "layer.4"),
        ("clip", "text_model.encoder.layers.1.layer_norm1.weight", "layer.2"),
        ("clip", "vision_model.encoder.layers.2.layer_norm1.weight", "layer.2"),
        ("clip", "vision_model.encoder.layers.0.layer_norm1.weight", "layer.0"),
        ("clip", "vision_model.embeddings.patch_embedding.weight", "embeddings"),
        ("clip", "text_projection.weight", "neck"),
        ("clip", "logit_scale", "neck"),
        ("xlm", "transformer.ffns.1.lin1.weight", "layer.1"),
        ("mixtral", "model.layers.1.mlp.experts.down_proj", "layer.1"),
        ("whisper", "projector.weight", "head"),
    ],
)
def test_where_a_parameter_belongs(name: str, parameter: str, block: str) -> None:
    assert block_of(name, parameter) == block


def test_a_list_of_lists_is_divided_however_many_there_are() -> None:
    from transformers import FunnelConfig, FunnelForSequenceClassification

    config = FunnelConfig(vocab_size=60, block_sizes=[2, 2, 2, 2], d_model=16, n_head=2, d_head=8, d_inner=32)
    module = FunnelForSequenceClassification(config)
    blocks = find_blocks(module, transformers_head(module))
    assert [block.name for block in blocks] == ["embeddings", *(f"layer.{i}" for i in range(8)), "head"]


def test_a_tied_output_layer_is_of_the_embeddings() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    module = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=3, n_head=2))
    head = transformers_head(module)
    assert not head
    assert [block.name for block in find_blocks(module, head)] == [*LAYERS, "norm"]


def test_the_head_is_all_that_timm_draws_anew() -> None:
    skeleton, _ = build_timm("volo_d1_224")
    assert timm_head(skeleton, 3) == {"head.weight", "head.bias", "aux_head.weight", "aux_head.bias"}
