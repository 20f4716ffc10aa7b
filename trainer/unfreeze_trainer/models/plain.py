"""Loads an export by the lines that people are shown, and prints its outputs as JSON; run as a script of its own.

It imports nothing of Unfreeze: what it can load, everybody can. Argument: a file as torch.save writes it, with the lines and
the samples.
"""

import json
import sys
from typing import Any

import torch


def plain_outputs(load: str, outputs: str, names: str, inputs: Any) -> tuple[torch.Tensor, list[str]]:
    """Return the outputs of some samples, (samples, outputs), and what each output stands for.

    Parameters
    ----------
    load
        Lines of Python that load the export.
    outputs, names
        Expressions for what is returned, after these lines; `inputs` are the samples.
    """
    found: dict[str, Any] = {"inputs": inputs}
    exec(load, found)  # noqa: S102 - they come with the export, from the process that has written it
    for value in found.values():
        if isinstance(value, torch.nn.Module):
            compute_in_float32(value)
    with torch.no_grad():
        return eval(outputs, found), list(eval(names, found))  # noqa: S307 - as above


def compute_in_float32(module: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit layers for CPUs that have AVX-512 with bfloat16.

    It does so at the first evaluation: then the layer computes in bfloat16, its factors are rounded for good, and a layer
    whose outputs are not a multiple of 32 fails.
    """
    part: Any
    for part in module.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False


def main(lines: str) -> None:
    """Load, compute, print."""
    outputs, names = plain_outputs(**torch.load(lines, weights_only=True))
    print(json.dumps({"outputs": outputs.tolist(), "names": names}))  # noqa: T201 - the result


if __name__ == "__main__":
    main(*sys.argv[1:])
