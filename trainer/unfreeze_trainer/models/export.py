"""The proof, in a fresh process, that the plain library loads an export."""

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

TOLERANCE = 1e-3, 1e-4
"""Largest difference of a logit, relative to the largest logit and beside it: float32 sums in another order differ by far less,
a wrong or missing tensor by far more."""
LOAD_SECONDS = 1800
"""After which a reload counts as hung; a large model from a slow volume takes minutes."""


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
    logits, named = reload(kind, str(folder), inputs, base)
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
    if "-" not in kind and list(named) != list(labels):
        raise RuntimeError(f"the export {folder} names the labels {list(named)}, not {list(labels)}")


def reload(kind: str, folder: str, inputs: Mapping[str, Any], base: str) -> tuple[Tensor, Sequence[str]]:
    """Be `plain_logits` of models/plain.py, in a fresh process.

    Raises
    ------
    RuntimeError
        It does not load.
    """
    with tempfile.TemporaryDirectory() as scratch:
        samples = Path(scratch, "samples.pt")
        torch.save(dict(inputs), samples)
        script = Path(__file__).with_name("plain.py")
        # -P: a script's own folder is not searched for modules. The job's accelerators are busy and not needed.
        done = subprocess.run(
            [sys.executable, "-P", str(script), kind, folder, str(samples), base],
            env=_environment(os.environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=LOAD_SECONDS,
        )
    if done.returncode:
        raise RuntimeError(f"the export {folder} cannot be loaded by plain {kind}: {done.stderr.strip()[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return torch.tensor(found["logits"]), found["labels"]


def _environment(whole: Mapping[str, str]) -> dict[str, str]:
    """Return what a process needs that computes on a CPU: it reads what others have made, and so gets no secret."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {name: value for name, value in whole.items() if name in _ALLOWED or name.startswith("LC_")} | hidden


_ALLOWED = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD"}  # to find libraries
    | {"HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "TZ", "PYTHONUTF8", "PYTHONIOENCODING"}
    | {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED"}
)
