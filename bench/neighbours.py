"""What a step on all processors takes beside processes that want one too: a build server, another pod, a browser.

    python -m bench.neighbours [ROUNDS]

Prints JSON: milliseconds of a step in as many threads as there are processors, beside 0 to as many busy processes as that, as the median of
the rounds, with the waits of PyTorch's OpenMP as the trainer has them (`short`), as they are by default (`default`, in its turns), and in one
thread. `head` is a linear layer on 32 cached vectors, `blocks` six blocks as MiniLM's on 32 texts of 16 tokens.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack

STEP = """
import sys, time, torch
torch.manual_seed(0)
head, inputs, encoder, steps = torch.nn.Linear(384, 6), torch.randn(32, 16, 384), torch.nn.Identity(), 400
if sys.argv[1] == "blocks":
    block = torch.nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True, dropout=0.0)
    encoder, steps = torch.nn.TransformerEncoder(block, 6, enable_nested_tensor=False), 8
else:
    inputs = inputs[:, :1]
labels = torch.randint(0, 6, (32,))
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], fused=True)
def step():
    torch.nn.functional.cross_entropy(head(encoder(inputs).mean(1)), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
step()
began = time.perf_counter()
for _ in range(steps):
    step()
print((time.perf_counter() - began) / steps * 1000)
"""
BUSY = "while True: pass"


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    processors = len(os.sched_getaffinity(0))
    asked = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    asked["OMP_NUM_THREADS"] = str(processors)
    ways = {"short": {"GOMP_SPINCOUNT": "1000"}, "default": {}, "one thread": {"OMP_NUM_THREADS": "1"}}
    found: dict[str, dict[str, float]] = {}
    for neighbours in range(processors + 1):
        with ExitStack() as stack:
            for _ in range(neighbours):
                busy = subprocess.Popen([sys.executable, "-c", BUSY])
                stack.callback(busy.wait)
                stack.callback(busy.kill)
            for work in ("head", "blocks"):
                taken: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(rounds):
                    for way, own in ways.items():
                        taken[way].append(
                            float(subprocess.check_output([sys.executable, "-c", STEP, work], env=asked | own))
                        )
                found[f"{work}, beside {neighbours}"] = {
                    way: round(statistics.median(values), 2) for way, values in taken.items()
                }
    print(json.dumps({"benchmark": "neighbours", "processors": processors, "milliseconds": found}, indent=1))


if __name__ == "__main__":
    main()
