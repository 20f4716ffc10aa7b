#!/usr/bin/env bash
# transformers 5.23.0, torch 2.15.0: with an attention mask, and with feat_extract_norm "layer", for which a mask is what its documents ask
# for, wav2vec2-conformer and data2vec-audio say something else of a clip that is padded than of the clip alone: their
# convolutions over positions run over the padding too, after a norm or a bias has made it other than 0. wav2vec2, HuBERT and
# WavLM do not, up to rounding.
#
# One would guess that a mask of padding keeps padding out. It matters here, since outputs must not depend on a clip's
# neighbours in its batch: what these convolutions read is cleared.
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
from transformers import AutoConfig, AutoModelForAudioClassification

sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
sizes |= {"conv_dim": (16, 16, 16), "conv_stride": (5, 4, 2), "conv_kernel": (10, 8, 4), "feat_extract_norm": "layer"}
sizes |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "do_stable_layer_norm": True}
clip = torch.randn(1, 3200, generator=torch.Generator().manual_seed(0))
padded, mask = torch.cat([clip, torch.zeros(1, 3000)], 1), torch.zeros(1, 6200, dtype=torch.long)
mask[:, :3200] = 1
apart = {}
for kind in ("wav2vec2", "hubert", "wavlm", "wav2vec2-conformer", "data2vec-audio"):
    torch.manual_seed(0)
    model = AutoModelForAudioClassification.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    with torch.no_grad():
        alone, beside = model(clip).logits, model(padded, attention_mask=mask).logits
    apart[kind] = ((alone - beside).abs().max() / alone.abs().max()).item()
    print(f"{kind}: apart by {apart[kind]:.1e} of the largest output")
assert all(apart[kind] < 1e-5 for kind in ("wav2vec2", "hubert", "wavlm"))
assert all(apart[kind] > 1e-3 for kind in ("wav2vec2-conformer", "data2vec-audio")), "padding is kept out now"
PY
HF_HUB_OFFLINE=1 venv/bin/python try.py
