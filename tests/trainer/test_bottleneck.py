"""Bottleneck modules find their places by structure, in a public sample of architectures, and are loaded with their base."""

from __future__ import annotations

import json
import runpy

import pytest
import torch

from tests.trainer.architectures import CLASSES, TRANSFORMERS, build, build_timm
from unfreeze_api.adapters.bottleneck import BottleneckSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.adapters import bottleneck_layers as layers
from unfreeze_trainer.models.adapters.bottleneck import add_bottlenecks, save_bottlenecks
from unfreeze_trainer.models.blocks import Block, find_blocks
from unfreeze_trainer.models.heads import timm_head, transformers_head

# The outputs of a layer's parts.
TEXT = {
    "bert": {"attention.output.dense", "output.dense"},
    "distilbert": {"attention.out_lin", "ffn.lin2"},
    "albert": {"attention.dense", "ffn_output"},
    "deberta-v2": {"attention.output.dense", "output.dense"},
    "modernbert": {"attn.Wo", "mlp.Wo"},
    "gpt2": {"attn.c_proj", "mlp.c_proj"},
    "llama": {"self_attn.o_proj", "mlp.down_proj"},
    "phi3": {"self_attn.o_proj", "mlp.down_proj"},
    "t5": {"SelfAttention.o", "EncDecAttention.o", "DenseReluDense.wo"},
    "bart": {"self_attn.out_proj", "encoder_attn.out_proj", "fc2"},
    "opt": {"self_attn.out_proj", "fc2"},
    "swin": {"attention.o_proj", "mlp.fc2"},
    "convnext": {"pwconv2"},
}
IMAGE = {
    "vit_tiny_patch16_224": {"attn.proj", "mlp.fc2"},
    "swin_tiny_patch4_window7_224": {"attn.proj", "mlp.fc2"},
    "eva02_tiny_patch14_224": {"attn.proj", "mlp.fc2"},
    "levit_128s": {"attn.proj.ln.linear", "mlp.ln2.linear"},
    "mixer_s32_224": {"mlp_channels.fc2"},
    "convnext_atto": {"mlp.fc2"},
    "resnet50": {"conv3"},
    "seresnet18": {"conv2"},
    "regnety_002": {"conv3.conv"},
    "efficientnet_b0": {"conv_pwl", "conv_pw", "conv_head"},
    "nfnet_f0": {"conv3", "final_conv"},
}
HOULSBY = BottleneckSpec(placement="Houlsby", reduction_factor=4)


def add(name, spec):
    module, inputs = build(name) if name in TRANSFORMERS else build_timm(name)
    head = transformers_head(module) if name in TRANSFORMERS else timm_head(module, CLASSES)
    blocks = find_blocks(module, head)
    with torch.device("cpu" if name in TRANSFORMERS else "meta"):
        return add_bottlenecks(module, blocks, spec, seed=0), inputs


def places(module):
    return [path for path, part in module.named_modules() if isinstance(part, layers.Bottleneck)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TEXT, *IMAGE])
def test_places_are_found_and_used(name):
    loaded, inputs = add(name, HOULSBY)
    module, wanted = loaded.module, (TEXT | IMAGE)[name]
    found = places(module)
    ends = {path: [end for end in wanted if f".{path}".endswith(f".{end}.{layers.NAME}")] for path in found}
    assert [path for path in found if not ends[path]] == []
    assert {end for matches in ends.values() for end in matches} == wanted
    called = []
    for path in found:
        module.get_submodule(path).register_forward_hook(lambda *_, path=path: called.append(path))
    with torch.no_grad():
        module(**inputs)
    assert set(called) == set(found)
    for block in loaded.blocks:
        adapted = any(f".{layers.NAME}." in parameter for parameter in block.parameters)
        assert adapted == block.name.startswith("layer."), block.name


def test_pfeiffer_has_one_in_a_layer():
    loaded, _ = add("bert", BottleneckSpec())
    assert places(loaded.module) == [f"bert.encoder.layer.{i}.output.dense.{layers.NAME}" for i in range(3)]
    assert loaded.module.bert.encoder.layer[0].output.dense.bottleneck.down.weight.shape == (1, 16)


def test_named_modules_get_one():
    loaded, _ = add("bert", BottleneckSpec(target_modules=["pooler.dense"]))
    assert places(loaded.module) == [f"bert.pooler.dense.{layers.NAME}"]
    assert f"bert.pooler.dense.{layers.NAME}.up.bias" in loaded.blocks[-2].parameters


def test_layers_of_an_unknown_kind_are_told_of():
    with pytest.raises(JobError, match="name the modules whose outputs are to be adapted in targetModules"):
        add("perceiver", HOULSBY)


def test_statistics_of_a_head_are_written_too(tmp_path):
    """LeViT's head begins with a BatchNorm, whose statistics training moves."""

    def made():
        torch.manual_seed(0)
        head = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
        return torch.nn.ModuleDict({"layer": torch.nn.Linear(4, 4), "head": head})

    module, spec = made(), BottleneckSpec(target_modules=["layer"])
    head = tuple(name for name, _ in module.named_parameters() if name.startswith("head."))
    add_bottlenecks(module, [Block("layer.0", ("layer.weight", "layer.bias")), Block("head", head)], spec, seed=0)
    module["head"][0](torch.randn(8, 4) + 3)
    save_bottlenecks(module, head, tmp_path, spec, "")
    found = layers.load(made(), str(tmp_path)).state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in module.state_dict().items())


def test_another_base_is_found(tmp_path):
    loaded, _ = add("bert", HOULSBY)
    save_bottlenecks(loaded.module, loaded.blocks[-1].parameters, tmp_path, HOULSBY, "/models/bert")
    config = json.loads((tmp_path / layers.CONFIG).read_text())
    assert config["base_model_name_or_path"] == "/models/bert"
    load = runpy.run_path(str(tmp_path / "bottleneck.py"))["load"]
    with pytest.raises(RuntimeError, match="this is not the base of"):
        load(build("distilbert")[0], str(tmp_path))
    wide = build("bert")[0]
    wide.classifier = torch.nn.Linear(16, 9)
    with pytest.raises(RuntimeError, match=r"classifier.bias is \(7,\) in .*, \(9,\) in the model"):
        load(wide, str(tmp_path))
