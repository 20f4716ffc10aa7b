"""Which modules of a model an adapter goes into, chosen by names and structure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.tied import output_layer, tied_layers

ALL_LINEAR = "all-linear"


def find_targets(module: nn.Module, head: Collection[str], wanted: Sequence[str], field: str) -> list[str]:
    """Return the full names of the backbone's modules that are meant.

    Parameters
    ----------
    module
        The bare model.
    head
        Parameters of its head, which trains whole.
    wanted
        Names or ends of names of modules, or all-linear, which leaves out a decoder's output layer.
    field
        Of the manifest, for messages.

    Raises
    ------
    JobError
        InvalidAdapter: a name that matches no module that an adapter can go into, with those that exist; or a layer whose weights
        are another one's too.
    """
    possible = {name: part for name, part in module.named_modules() if _takes(part) and f"{name}.weight" not in head}
    outputs, tied = output_layer(module), tied_layers(module)
    linear = [
        name
        for name, part in possible.items()
        if not isinstance(part, nn.Conv2d | nn.Embedding) and part is not outputs
    ]
    found: dict[str, None] = {}
    for target in wanted:
        matches = [name for name in possible if name == target or name.endswith(f".{target}")]
        if target == ALL_LINEAR:
            matches = linear
        if not matches:
            names = sorted({name.rpartition(".")[2] for name in possible})
            raise JobError(
                "InvalidAdapter",
                f"{field}: {target!r} matches no module of the backbone that an adapter can go into; there are"
                f" {', '.join(names[:40]) or 'none'}",
            )
        if shared := [name for name in matches if any(possible[name] is part for part in tied)]:
            both = " and ".join(name for name, part in module.named_modules(remove_duplicate=False) if part in tied)
            raise JobError(
                "InvalidAdapter",
                f"{field}: {target!r} matches {shared[0]}, and {both} have the same weights: what is folded into one of them would"
                f" change the other, and the merged model give other logits than the trained one. Leave it out ({ALL_LINEAR} does), or"
                " train the weights themselves: remove spec.adapter",
            )
        found |= dict.fromkeys(matches)
    return list(found)


def require_foldable(module: nn.Module, targets: Collection[str], method: str, field: str) -> None:
    """Refuse convolutions beside which an adapter of PEFT's says something else than folded into their weights.

    PEFT takes each one for torch's own. Those that standardise their weights (BiT's, NFNet's) would do so to the update as well,
    and its factors pad with zeros, whatever the layer does. OFT turns the patches of the input and adds up where they overlap:
    in a convolution above 1 x 1 already the rotation by nothing, which it starts with, gives the model other outputs.

    Raises
    ------
    JobError
        InvalidAdapter: such a convolution is among the targets.
    """
    for name in targets:
        part = module.get_submodule(name)
        if not isinstance(part, nn.Conv2d):
            continue
        why = None
        if type(part) is not nn.Conv2d:
            why = f"is a {type(part).__name__}, which is not the plain convolution with its weights"
        elif set(part.kernel_size) == {1}:
            continue
        elif part.padding_mode != "zeros":
            why = f"pads with {part.padding_mode} values, and adapters pad with zeros"
        elif method == "OFT":
            size = " x ".join(map(str, part.kernel_size))
            why = f"is a convolution of {size}, of which PEFT's OFT adds up patches that overlap"
        if why:
            raise JobError(
                "InvalidAdapter",
                f"{field}: {name} {why}: the merged model would give other logits than the trained one. Name other modules, or"
                " set spec.adapter.type to Bottleneck",
            )


def _takes(part: nn.Module) -> bool:
    if isinstance(part, nn.Conv2d):
        return part.groups == 1  # depthwise filters have no two factors to split into
    if isinstance(part, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False  # torch's attention takes the weights of its output layer and never calls it
    if "Router" in type(part).__name__:
        return False  # it returns more than a layer's product
    return isinstance(part, nn.Linear | nn.Embedding) or is_conv1d(part)


def is_conv1d(part: nn.Module) -> bool:
    """Tell whether a module is GPT-2's linear layer, whose weights are (inputs, outputs)."""
    return type(part).__name__ == "Conv1D"


def narrows(part: nn.Module) -> bool:
    """Tell whether a linear layer has more inputs than outputs, like the second one of a feed-forward network."""
    if is_conv1d(part):
        inputs, outputs = next(part.parameters()).shape
        return inputs > outputs
    return isinstance(part, nn.Linear) and part.in_features > part.out_features


def whole_modules(module: nn.Module, head: Collection[str]) -> list[str]:
    """Return the topmost modules whose parameters are all of the head."""
    found: list[str] = []
    for path, part in module.named_modules():
        names = [f"{path}.{name}" for name, _ in part.named_parameters()]
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if path and names and not inside and all(name in head for name in names):
            found.append(path)
    return found
