"""What a step of each strategy costs, against a hand-written loop and transformers.Trainer (with PEFT) on the same work.

    python -m bench.strategies

Prints JSON. `of_full` is a strategy's step in parts of full fine-tuning's; `expected` is that from the operations alone: a
forward pass is one part, gradients of activations another, gradients of weights a third (Kaplan et al. 2020, arXiv
2001.08361, section 2.1). Feature extraction needs the first, LoRA the first two. The model is a BERT of 4 layers, 256 wide.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.support.by_hand import by_hand
from bench.support.turns import Texts, compare, make_job, ours, transformers_trainer

FULL = "FullFineTuning"
STRATEGIES: dict[str, tuple[dict[str, Any], float]] = {
    FULL: ({"strategy": {"type": "FullFineTuning"}}, 1.0),
    "LoRA": ({"strategy": {"type": "FullFineTuning"}, "adapter": {"type": "LoRA", "lora": {"loraDropout": 0}}}, 2 / 3),
    "FeatureExtraction": ({"strategy": {"type": "FeatureExtraction"}}, 1 / 3),
}


def main() -> None:
    """Measure and print."""
    results: dict[str, Any] = {"benchmark": "strategies"}
    with tempfile.TemporaryDirectory() as folder:
        tasks = {
            name: Texts(make_job(f"{folder}/{name}", **spec), layers=4, width=256)
            for name, (spec, _) in STRATEGIES.items()
        }
        beside = compare({name: ours(task) for name, task in tasks.items()}, turns=24, steps=3)
        for name, task in tasks.items():
            contenders = {"loop": ours(task), "by hand": by_hand(task), "Trainer": transformers_trainer(task)}
            results[name] = compare(contenders, turns=24, steps=3)
            if name != FULL:
                results[name]["of_full"] = round(1 / beside[f"{FULL}/{name}"], 3)
                results[name]["expected"] = round(STRATEGIES[name][1], 3)
    print(json.dumps(results, indent=1), flush=True)
    os._exit(0)  # the loops' threads are held in the middle of a step


if __name__ == "__main__":
    main()
