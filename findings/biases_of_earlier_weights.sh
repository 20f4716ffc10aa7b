#!/usr/bin/env bash
# transformers 5.23.0, timm 1.0.31, torch 2.15.0: LeViT keeps the biases of its attention from the first forward pass in evaluation mode
# on. Weights that are loaded into it afterwards, or averaged into it, are used but for these biases. transformers' LeViT forgets them when
# train() is called, and not when eval() is; timm's LeViT and TinyViT at either of them. torch's AveragedModel, which is
# never trained, keeps those of its first evaluation for good. Seen, with biases that have moved by 1 and all else equal: after
# load_state_dict the outputs are bit for bit those of the weights before, and state_dict() gives the new ones.
#
# One would guess that a model in evaluation mode is a function of its parameters and its input. It matters here, since the best
# weights are loaded after the last evaluation, and a model is looked at between steps: its figures would be those of no checkpoint
# that there is. Whatever evaluates goes through train() first.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy transformers==5.23.0 timm==1.0.31

cat > try.py <<'PY'
import copy

import timm
import torch
from torch.optim.swa_utils import AveragedModel
from transformers import LevitConfig, LevitForImageClassification

torch.manual_seed(0)
picture = torch.randn(1, 3, 224, 224)


def build(name):
    if name == "transformers":
        return LevitForImageClassification(LevitConfig())
    return timm.create_model(name, num_classes=5)


def say(model):
    outputs = model(picture)
    return getattr(outputs, "logits", outputs)


def apart(outputs, others):
    return ((outputs - others).norm() / others.norm()).item()


@torch.no_grad()
def moved(model):
    """Return a copy that never was in evaluation mode before, with other biases."""
    other = copy.deepcopy(model).train()
    for name, parameter in other.named_parameters():
        if name.endswith("attention_biases"):
            parameter.add_(torch.randn_like(parameter))
    return other


@torch.no_grad()
def loaded(name):
    model = build(name)
    other = moved(model)
    before = say(model.eval())
    model.load_state_dict(other.state_dict())
    expected = say(other.eval())
    assert apart(before, expected) > 0.01
    return {
        "as before": torch.equal(say(model), before),
        "after eval()": torch.equal(say(model.eval()), before),
        "after train()": torch.equal(say(model.train().eval()), before),
    }


for name, stays in {"transformers": True, "levit_128s": False, "tiny_vit_5m_224": False}.items():
    found = loaded(name)
    print(f"{name}: outputs of the earlier weights", found)
    assert found == {"as before": True, "after eval()": stays, "after train()": False}, "weights take effect otherwise now"

with torch.no_grad():
    model = build("transformers")
    mean = AveragedModel(model)
    mean.update_parameters(model)
    first = say(mean.eval())
    mean.update_parameters(moved(model))
    second = say(mean.eval())
    own = say(copy.deepcopy(mean.module).train().eval())
    print(f"AveragedModel: says what it said first: {torch.equal(first, second)}, apart from what its weights say by {apart(second, own):.2f}")
    assert torch.equal(first, second), "averaged biases take effect now"
    assert apart(second, own) > 0.01
PY
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
venv/bin/python try.py
