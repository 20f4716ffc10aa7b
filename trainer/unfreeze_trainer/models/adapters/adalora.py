"""AdaLoRA: what its training does beside the gradients, by PEFT's own allocator of ranks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.hook import StepHook

_AVERAGES = ("exp_avg_ipt", "exp_avg_unc")
"""PEFT's names of the running means: of a weight's importance, and of its uncertainty."""
_KEPT = "rank_pattern"
_ADAPTER = "default"


class RankAllocation(StepHook):
    """Holds singular vectors near orthogonal ones, and takes the least important singular values away.

    Parameters
    ----------
    wrapped
        PEFT's model with an AdaLoRA in it.

    Notes
    -----
    Importance is measured as PEFT's own loop does it: the weight after the step times its gradient as the optimizer saw
    it, which is the mean over all workers, clipped. So every worker allocates alike. Steps count from 1: where tfinal is
    0, the last allocation comes with the last step of the phase.
    """

    def __init__(self, wrapped: Any) -> None:
        self._tuner = wrapped.base_model
        self._allocator = self._tuner.rankallocator
        self._config = self._allocator.peft_config
        self._prefix = "base_model.model."
        self._parameters = {
            name: parameter for name, parameter in self._tuner.model.named_parameters() if ".lora_" in name
        }
        self._first = next(iter(self._parameters.values()))
        self._trains = False

    @override
    def begin(self, steps: int) -> None:
        self._trains = self._first.requires_grad
        if self._trains:
            self._allocator.set_total_step(steps)

    @override
    def penalty(self) -> Tensor | float:
        if not self._trains or not self._config.orth_reg_weight:
            return 0.0
        named = self._parameters.items()
        with torch.autocast(self._first.device.type, enabled=False):
            distances = [_from_orthonormal(tensor) for name, tensor in named if ".lora_A." in name]
            distances += [_from_orthonormal(tensor.T) for name, tensor in named if ".lora_B." in name]
            return self._config.orth_reg_weight * torch.stack(distances).mean()

    @override
    def after_update(self, step: int, *, skipped: Callable[[], bool]) -> None:
        last = self._config.total_step - self._config.tfinal
        if not self._trains or (step < last and skipped()):
            return
        if step >= last and not self._allocator.exp_avg_ipt and not self._config.rank_pattern:
            raise JobError(
                "NonFiniteGradients",
                f"no step before the last allocation of ranks, at step {step} of its phase, had finite gradients: lower"
                " spec.strategy.learningRate, or spec.adapter.adaLora.tfinal",
            )
        self._tuner.update_and_allocate(step)

    @override
    def at_rest(self) -> Collection[str]:
        """Return the parameters of modules that have no rank left."""
        gone = {
            name.replace("lora_E", "%s") for name, kept in (self._config.rank_pattern or {}).items() if not any(kept)
        }
        return {self._prefix + name % matrix for name in gone for matrix in ("lora_A", "lora_B", "lora_E")}

    @override
    def state(self) -> dict[str, dict[str, Tensor]]:
        found: dict[str, dict[str, Tensor]] = {}
        for key in _AVERAGES:
            for name, tensor in getattr(self._allocator, key).items():
                found.setdefault(self._prefix + name, {})[key] = tensor.to("cpu", copy=True)
        for name, kept in (self._config.rank_pattern or {}).items():
            found.setdefault(self._prefix + name, {})[_KEPT] = torch.tensor(kept)
        return found

    @override
    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        allocator, pattern = self._allocator, {}
        allocator.reset_ipt()  # what a later step has left, where a run goes back
        for name, parameter in self._parameters.items():
            entry = state.get(self._prefix + name, {})
            if _KEPT in entry:
                pattern[name] = entry[_KEPT].tolist()
            if all(key in entry for key in _AVERAGES):
                allocator.ipt[name] = torch.zeros_like(parameter)  # written before it is read
                for key in _AVERAGES:
                    getattr(allocator, key)[name] = entry[key].to(parameter.device, copy=True)
        self._config.rank_pattern = pattern or None
        own = (*_AVERAGES, _KEPT)
        left = {name: {key: item for key, item in entry.items() if key not in own} for name, entry in state.items()}
        return {name: entry for name, entry in left.items() if entry}


def _from_orthonormal(vectors: Tensor) -> Tensor:
    """Return how far the rows of a matrix are from orthonormal ones, as a Frobenius norm."""
    return torch.linalg.norm(vectors @ vectors.T - torch.eye(len(vectors), device=vectors.device))


def ranks_kept(wrapped: Any) -> dict[str, list[bool]]:
    """Return which singular values of each module are not 0, by PEFT's names: what a rank_pattern says.

    The others add nothing, whether they were taken away for good or just now.
    """
    named = wrapped.base_model.model.named_parameters()
    return {name: (values != 0).flatten().tolist() for name, values in named if f".lora_E.{_ADAPTER}" in name}
