#!/usr/bin/env bash
# transformers 5.23.0, torch 2.15.0: Whisper's encoder exempts its sinusoidal positions from training (requires_grad_(False) in its
# __init__), and so they are in a model that is built from a config. In one that from_pretrained has loaded they require a
# gradient, get one, and an optimizer moves them.
#
# One would guess that loading weights changes values and not what trains. It matters here, since what a phase trains is decided
# by parameter: what a class exempts is told by a skeleton without weights, and kept as a buffer.
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
from transformers import WhisperConfig, WhisperForAudioClassification

sizes = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "max_source_positions": 50}
built = WhisperForAudioClassification(WhisperConfig(**sizes))
built.save_pretrained("whisper")
loaded = WhisperForAudioClassification.from_pretrained("whisper").train()
loaded(torch.randn(2, 80, 100)).logits.sum().backward()
positions = loaded.encoder.embed_positions.weight
print("built: requires_grad", built.encoder.embed_positions.weight.requires_grad)
print("loaded: requires_grad", positions.requires_grad, "gradient", positions.grad is not None)
assert not built.encoder.embed_positions.weight.requires_grad
assert positions.requires_grad and positions.grad.abs().sum() > 0, "they stay exempt now"
PY
HF_HUB_OFFLINE=1 venv/bin/python try.py
