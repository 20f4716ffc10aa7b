#!/usr/bin/env bash
# transformers 5.23.0: MobileNetV1, MobileNetV2 and EfficientNet make their BatchNorms with TensorFlow's decay as torch's momentum: 0.9997,
# 0.997 and 0.99. torch's is the share of the new batch: after one step of training the running mean and variance of each channel are
# those of that batch, all but 0.03 to 1 %. What a model says in an evaluation is then told by the last batch that it saw.
#
# One would guess that a model's config says what is meant (EfficientNet's batch_norm_momentum is documented as "the momentum used by
# the batch normalization layers") and that fine-tuning a pretrained MobileNet forgets the pretrained statistics slowly, as torchvision's does (0.1). It
# matters here, since an epoch's last batch may be of two pictures. Unfreeze trains them with torch's 0.1.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 transformers==5.23.0

cat > try.py <<'PY'
import torch
from transformers import AutoConfig, AutoModelForImageClassification

small = {"width_coefficient": 0.5, "depth_coefficient": 0.3, "hidden_dim": 640}
for kind, sizes in {"mobilenet_v1": {}, "mobilenet_v2": {}, "efficientnet": small}.items():
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model(kind, **sizes)).train()
    norm = next(part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d))
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3))))
    with torch.no_grad():
        for shift in [0.0] * 5 + [5.0]:  # five batches alike, and one that is not
            model(torch.randn(4, 3, 32, 32) + shift)
    usual, last, now = torch.stack(seen[:-1]).mean(0), seen[-1], norm.running_mean
    share = ((now - usual) @ (last - usual) / (last - usual).square().sum()).item()
    print(f"{kind}: momentum {norm.momentum}; after 5 batches and another one {share:.2%} of the running mean is the last one's")
    assert norm.momentum > 0.9 and share > 0.9, "the statistics are of more than a batch now"
PY
HF_HUB_OFFLINE=1 venv/bin/python try.py
