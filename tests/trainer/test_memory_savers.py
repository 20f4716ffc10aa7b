"""What saves memory or time on request: gradient checkpointing, float16, compiled layers; and who is refused it."""

from __future__ import annotations

import pytest
import timm
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests.trainer.mlp import Net, blocks
from unfreeze_trainer.engines import parts
from unfreeze_trainer.engines.base import compute_dtype
from unfreeze_trainer.engines.scaling import LossScale
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.activations import checkpoint_activations
from unfreeze_trainer.models.batch_norm import count_once
from unfreeze_trainer.models.blocks import Block


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    module = BertForSequenceClassification(config)
    return module, list(module.bert.encoder.layer), {"input_ids": torch.arange(12).view(2, 6)}


def vit():
    torch.manual_seed(0)
    module = timm.create_model("test_vit", num_classes=2)
    return module, list(module.blocks), {"x": torch.ones(2, 3, *module.pretrained_cfg["input_size"][1:])}


def resnet():
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=2)
    layers = [layer for name, stage in module.named_children() if name.startswith("layer") for layer in stage]
    return module, layers, {"x": torch.randn(2, 3, 64, 64)}


def gradients(module, layers, batch):
    """Return gradients by name, with the lowest layer frozen, and how often each layer has computed."""
    computed = [0] * len(layers)
    for number, layer in enumerate(layers):

        def count(*_, number=number):
            computed[number] += 1

        next(layer.children()).register_forward_hook(count)
    module.train().requires_grad_(False)
    for layer in layers[1:]:
        layer.requires_grad_(True)
    torch.manual_seed(1)  # dropout draws the same again
    out = module(**batch)
    getattr(out, "logits", out).square().sum().backward()
    return {
        name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None
    }, computed


@pytest.mark.parametrize("make", [bert, vit, resnet])
def test_layers_are_computed_again_for_the_same_gradients(make):
    plain, *rest = make()
    expected, once = gradients(plain, *rest)
    module, layers, batch = make()
    checkpoint_activations(module)
    count_once(module)
    found, computed = gradients(module, layers, batch)
    assert once == [1] * len(layers)
    assert computed == [1] + [2] * (len(layers) - 1), "what is frozen below is not needed again"
    assert found.keys() == expected.keys() == {name for name, p in module.named_parameters() if p.requires_grad}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    statistics = dict(plain.named_buffers())
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in module.named_buffers())


def test_a_model_without_gradient_checkpointing_is_refused():
    with pytest.raises(
        JobError, match=r"spec\.training\.gradientCheckpointing: the library has none for this model\. Set"
    ):
        checkpoint_activations(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("Auto", torch.float32), ("Float32", torch.float32), ("BFloat16", torch.bfloat16)]
)
def test_precision_on_a_cpu(precision, dtype):
    assert compute_dtype(precision, torch.device("cpu")) is dtype


def test_float16_needs_an_accelerator():
    with pytest.raises(JobError, match=r"spec\.training\.precision Float16 needs an accelerator"):
        compute_dtype("Float16", torch.device("cpu"))
    assert compute_dtype("Float16", torch.device("cuda")) is torch.float16


def test_the_scale_of_a_loss_halves_at_once_and_doubles_late():
    scale = LossScale(torch.device("cpu"))
    scale.update(torch.tensor(True))
    assert scale.state() == (2.0**15, 0)
    for _ in range(1999):
        scale.update(torch.tensor(False))
    assert scale.state() == (2.0**15, 1999)
    scale.update(torch.tensor(False))
    assert scale.state() == (2.0**16, 0)


def test_parts_are_the_topmost_modules_of_a_block_without_tied_weights():
    module = Net()
    assert parts.parts_of(module, blocks(module)) == [*module.layers, module.norm, module.head]
    tied = Net(tied=True)
    assert parts.parts_of(tied, blocks(tied)) == [tied.layers[0], tied.norm, tied.head]


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(parts.shutil, "which", lambda _: None)
    with pytest.raises(JobError, match=r"spec\.training\.compile needs a C\+\+ compiler"):
        parts.compile_blocks(Net(), [])


@pytest.mark.slow
def test_compiled_layers_compute_the_same_through_phases():
    """Above what was frozen first, then everything, on batches of several sizes."""
    plain, compiled = Net(dropout=0.0), Net(dropout=0.0)
    compiled.load_state_dict(plain.state_dict())
    parts.compile_blocks(compiled, blocks(compiled))
    assert not torch._dynamo.config.use_recursive_dict_tags_for_guards  # torch 2.11 would not see a layer thaw
    assert not torch._dynamo.config.skip_tensor_guards_with_matching_dict_tags
    for trained in (("head", "norm"), ("head", "norm", "layers.2", "layers.1", "layers.0")):
        for size in (3, 5):
            batch = torch.randn(size, 6)
            for module in (plain, compiled):
                module.zero_grad()
                for name, parameter in module.named_parameters():
                    parameter.requires_grad_(name.startswith(trained))
                module(batch).square().sum().backward()
            for expected, found in zip(plain.parameters(), compiled.parameters(), strict=True):
                assert (found.grad is None) == (expected.grad is None)
                if expected.grad is not None:
                    assert torch.allclose(found.grad, expected.grad, rtol=0, atol=1e-5)


def test_a_stage_of_one_block_that_nobody_calls_is_no_part():
    """EfficientNet's first and last stage, and all of a ResNet-10: FSDP gathered none of their weights, and the convolution failed."""
    module, layers, batch = resnet()
    checkpoint_activations(module)
    each = [
        Block(
            f"layer.{n}",
            tuple(name for name, p in module.named_parameters() if any(p is own for own in layer.parameters())),
        )
        for n, layer in enumerate(layers)
    ]
    assert parts.parts_of(module, each) == layers
    called = []
    for layer in layers:
        layer.register_forward_hook(lambda part, *_: called.append(part))
    module(**batch)
    assert called == layers
