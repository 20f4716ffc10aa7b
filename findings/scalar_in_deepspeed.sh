#!/usr/bin/env bash
# deepspeed 0.19.8, torch 2.15.0: no model with a parameter without dimensions can be given to deepspeed.initialize, whatever
# the ZeRO stage, trained or frozen: a RuntimeError about "self.dim()" comes out of the first broadcast of the weights, which
# looks at each tensor as bytes. CLIP's and SigLIP's logit_scale are such parameters.
#
# One would guess that stage 0 at least, which divides nothing, takes what DDP takes, or that an error names the parameter. It
# matters here, since the models that bridge vision and language have such scales: the trainer names the parameter and the
# engine to choose before anything is started.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check setuptools torch==2.15.0 numpy
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation deepspeed==0.19.8

cat > try.py <<'PY'
import os

import deepspeed
import torch

os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29673"}
deepspeed.init_distributed("gloo")


class Net(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.scale = torch.nn.Parameter(torch.ones(shape), requires_grad=False)


def start(stage, shape):
    net = Net(shape)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    deepspeed.initialize(model=net, optimizer=torch.optim.SGD(net.layer.parameters(), lr=0.1), config=config)


for stage in (0, 1, 2, 3):
    start(stage, (1,))
    try:
        start(stage, ())
    except RuntimeError as error:
        print(f"stage {stage}: a frozen scale of shape (1,) is taken, one of shape () is not: {error}")
        assert "dim()" in str(error)
    else:
        raise SystemExit(f"stage {stage} takes it now")
PY
DS_ACCELERATOR=cpu venv/bin/python try.py
