"""The freezer: which parameters of a module train in a phase, and in which optimizer groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unfreeze_trainer.phases.blocks import Block, is_norm
from unfreeze_trainer.phases.compile import Phase


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share learning rate and weight decay."""

    block: str
    """The block that they are in."""
    decay: bool
    """Whether they are weights, which decay; biases and norms do not."""
    names: tuple[str, ...]
    """As in named_parameters(), in its order; never empty."""
    lr: float
    """Peak learning rate."""
    weight_decay: float
    """0 where `decay` is false."""


class Freezer:
    """Applies phases to one module.

    Parameters
    ----------
    module
        The bare module, not an engine's wrapper, before any engine takes it over: that may put shares in the place of
        its parameters, which keep their names.
    blocks
        Every parameter of the module in exactly one of them.
    adapter_parameters
        Empty without an adapter. With one, only these train: a block that a phase trains contributes its adapter's
        parameters (the head's own are among them).
    """

    def __init__(self, module: nn.Module, blocks: Sequence[Block], adapter_parameters: Collection[str]) -> None:
        self._module = module
        self._block = {name: block.name for block in blocks for name in block.parameters}
        self._order = [block.name for block in blocks]
        self._dimensions = {name: parameter.ndim for name, parameter in module.named_parameters()}
        self._adapter = frozenset(adapter_parameters)
        self._small = _biases_and_norms(module)
        self._undecayed = self._small | _without_decay(module)
        if missing := self._dimensions.keys() ^ self._block.keys():
            raise ValueError(f"blocks and module differ in {sorted(missing)[:5]}")

    def trainable_names(self, phase: Phase) -> list[str]:
        """Return the parameters that the phase trains, in the order of named_parameters()."""
        blocks = frozenset(phase.trainable)
        whole = {self._order[-1]} if phase.part == "BiasesAndNorms" else blocks
        return [
            name
            for name in self._dimensions
            if (self._block[name] in whole or (self._block[name] in blocks and name in self._small))
            and (not self._adapter or name in self._adapter)
        ]

    def apply(self, phase: Phase) -> None:
        """Set requires_grad, drop gradients of what is frozen, and set the mode of training."""
        trainable = frozenset(self.trainable_names(phase))
        for name, parameter in self._module.named_parameters():
            parameter.requires_grad_(name in trainable)
            if name not in trainable:
                parameter.grad = None
        self.train_mode()

    def train_mode(self) -> None:
        """Put the module into training mode, except for BatchNorm whose parameters are frozen.

        Their running statistics belong to the frozen weights (Keras' and fastai's rule too): in training mode they
        would drift to the new data although nothing trains. Dropout stays on everywhere.
        """
        self._module.train()
        anything_frozen = not all(parameter.requires_grad for parameter in self._module.parameters())
        for module in self._module.modules():
            if isinstance(module, _BatchNorm):
                own = list(module.parameters(recurse=False))
                if not all(parameter.requires_grad for parameter in own) or (not own and anything_frozen):
                    module.eval()

    def groups(self, phase: Phase, weight_decay: float) -> list[ParamGroup]:
        """Return the optimizer's groups, from input to output: weights and the rest of each trainable block.

        Parameters
        ----------
        phase
            Its learning rates are the groups' peak rates.
        weight_decay
            Of weights. Biases, norms, other parameters of one dimension, and what a timm model names in
            no_weight_decay (position embeddings, class token) have none; token embeddings have, as in transformers'
            Trainer.
        """
        names = self.trainable_names(phase)
        groups = []
        for block in (name for name in self._order if name in phase.learning_rates):
            for decay in (True, False):
                members = tuple(name for name in names if self._block[name] == block and self._decays(name) == decay)
                if members:
                    rate = phase.learning_rates[block]
                    groups.append(ParamGroup(block, decay, members, rate, weight_decay if decay else 0.0))
        return groups

    def _decays(self, name: str) -> bool:
        return self._dimensions[name] > 1 and name not in self._undecayed


def _biases_and_norms(module: nn.Module) -> frozenset[str]:
    """Return the biases by name (bias, q_bias, in_proj_bias) and whatever a normalisation module has, of any shape."""
    found = {name for name, _ in module.named_parameters() if "bias" in name.rpartition(".")[2]}
    for path, part in module.named_modules():
        if is_norm(part):
            found |= {name for name, _ in part.named_parameters(prefix=path)}
    return frozenset(found)


def _without_decay(module: nn.Module) -> frozenset[str]:
    """Return what the library itself says should not decay; names within PEFT's wrapper end with it."""
    listed = getattr(module, "no_weight_decay", None)
    own = tuple(listed()) if callable(listed) else ()
    return frozenset(
        name for name, _ in module.named_parameters() if name in own or name.endswith(tuple(f".{end}" for end in own))
    )
