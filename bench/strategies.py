"""What a step of each strategy costs, against a hand-written loop and transformers.Trainer (with PEFT) on the same work.

    python bench/strategies.py

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

from _by_hand import by_hand
from _turns import Texts, compare, make_job, ours, transformers_trainer

STRATEGIES: dict[str, tuple[dict[str, Any], float]] = {
    "FullFineTuning": ({"strategy": {"type": "FullFineTuning"}}, 1.0),
    "LoRA": ({"strategy": {"type": "FullFineTuning"}, "adapter": {"type": "LoRA", "lora": {"loraDropout": 0}}}, 2 / 3),
    "FeatureExtraction": ({"strategy": {"type": "FeatureExtraction"}}, 1 / 3),
}


def main() -> None:
    """Measure and print."""
    results: dict[str, object] = {"benchmark": "strategies"}
    full = 0.0
    for name, (spec, expected) in STRATEGIES.items():
        with tempfile.TemporaryDirectory() as folder:
            task = Texts(make_job(folder, **spec), layers=4, width=256)
            contenders = {"loop": ours(task), "by hand": by_hand(task), "Trainer": transformers_trainer(task)}
            result = compare(contenders, turns=24, steps=3)
        full = full or result["ms_per_step"]["loop"]
        result |= {"of_full": round(result["ms_per_step"]["loop"] / full, 3), "expected": round(expected, 3)}
        results[name] = result
    print(json.dumps(results, indent=1), flush=True)
    os._exit(0)  # the loops' threads are held in the middle of a step


if __name__ == "__main__":
    main()
