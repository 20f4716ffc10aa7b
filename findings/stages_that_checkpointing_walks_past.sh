#!/usr/bin/env bash
# timm 1.0.31, torch 2.15.0: with set_grad_checkpointing() the stages of EfficientNet, MobileNetV3 and ResNet are no longer called. Their blocks
# are, one after the other: timm flattens the stages into one list of blocks before it checkpoints them. ConvNeXt, of the same library, calls
# its stages with and without. What hangs on a stage is passed over without a word: a forward hook collects nothing, in evaluation mode too,
# and a stage that FSDP2's fully_shard divides is never gathered, so that a forward pass that worked before fails in its first convolution
# ("got mixed torch.Tensor and DTensor").
#
# One would guess that checkpointing changes what is kept of activations and nothing else, so that each stage is called as often as before,
# and that a model divided by stages, as the guides of FSDP divide transformers by layers, can be checkpointed.
#
# It matters here, since engines divide models and features are collected at modules, while gradientCheckpointing is one line of a job: what is
# divided has to be what is called when activations are checkpointed.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy timm==1.0.31

cat > try.py <<'PY'
from collections import Counter

import timm
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

pixels = torch.randn(2, 3, 64, 64)


def opened(name, stages):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=3).train()
    found = [getattr(net, one) for one in stages] if isinstance(stages, tuple) else [*net.get_submodule(stages)]
    return net, found


def called(net, stages):
    seen = Counter()
    hooks = [stage.register_forward_hook(lambda *_, at=at: seen.update([at])) for at, stage in enumerate(stages)]
    net(pixels)
    for hook in hooks:
        hook.remove()
    return len(seen)


layers = ("layer1", "layer2", "layer3", "layer4")
kinds = {"efficientnet_lite0": "blocks", "mobilenetv3_small_050": "blocks", "resnet18": layers, "convnext_atto": "stages"}
for name, where in kinds.items():
    net, stages = opened(name, where)
    plain = called(net, stages)
    net.set_grad_checkpointing(True)
    trained, evaluated = called(net, stages), called(net.eval(), stages)
    print(f"{name}: of {len(stages)} stages {plain} are called; with checkpointing {trained}, in evaluation mode {evaluated}")
    assert plain == len(stages), "stages are not called at all"
    assert trained == (len(stages) if name == "convnext_atto" else 0), "checkpointing calls other stages now"
    assert evaluated == trained, "evaluation calls other stages now"

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = dist.init_device_mesh("cpu", (1,))
for checkpointing in (False, True):
    net, stages = opened("resnet18", layers)
    for stage in stages:
        fully_shard(stage, mesh=mesh)
    fully_shard(net, mesh=mesh)
    net.set_grad_checkpointing(checkpointing)
    try:
        net(pixels).sum().backward()
        said = ""
    except RuntimeError as error:
        said = str(error).splitlines()[0]
    print(f"divided by stages, checkpointing {checkpointing}:", said or "a forward and a backward pass")
    assert bool(said) == checkpointing, "checkpointing and FSDP2 agree now"
    assert not said or "mixed torch.Tensor and DTensor" in said, "it fails otherwise now"
dist.destroy_process_group()
PY
CUDA_VISIBLE_DEVICES= venv/bin/python try.py
