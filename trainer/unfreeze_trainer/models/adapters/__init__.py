"""Adapters: added to a model, folded into it, written alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_api.adapters.bottleneck import BottleneckSpec
from unfreeze_api.spec.adapter import AdapterSpec

if TYPE_CHECKING:
    from torch import nn

    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.models.blocks import Block


def add_adapter(
    module: nn.Module,
    blocks: Sequence[Block],
    adapter: AdapterSpec,
    *,
    seed: int,
    base: str,
    reach_experts: bool = True,
    whole_heads: bool = True,
) -> LoadedModel:
    """Put an adapter into a model.

    Parameters
    ----------
    module
        The bare model; it is changed.
    blocks
        Its blocks; the last one is the head, which trains whole and is saved with the adapter.
    adapter
        With the member of its type.
    seed
        Seed of the new weights.
    base
        The base model's folder, for the export's configuration.
    reach_experts
        Whether all-linear means a mixture's experts too, and is refused where they are out of reach; runs of earlier versions
        pass over them.
    whole_heads
        Whether a head that has no parameters but its layers' stays the head; runs of earlier versions give it to the block below.

    Raises
    ------
    JobError
        InvalidAdapter: it does not fit the model.
    """
    if bottleneck := adapter.of(BottleneckSpec):
        from unfreeze_trainer.models.adapters.bottleneck import add_bottlenecks
        from unfreeze_trainer.models.adapters.stacked import require_reach
        from unfreeze_trainer.models.adapters.targets import ALL_LINEAR

        if reach_experts and bottleneck.target_modules is None:
            head, field = blocks[-1].parameters, "spec.adapter.bottleneck.targetModules"
            require_reach(module, head, [ALL_LINEAR], adapter.type, field)
        return add_bottlenecks(module, blocks, bottleneck, seed=seed)
    from unfreeze_trainer.models.adapters.peft import add_peft

    return add_peft(module, blocks, adapter, seed=seed, base=base, reach_experts=reach_experts, whole_heads=whole_heads)


def save_adapter(
    module: nn.Module, folder: Path, adapter: AdapterSpec, *, base: str, initial: Callable[[], LoadedModel]
) -> None:
    """Write an adapter, and the head with it, as it is loaded onto the untouched base.

    Parameters
    ----------
    module
        As add_adapter returned it, trained; it is not changed.
    folder
        Where to; it exists.
    adapter, base
        As add_adapter took them.
    initial
        Returns the same model as it was before training.
    """
    if bottleneck := adapter.of(BottleneckSpec):
        from unfreeze_trainer.models.adapters.bottleneck import save_bottlenecks

        save_bottlenecks(module, initial().blocks[-1].parameters, folder, bottleneck, base)
        return
    from unfreeze_trainer.models.adapters.peft import save_peft

    save_peft(module, folder, adapter, lambda: initial().module)
