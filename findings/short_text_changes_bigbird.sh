#!/usr/bin/env bash
# transformers 5.23.0: a BigBird with block-sparse attention that meets one short text, even in eval mode and without gradients,
# turns to full attention and stays there, for long texts too: modules are replaced, config.attention_type still says
# block_sparse. The logits of a long text depend on whether a short one came before it.
#
# One would guess that a forward pass in eval mode leaves a model as it was, or that each call decides for itself. It matters
# here, since a look at a model before its training (a few samples forward and backward) must leave nothing behind: weights,
# buffers and random generators are not enough, attributes and submodules have to be put back as well.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.15.0

cat > try.py <<'PY'
import torch
from transformers import BigBirdConfig, BigBirdForSequenceClassification

torch.manual_seed(0)
shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
sparse = {"attention_type": "block_sparse", "block_size": 16, "num_random_blocks": 1, "initializer_range": 0.5}
model = BigBirdForSequenceClassification(BigBirdConfig(vocab_size=100, **shape, **sparse)).eval()
long, short = torch.randint(5, 100, (1, 512)), torch.randint(5, 100, (1, 16))
layer = model.bert.encoder.layer[0].attention
with torch.no_grad():
    before, again = model(long).logits, model(long).logits
    kind = type(layer.self).__name__
    model(short)
    after = model(long).logits
print("the same long text:", before.tolist(), "again:", again.tolist(), "after a short one:", after.tolist())
print(kind, "is now", type(layer.self).__name__, "and the config says", model.config.attention_type)
assert torch.equal(before, again)
assert (before - after).abs().max() > 0.01
assert model.bert.attention_type == "original_full" and model.config.attention_type == "block_sparse"
PY
HF_HUB_OFFLINE=1 venv/bin/python try.py
