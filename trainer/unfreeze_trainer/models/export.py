"""What exports have in common: the model card, and the proof in a fresh process that the plain library loads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfreeze_api.resolve import ResolvedJob

TOLERANCE = 1e-3, 1e-4
"""Largest difference of a logit, relative to the largest logit and beside it: float32 sums in another order differ by far less,
a wrong or missing tensor by far more."""
LOAD_SECONDS = 1800
"""After which a reload counts as hung; a large model from a slow volume takes minutes."""


def write_card(
    folder: Path, job: ResolvedJob, pins: Mapping[str, Any], usage: str, metrics: Mapping[str, float] | None
) -> None:
    """Write README.md, the model card: what the model comes from, how it was trained, how to load it."""
    adapter = f"\n- adapter: {job.adapter.to_json()}" if job.adapter else ""
    weights = "\n".join(f"  - `{name}` {digest}" for name, digest in pins["base"]["files"].items())
    data = "\n".join(
        f"- {name}: {pin['rows']} samples of `{pin['source']}`, SHA-256 {pin['sha256']}"
        for name, pin in pins["data"].items()
    )
    table = "\n".join(f"| {name} | {value:.4f} |" for name, value in (metrics or {}).items())
    results = f"\n## Results\n| metric | value |\n|---|---|\n{table}\n" if metrics else ""
    library = "peft" if (folder / "adapter_config.json").exists() else None
    library = library or ("transformers" if job.task.type == "TextClassification" else "timm")
    text = f"""---
library_name: {library}
tags: [unfreeze]
---
# {job.name}

{job.task.type}, trained with Unfreeze.

```python
{usage}
```
{results}
## Training
- base: `{job.model.source}`, {job.model.initialization.lower()} weights
{weights}
- strategy: {job.strategy.type}, learning rates {job.strategy.learning_rate.to_json()}{adapter}
- {job.training.epochs:g} epochs in batches of {job.training.batch_size}, {job.training.optimizer}, seed {job.training.seed}

## Data
{data}
"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def compare(
    kind: str, folder: Path, base: str, inputs: Mapping[str, Any], *, expected: Tensor, labels: Sequence[str]
) -> None:
    """Load an export in a fresh process and compare.

    Parameters
    ----------
    kind, folder, base, inputs
        As models/plain.py takes them.
    expected
        Logits of the model that was exported, (samples, classes).
    labels
        That the export must name, in the order of class ids; an adapter names none.

    Raises
    ------
    RuntimeError
        It does not load, gives other logits, or has other labels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        samples = Path(scratch, "samples.pt")
        torch.save(dict(inputs), samples)
        script = Path(__file__).with_name("plain.py")
        # -P: a script's own folder is not searched for modules. The job's accelerators are busy and not needed.
        hidden = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [sys.executable, "-P", str(script), kind, str(folder), str(samples), base],
            env=os.environ | hidden,
            capture_output=True,
            text=True,
            check=False,
            timeout=LOAD_SECONDS,
        )
    if done.returncode:
        raise RuntimeError(f"the export {folder} cannot be loaded by plain {kind}: {done.stderr.strip()[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    logits = torch.tensor(found["logits"])
    if logits.shape != expected.shape:
        raise RuntimeError(
            f"the export {folder} gives logits of shape {tuple(logits.shape)}, not {tuple(expected.shape)}"
        )
    difference = (logits - expected).abs().max().item()
    allowed = TOLERANCE[0] * expected.abs().max().item() + TOLERANCE[1]
    if not difference <= allowed:
        raise RuntimeError(
            f"the export {folder}, loaded by plain {kind}, gives other logits: they differ by up to {difference:.3g},"
            f" {allowed:.3g} would be rounding"
        )
    if not kind.startswith("peft") and list(found["labels"]) != list(labels):
        raise RuntimeError(f"the export {folder} names the labels {found['labels']}, not {list(labels)}")
