"""How an export is loaded without Unfreeze, and the proof of it, in a fresh process."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfreeze_trainer import forks

TOLERANCE = 1e-3, 1e-4
"""Largest difference of an output, relative to the largest one and beside it: float32 sums in another order differ by far less,
a wrong or missing tensor by far more."""
_STEPS = 8
"""Of float32 that an output may be off by where a large offset has been added to it."""
LOAD_SECONDS = 1800
"""After which a reload counts as hung; a large model from a slow volume takes minutes."""


@dataclass(frozen=True)
class Example:
    """An input that people are shown in lines of Python."""

    value: str
    """An expression."""
    imports: str = ""
    """The lines that it needs at the top."""
    before: str = ""
    """Lines that make it, each with its end."""
    arguments: str = ""
    """Those of a tokenizer for it; empty where it is its only one."""
    batch: str = "inputs"
    """Arguments of a tokenizer for `inputs`, several samples as the modality gives them."""


@dataclass(frozen=True)
class Plain:
    """How an export is loaded without Unfreeze, in Python: people are shown these lines, and its verification runs them."""

    library: str
    """Whose export it is, for the Hub: transformers, timm or peft."""
    load: str
    """Lines that load it."""
    predict: str
    """Lines after these that print what it says of an example."""
    outputs: str
    """Expression, after `load`: the outputs for `inputs`, samples as the modality gives them; (samples, outputs)."""
    names: str = "labels"
    """Expression, after `load`: what each output stands for."""

    @property
    def usage(self) -> str:
        """What people are shown."""
        return f"{self.load}\n{self.predict}"


class ReloadError(RuntimeError):
    """A fresh process has not loaded an export; its last lines."""


def compare(
    plain: Plain,
    folder: Path,
    inputs: Any,
    *,
    expected: Tensor,
    names: Sequence[str],
    scale: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """Load an export in a fresh process and compare.

    Parameters
    ----------
    plain, folder
        How it is loaded, and where it lies.
    inputs
        Samples.
    expected
        Outputs for them of the model that was exported, (samples, outputs).
    names
        What each output stands for, which the export must say too.
    scale
        Factor and offset that the export has applied to each output.

    Raises
    ------
    RuntimeError
        It does not load, gives other outputs, or has other names for them.
    """
    try:
        outputs, named = reload(plain.load, plain.outputs, plain.names, inputs)
    except ReloadError as error:
        raise RuntimeError(f"the export {folder} cannot be loaded by plain {plain.library}: {error}") from error
    if outputs.shape != expected.shape:
        raise RuntimeError(
            f"the export {folder} gives outputs of shape {tuple(outputs.shape)}, not {tuple(expected.shape)}"
        )
    allowed = TOLERANCE[0] * expected.abs().max().item() + TOLERANCE[1]
    if scale:
        factor, offset = (torch.tensor(values, dtype=torch.float64) for values in scale)
        allowed += _STEPS * torch.finfo(torch.float32).eps * (outputs.abs() / factor).max().item()
        outputs = (outputs.double() - offset) / factor
    difference = (outputs - expected).abs().max().item()
    if not difference <= allowed:
        raise RuntimeError(
            f"the export {folder}, loaded by plain {plain.library}, gives other outputs: they differ by up to"
            f" {difference:.3g}, {allowed:.3g} would be rounding"
        )
    if list(named) != list(names):
        raise RuntimeError(f"the export {folder} names the labels {list(named)}, not {list(names)}")


def reload(load: str, outputs: str, names: str, inputs: Any) -> tuple[Tensor, Sequence[str]]:
    """Be `plain_outputs` of models/plain.py, in a fresh process.

    Raises
    ------
    ReloadError
        It does not load.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch, "lines.pt")
        torch.save({"load": load, "outputs": outputs, "names": names, "inputs": inputs}, lines)
        script = Path(__file__).with_name("plain.py")
        # No input: transformers asks there whether to trust a folder's code. The job's accelerators are busy and not needed.
        code, out, err = forks.run(
            [str(script), str(lines)], _environment(os.environ), name="unfreeze-verify", seconds=LOAD_SECONDS
        )
    if code:
        raise ReloadError(err.strip()[-2000:])
    found = json.loads(out.splitlines()[-1])
    return torch.tensor(found["outputs"]), found["names"]


def _environment(whole: Mapping[str, str]) -> dict[str, str]:
    """Return what a process needs that computes on a CPU: it reads what others have made, and so gets no secret."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {name: value for name, value in whole.items() if name in _ALLOWED or name.startswith("LC_")} | hidden


_ALLOWED = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD"}  # to find libraries
    | {"HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "TZ", "PYTHONUTF8", "PYTHONIOENCODING"}
    | {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED"}
)
