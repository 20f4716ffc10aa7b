#!/usr/bin/env bash
# transformers 5.23.0, torch 2.15.0: of CLIP, SigLIP, SigLIP 2 and MetaCLIP 2 as they classify images, and Whisper as it classifies sounds,
# model.base_model is the whole model, classifier included. Freezing it leaves nothing that trains; giving its parameters a
# learning rate of their own gives the new classifier the backbone's, without a word. Most others, ViT for one, have their backbone there.
# Seen: base_model is the model itself in these five, 0 parameters train after freezing it (2 of ViT), the classifier's rate is the low one.
#
# One would guess what its docstring says, "the main body of the model", in each class with a head. It looks for an attribute
# by the name that the family's whole model goes by; these classes hold a tower or an encoder under another one.
#
# It matters here, since a backbone is what a first phase freezes and a head what gets a higher rate: base_model tells where a head
# begins only where it is another module than the model.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy transformers==5.23.0

cat > try.py <<'PY'
import transformers

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
TOWERS = {
    "CLIP": transformers.CLIPConfig,
    "Siglip": transformers.SiglipConfig,
    "Siglip2": transformers.Siglip2Config,
    "MetaClip2": transformers.MetaClip2Config,
}
HEARS = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "max_source_positions": 50}


def rates(model):
    """Return how many parameters train once base_model is frozen, and the rate of the classifier beside a slow base_model."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    rate = {name: 1e-5 if id(parameter) in body else 1e-3 for name, parameter in model.named_parameters()}
    model.base_model.requires_grad_(False)
    return sum(parameter.requires_grad for parameter in model.parameters()), rate["classifier.weight"]


def say(model, whole):
    name, body = type(model).__name__, type(model.base_model).__name__
    alone = model.base_model is model
    trained, rate = rates(model)
    print(f"{name}: base_model is {body}, {trained} parameters train without it, rate of the classifier {rate}")
    assert (alone, trained == 0, rate) == (whole, whole, 1e-5 if whole else 1e-3), f"{name} has another body now"


say(transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES)), whole=False)
for name, config in TOWERS.items():
    sizes = {**SIZES, "num_patches": 4} if name == "Siglip2" else SIZES
    say(getattr(transformers, f"{name}ForImageClassification")(config(vision_config=sizes)), whole=True)
say(transformers.WhisperForAudioClassification(transformers.WhisperConfig(**HEARS)), whole=True)
PY
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
venv/bin/python try.py
