"""The freezer: which parameters of a module train in a phase, and in which optimizer groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unfreeze_trainer.models.blocks import Block, is_norm
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
        Empty without an adapter. With one, a block that a phase trains contributes these in place of its own; where the
        phase has an adapter_rate all of them train, and the block's own beside them. The head's own are among them.
    rate_factors
        What the learning rates of parameters are multiplied by, where it is not 1.
    locked
        Parameters that no phase trains.
    frozen_dropout
        Whether blocks below the lowest one that trains are in training mode too.
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[Block],
        adapter_parameters: Collection[str],
        rate_factors: Mapping[str, float] | None = None,
        *,
        locked: Collection[str] = (),
        frozen_dropout: bool = True,
    ) -> None:
        self._module = module
        self._block = {name: block.name for block in blocks for name in block.parameters}
        self._order = [block.name for block in blocks]
        self._dimensions = {name: parameter.ndim for name, parameter in module.named_parameters()}
        self._adapter, self._factors = frozenset(adapter_parameters), dict(rate_factors or {})
        self._frozen_dropout, self._at_rest = frozen_dropout, list[nn.Module]()
        self._locked = frozenset(locked)
        self._small = _biases_and_norms(module)
        self._undecayed = self._small | _without_decay(module)
        self.unused: frozenset[str] = frozenset()
        """Parameters that stay frozen in every phase, since they get no gradient."""
        if missing := self._dimensions.keys() ^ self._block.keys():
            raise ValueError(f"blocks and module differ in {sorted(missing)[:5]}")

    def trainable_names(self, phase: Phase) -> list[str]:
        """Return the parameters that the phase trains, in the order of named_parameters()."""
        return [name for name in self.chosen_names(phase) if name not in self.unused]

    def chosen_names(self, phase: Phase) -> list[str]:
        """Return the parameters that the phase is to train, those that get no gradient among them."""
        return [name for name in self._dimensions if self._trains(name, phase)]

    def _trains(self, name: str, phase: Phase) -> bool:
        block, head = self._block[name], self._order[-1]
        if name in self._locked:
            return False
        if name in self._adapter:
            return block in phase.trainable or phase.adapter_rate is not None
        if self._adapter and (phase.adapter_rate is None or block == head):
            return False
        return block in phase.trainable and (phase.part == "All" or block == head or name in self._small)

    def apply(self, phase: Phase) -> None:
        """Set requires_grad, drop gradients of what is frozen, and set the mode of training."""
        trainable = frozenset(self.trainable_names(phase))
        for name, parameter in self._module.named_parameters():
            parameter.requires_grad_(name in trainable)
            if name not in trainable:
                parameter.grad = None
        self._at_rest = [] if self._frozen_dropout else self._below(trainable)
        self.train_mode()

    def _below(self, trainable: AbstractSet[str]) -> list[nn.Module]:
        """Return the modules that have parameters of blocks below the lowest one that trains, and of no others."""
        lowest = min((self._order.index(self._block[name]) for name in trainable), default=0)
        place = {
            id(parameter): self._order.index(self._block[name]) for name, parameter in self._module.named_parameters()
        }
        highest = {
            part: max((place[id(own)] for own in part.parameters()), default=lowest) for part in self._module.modules()
        }
        return [part for part, block in highest.items() if block < lowest]

    def train_mode(self) -> None:
        """Put the module into training mode, except for BatchNorm whose parameters are frozen.

        Their running statistics belong to the frozen weights (Keras' and fastai's rule too): in training mode they
        would drift to the new data although nothing trains. Dropout is off in blocks below the lowest one that trains, unless
        it is to stay on there: their outputs are the same each time.
        """
        self._module.train()
        for part in self._at_rest:
            part.eval()
        named = self._module.named_parameters()
        anything_frozen = not all(parameter.requires_grad or name in self.unused for name, parameter in named)
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
        members: dict[tuple[int, bool, bool, float], list[str]] = {}
        for name in self.trainable_names(phase):
            # An adapter and the own weights beside it stay apart also where their rates are equal: the guard wants each
            # group to move.
            place = self._order.index(self._block[name]), not self._decays(name), name not in self._adapter
            members.setdefault((*place, self._rate(name, phase)), []).append(name)
        return [
            ParamGroup(self._order[block], not small, tuple(names), rate, 0.0 if small else weight_decay)
            for (block, small, _, rate), names in sorted(members.items())
        ]

    def _rate(self, name: str, phase: Phase) -> float:
        block = self._block[name]
        beside = phase.adapter_rate if name in self._adapter and block != self._order[-1] else None
        return (phase.learning_rates[block] if beside is None else beside) * self._factors.get(name, 1.0)

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
