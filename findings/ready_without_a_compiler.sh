#!/usr/bin/env bash
# deepspeed 0.19.8, torch 2.15.0: on a CPU under Linux deepspeed.init_distributed("gloo") compiles DeepSpeed's own collectives, for more
# than a minute the first time, and fails where there is no compiler. It looks in deepspeed.ops.__compatible_ops__ whether they
# can be built, and there every operation but one is True without a look for a compiler; so is deepspeed_ccl_comm, which
# cannot be built without oneCCL. The one that is looked at, async_io, has nothing to do with it, and runs a compiler for that look.
#
# One would guess that what is called compatible can be built, or that gloo's collectives serve where it cannot. (The first
# guess here was another one: that the table runs a compiler for each operation. It runs it twice, both times for async_io.) It
# matters here, since images of trainers have no compiler: the engine writes the table down itself before it joins the group.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check setuptools ninja torch==2.15.0 numpy
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation deepspeed==0.19.8

cat > try.py <<'PY'
import os
import sys

looked = []
sys.addaudithook(lambda event, of: looked.append(of[0]) if event == "subprocess.Popen" else None)

import deepspeed

os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29674"}
if "told" in sys.argv:
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed("gloo")
    print("with an empty table it starts without a compiler")
    raise SystemExit
before = len(looked)
able = deepspeed.ops.__compatible_ops__
print("called compatible:", [name for name, yes in able.items() if yes])
print("programs that were run for that:", looked[before:])
if "looked" in sys.argv:
    assert looked[before:], "no compiler is run any more"
    raise SystemExit
assert able["deepspeed_shm_comm"] and able["deepspeed_ccl_comm"], "a compiler is looked for now"
try:
    deepspeed.init_distributed("gloo")
except Exception as error:
    print("init_distributed:", f"{type(error).__name__}: {error}".splitlines()[0])
else:
    raise SystemExit("it starts without a compiler now")
PY
export DS_ACCELERATOR=cpu TORCH_EXTENSIONS_DIR="$folder/extensions"
mkdir bin
for program in bash env ls uname; do ln -s "$(command -v "$program")" bin; done
venv/bin/python try.py looked
PATH="$folder/venv/bin:$folder/bin" venv/bin/python try.py
PATH="$folder/venv/bin:$folder/bin" venv/bin/python try.py told
