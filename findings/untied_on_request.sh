#!/usr/bin/env bash
# transformers 5.23.0, torch 2.15.0: T5Config(tie_word_embeddings=False) gives a model whose input embeddings and output layer are
# one tensor, and a config that says True. What the argument does is to leave out a factor before the output layer
# (scale_decoder_outputs). Only a file with two different tensors unties them as it is loaded, and the warning of that
# says one should set the field to False, which the class sets to True again.
#
# One would guess that a field of the configuration that is given by name is what the model has, or that it is refused. It matters
# here, since T5 1.1 and its kin (Flan, mT5) are untied: random weights of their configuration, to see what pretrained ones are
# worth, are a smaller model than the base, and whether an adapter in the output layer can be merged has to be
# asked of the tensors, not of the configuration.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy transformers==5.23.0

cat > try.py <<'PY'
import json

import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
asked = T5Config(**sizes, decoder_start_token_id=0, tie_word_embeddings=False)
model = T5ForConditionalGeneration(asked)
print("asked for False, the config says", model.config.tie_word_embeddings)
print("one tensor:", model.lm_head.weight is model.shared.weight, "- scaled:", model.config.scale_decoder_outputs)
assert model.config.tie_word_embeddings is True, "the field is kept now"
assert model.lm_head.weight is model.shared.weight, "the weights are two now"
assert model.config.scale_decoder_outputs is False

model.save_pretrained("untied")
weights = load_file("untied/model.safetensors")
assert "lm_head.weight" not in weights
head = torch.randn_like(weights["shared.weight"])
save_file(weights | {"lm_head.weight": head}, "untied/model.safetensors", metadata={"format": "pt"})
config = json.load(open("untied/config.json"))
json.dump(config | {"tie_word_embeddings": False}, open("untied/config.json", "w"))
loaded = T5ForConditionalGeneration.from_pretrained("untied")
print("two tensors in the file: one tensor:", loaded.lm_head.weight is loaded.shared.weight, "- the config says", loaded.config.tie_word_embeddings)
assert torch.equal(loaded.lm_head.weight, head), "the file's output layer is not kept"
assert loaded.config.tie_word_embeddings is True, "the field is kept now"
PY
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
venv/bin/python try.py
