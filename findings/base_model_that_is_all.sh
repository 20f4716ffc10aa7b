#!/usr/bin/env bash
# transformers 5.23.0, torch 2.15.0: of CLIP, SigLIP, SigLIP 2 and MetaCLIP 2 as they classify images, model.base_model is the whole
# model, classifier included. Freezing base_model's parameters leaves nothing that trains; giving them a learning rate of their own
# gives the new classifier the backbone's. ViT, DINOv2 and the others have their backbone there. Seen: base_model is the model itself in four
# classes, 0 parameters train after freezing it (2 of ViT), and the classifier is in the group of the backbone, without a word.
#
# One would guess what its docstring says, "the main body of the model", and that it is one for each class with a head. What
# it looks for is the name of the model of pictures and texts, which these classes, having its vision tower alone, have not.
#
# It matters here, since a backbone is what a first phase freezes, and a head what gets a higher rate: where a head begins has to be asked
# of what the classes have, and base_model counts as a backbone where it is another module than the model.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy transformers==5.23.0

cat > try.py <<'PY'
import torch
import transformers

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
TOWERS = {
    "CLIP": transformers.CLIPConfig,
    "Siglip": transformers.SiglipConfig,
    "Siglip2": transformers.Siglip2Config,
    "MetaClip2": transformers.MetaClip2Config,
}


def rates(model):
    """Return how many parameters train once base_model is frozen, and the rate of the classifier beside a slow base_model."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    rate = {name: 1e-5 if id(parameter) in body else 1e-3 for name, parameter in model.named_parameters()}
    model.base_model.requires_grad_(False)
    return sum(parameter.requires_grad for parameter in model.parameters()), rate["classifier.weight"]


vit = transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES))
print("ViT:", type(vit.base_model).__name__, *rates(vit))
for name, config in TOWERS.items():
    sizes = {**SIZES, "num_patches": 4} if name == "Siglip2" else SIZES
    model = getattr(transformers, f"{name}ForImageClassification")(config(vision_config=sizes))
    whole = model.base_model is model
    trained, rate = rates(model)
    print(f"{name}: base_model is {type(model.base_model).__name__}: {trained} parameters train, rate of the classifier {rate}")
    assert whole and trained == 0 and rate == 1e-5, f"{name} has a body of its own now"
vit = transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES))
assert rates(vit) == (2, 1e-3)
PY
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
venv/bin/python try.py
