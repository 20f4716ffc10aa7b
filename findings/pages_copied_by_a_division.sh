#!/usr/bin/env bash
# deepspeed 0.19.8, safetensors 0.8.0, torch 2.15.0: deepspeed.zero.Init(module=...) divides weights that each rank has mapped from one file. Before
# it divides a parameter it has rank 0 send it, and what arrives is written over the other ranks' pages of the file: each becomes a copy
# in their own memory, which stays as long as any tensor of that file does. Rank 0 has none; rank 1 ends with the whole file as its own.
#
# One would guess, and the guess here was, that ranks which have read the same file take their shares out of it, and that its pages stay the
# page cache's, one for all. It matters here, since a model of 1.1 billion parameters took 1.48 copies of its weights to be divided over
# two workers of a machine, where its shares are one: the engine has the sending left out.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check setuptools ninja torch==2.15.0 numpy safetensors==0.8.0
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation deepspeed==0.19.8

cat > try.py <<'PY'
import os
import sys

import deepspeed
import torch
from safetensors.torch import load_file, save_file

FILE, COUNT, MIB = "weights.safetensors", 8, 2**20


def copied():
    """Return the MiB of this process's pages of the file that have become its own."""
    found, inside = 0, False
    for line in open("/proc/self/smaps"):
        if "-" in line.split(" ", 1)[0]:
            inside = line.rstrip().endswith(FILE)
        elif inside and line.startswith("Anonymous:"):
            found += int(line.split()[1]) * 1024
    return found / MIB


if "write" in sys.argv:
    save_file({f"weights.{one}": torch.ones(1024, 4096, dtype=torch.bfloat16) for one in range(COUNT)}, FILE)
    raise SystemExit
deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
deepspeed.init_distributed("gloo")
module = torch.nn.Module()
module.weights = torch.nn.ParameterList(torch.empty(1024, 4096, dtype=torch.bfloat16, device="meta") for _ in range(COUNT))
tensors = load_file(FILE)
module.load_state_dict(tensors, assign=True)
module.requires_grad_(False)
before = copied()
deepspeed.zero.Init(module=module, config_dict_or_path={"train_batch_size": 2, "zero_optimization": {"stage": 3}}, dtype=torch.float32)
size, mine, rank = os.path.getsize(FILE) / MIB, copied(), int(os.environ["RANK"])
print(f"rank {rank}: {before:.0f} of the file's {size:.0f} MiB are its own before, {mine:.0f} after", flush=True)
assert before == 0
assert (mine == 0) if rank == 0 else (mine > 0.9 * size), "another division than before"
PY
export DS_ACCELERATOR=cpu OMP_NUM_THREADS=1 WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29675
venv/bin/python try.py write
RANK=1 LOCAL_RANK=1 venv/bin/python try.py &
RANK=0 LOCAL_RANK=0 venv/bin/python try.py
wait $!
