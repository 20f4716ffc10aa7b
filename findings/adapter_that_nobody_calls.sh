#!/usr/bin/env bash
# peft 0.21.2, transformers 5.23.0, torch 2.15.0: target_modules="all-linear" puts a LoRA on the output projection of
# torch.nn.MultiheadAttention, in SigLIP's pooling head for one. The attention takes the weight of that layer and never calls it: the
# LoRA gets no gradient and changes no output, while it is saved, counted as trainable, and merged with the rest. With a LoRA that is not zero
# at its begin the merged model says something else than the one that was trained.
#
# One would guess that a layer with an adapter uses it, that "all-linear" leaves out what it cannot serve, or that there is a warning.
# It matters here, since an export has to say what the model said that was evaluated: such layers get no adapter, and parameters
# that no sample reaches are looked for before the first step.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy transformers==5.23.0 peft==0.21.2

cat > try.py <<'PY'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import SiglipVisionConfig, SiglipVisionModel

sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
torch.manual_seed(0)
pixels = torch.randn(2, 3, 16, 16)


def adapted(**options):
    torch.manual_seed(1)
    model = SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=16, patch_size=8)).eval()
    return get_peft_model(model, LoraConfig(target_modules="all-linear", r=4, **options)).eval()


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    model = adapted()
model(pixel_values=pixels).pooler_output.sum().backward()
idle = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
print("trainable, and without a gradient:", idle)
assert idle and all(".head.attention.out_proj.lora_" in name for name in idle), "other parameters are idle now"
assert not [one for one in said if "out_proj" in str(one.message)], "there is a warning now"

model = adapted(init_lora_weights=False)
with torch.no_grad():
    before = model(pixel_values=pixels).pooler_output
    after = model.merge_and_unload()(pixel_values=pixels).pooler_output
    difference = (before - after).abs().max().item()
print("a LoRA that is not zero: merged, the outputs differ by up to", round(difference, 3))
assert difference > 1e-3, "merged and not merged agree now"
PY
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
venv/bin/python try.py
