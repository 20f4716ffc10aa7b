#!/usr/bin/env bash
# transformers 5.23.0, torch 2.15.0: a T5 encoder that was saved alone does not come back as one. T5EncoderModel.save_pretrained
# writes a config.json with is_encoder_decoder false and architectures [T5EncoderModel]; AutoModel takes neither into account and
# builds the whole T5Model, whose decoder is drawn at random; called with input_ids it raises a ValueError about decoder inputs.
# AutoModelForTextEncoding gives the encoder, for this folder and for that of a whole T5.
#
# One would guess that AutoModel follows the config that it reads: an encoder, as was saved. It matters here, since what pools
# the tokens of a sentence encoder has to load its body again from an export; is_encoder_decoder cannot be what decides which
# class to ask.
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
from transformers import AutoModel, AutoModelForTextEncoding, T5Config, T5EncoderModel

sizes = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
encoder = T5EncoderModel(T5Config(**sizes, pad_token_id=0, decoder_start_token_id=0)).eval()
encoder.save_pretrained("encoder")
written = json.load(open("encoder/config.json"))
print("written:", {name: written[name] for name in ("architectures", "is_encoder_decoder")})
assert written["is_encoder_decoder"] is False and written["architectures"] == ["T5EncoderModel"]

tokens = torch.arange(5, 13)[None]
whole = AutoModel.from_pretrained("encoder").eval()
print("AutoModel:", type(whole).__name__)
assert type(whole).__name__ == "T5Model", "it gives the encoder now"
assert any(name.startswith("decoder.") for name, _ in whole.named_parameters())
try:
    whole(input_ids=tokens)
except ValueError as error:
    print("called with input_ids:", error)
else:
    raise SystemExit("it takes input_ids alone now")

again = AutoModelForTextEncoding.from_pretrained("encoder").eval()
print("AutoModelForTextEncoding:", type(again).__name__)
assert torch.equal(again(input_ids=tokens).last_hidden_state, encoder(input_ids=tokens).last_hidden_state)
PY
HF_HUB_OFFLINE=1 venv/bin/python try.py
