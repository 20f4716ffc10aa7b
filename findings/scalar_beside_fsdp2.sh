#!/usr/bin/env bash
# torch 2.15.0, transformers 5.23.0: FSDP2's fully_shard refuses a model with a parameter without dimensions, as CLIP's and
# SigLIP's logit_scale, also where it is frozen and nothing of it would have to be divided. Left out by ignored_params, as one
# would do next, such a parameter trains on each rank for itself: its gradients are not averaged, so the ranks' models drift
# apart without an error or a warning.
#
# One would guess that a frozen scalar is passed over, and that an ignored parameter is kept equal as DDP keeps it. It matters
# here, since a gang whose models differ exports the first rank's: the trainer refuses scalars under FSDP and ZeRO, and compares
# checksums of the ranks.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.15.0

cat > refused.py <<'PY'
import os

import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from transformers import CLIPConfig, CLIPModel

os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29671"}
dist.init_process_group("gloo")
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
vision = {**small, "image_size": 32, "patch_size": 16}
model = CLIPModel(CLIPConfig(text_config={**small, "vocab_size": 99}, vision_config=vision, projection_dim=16))
model.requires_grad_(False)
try:
    fully_shard(model)
except ValueError as error:
    print("all frozen, and refused:", error)
else:
    raise SystemExit("it is taken now")
PY
cat > apart.py <<'PY'
import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import fully_shard


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.layer(x) * self.scale.exp()


def work(rank):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29672"}
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    net = Net()
    fully_shard(net, ignored_params={net.scale})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        net(torch.full((3, 4), float(rank + 1))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    scales = [torch.zeros(()) for _ in range(2)]
    dist.all_gather(scales, net.scale.detach())
    if rank == 0:
        print("the scale after three steps, by rank:", [round(scale.item(), 4) for scale in scales])
        assert abs(scales[0] - scales[1]) > 0.01, "the ranks agree now"
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # without the libraries' own clean-up


if __name__ == "__main__":
    mp.spawn(work, nprocs=2)
PY
HF_HUB_OFFLINE=1 venv/bin/python refused.py
venv/bin/python apart.py
