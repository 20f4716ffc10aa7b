"""A bridge: encoders that stand side by side, each with a head on it; their outputs lie in one space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unfreeze_trainer.models.blocks import EMBEDDINGS, HEAD, LAYER, Block, find_blocks
from unfreeze_trainer.models.bridge_layers import Named, projection
from unfreeze_trainer.models.remembering import Remembering

MAX_LOGIT_SCALE = math.log(100)
"""Where the factor of cosines stays, as CLIP's does (Radford et al. 2021, arXiv 2103.00020)."""
Features = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
"""What runs an encoder: (samples, width) of its inputs."""


class Told(NamedTuple):
    """A classifier of what an encoder gives, with what its classes are called."""

    weight: Tensor
    """(classes, width of the encoder)."""
    bias: Tensor
    """(classes,)."""
    names: Tensor
    """A vector of each class' name, (classes, width)."""


PRESENT = "present"
"""The input of an encoder that says which samples it has anything of, bool of shape (samples,); without it all have."""


class Encoders(Remembering):
    """The encoders, all in one call, so that the cache has one place behind all of them.

    Parameters
    ----------
    towers
        By their names, in their order.
    features
        How each is run.
    modalities
        What each reads.
    """

    def __init__(
        self, towers: Mapping[str, nn.Module], features: Mapping[str, Features], modalities: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(towers)
        self._features = dict(features)
        self.modalities = dict(modalities)

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return what each encoder makes of its inputs, whose names begin with its own: (samples, width of the encoder).

        It is 0 for samples that an encoder has nothing of: these are not computed.
        """
        found = []
        for name, tower in self.towers.items():
            own = {key.removeprefix(f"{name}."): value for key, value in inputs.items() if key.startswith(f"{name}.")}
            present = own.pop(PRESENT, None)
            features = partial(self._features[name], tower)
            if self._keys and not tower.training:
                features = partial(self._of_new, name, features)
            found.append(_of_present(features, own, present))
        return tuple(found)


def _of_present(
    features: Callable[[Mapping[str, Tensor]], Tensor], inputs: Mapping[str, Tensor], present: Tensor | None
) -> Tensor:
    if present is None or bool(present.all()):
        return features(inputs)
    rows = present.nonzero()[:, 0]
    computed = (
        rows if len(rows) else rows.new_zeros(1)
    )  # one at least: what divides weights has all ranks compute alike
    values = features({name: tensor[computed] for name, tensor in inputs.items()})
    values = values * present[computed, None]
    return values.new_zeros(len(present), values.shape[1]).index_copy(0, computed, values)


def scaled(vectors: Tensor, logit_scale: Tensor, most: float) -> Tensor:
    """Return vectors as long as the root of the factor of cosines, whose logarithm is kept at `most` and keeps its gradient; of the shape that they have."""
    beyond = (logit_scale - most).clamp(min=0).detach()
    return functional.normalize(vectors, dim=-1) * ((logit_scale - beyond) / 2).exp()


class Bridge(nn.Module):
    """Encoders and heads.

    Parameters
    ----------
    encoders
        Of several modalities.
    widths
        How many numbers each gives, by its name.
    kind, width, dropout
        As of `projection`.
    temperature
        What cosines are divided by at first.
    told
        Classifiers of what encoders of pictures see, by the encoders' names.
    """

    def __init__(
        self,
        encoders: Encoders,
        widths: Mapping[str, int],
        *,
        kind: str,
        width: int,
        dropout: float,
        temperature: float,
        told: Mapping[str, Told] | None = None,
    ) -> None:
        super().__init__()
        self.encoders = encoders
        self._parts: dict[str, list[int]] = {}
        for number, modality in enumerate(encoders.modalities.values()):
            self._parts.setdefault(modality, []).append(number)
        each = [*widths.values()]
        heads, self.told = dict[str, nn.Module](), dict[str, list[tuple[int, int, int]]]()
        names = [*encoders.modalities]
        for modality, parts in self._parts.items():
            own = {place: told[names[part]] for place, part in enumerate(parts) if told and names[part] in told}
            shapes = [(place, one.names.shape[0], one.names.shape[1]) for place, one in own.items()]
            heads[modality] = head = projection(kind, [each[part] for part in parts], width, dropout, shapes)
            self.told |= {modality: shapes} if shapes else {}
            for number, one in enumerate(own.values()):
                for name, values in one._asdict().items():
                    head.get_buffer(f"0.{name}{number}").copy_(values)
        if kind == "Linear":
            for modality in self.told:
                begin_with_names(heads[modality], heads["text"])
        self.heads = nn.ModuleDict(heads)
        self.logit_scale = nn.Parameter(torch.tensor([-math.log(temperature)]))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return a vector of each modality of each sample, float32 of shape (samples, modalities, width).

        All are as long as the root of the factor of cosines: products of them are what a contrast compares. The factor is
        kept at 100 at most; its gradient goes on, so that it may come back.
        """
        features = [each.float() for each in self.encoders(inputs)]
        of_modality = (torch.cat([features[part] for part in parts], dim=1) for parts in self._parts.values())
        vectors = torch.stack(
            [head(each).float() for head, each in zip(self.heads.values(), of_modality, strict=True)], dim=1
        )
        return scaled(vectors, self.logit_scale, MAX_LOGIT_SCALE)

    @property
    def factor(self) -> float:
        """What cosines are multiplied by."""
        return math.exp(min(self.logit_scale.item(), MAX_LOGIT_SCALE))


@torch.no_grad()
def begin_with_names(pictures: nn.Module, texts: nn.Module) -> None:
    """Have linear heads begin with what classifiers say: a picture lies where the names of its classes do.

    To the weights that are drawn for what encoders of texts give, and for what is said in their words, one orthogonal matrix is added.
    """
    named, linear, own = pictures.get_submodule("0"), pictures.get_submodule("3"), texts.get_submodule("2")
    assert isinstance(named, Named)
    assert isinstance(linear, nn.Linear)
    assert isinstance(own, nn.Linear)
    same = nn.init.orthogonal_(torch.empty_like(own.weight))
    own.weight += same
    for number, (_, _, width) in enumerate(reversed(named.told)):
        end = linear.in_features - number * width
        linear.weight[:, end - width : end] += same / len(named.told)


def bridge_blocks(bridge: Bridge) -> list[Block]:
    """Divide a bridge into blocks: layers of the encoders side by side, aligned at the top; the heads are one block."""
    parts: list[list[Block]] = []
    for name, tower in bridge.encoders.towers.items():
        prefix = f"encoders.towers.{name}."
        blocks = find_blocks(tower, ())
        parts.append([Block(one.name, tuple(f"{prefix}{each}" for each in one.parameters)) for one in blocks])
    layers = [[block for block in blocks if block.is_layer] for blocks in parts]
    depth = max(map(len, layers))
    found = [_joined(EMBEDDINGS, [one for blocks in parts for one in blocks if one.name == EMBEDDINGS])]
    for level in range(depth):
        level_of = [own[level - depth] for own in layers if level - depth >= -len(own)]
        found.append(_joined(f"{LAYER}{level}", level_of))
    above = [one for blocks in parts for one in blocks if not one.is_layer and one.name != EMBEDDINGS]
    found.append(_joined(above[0].name if above else "", above))
    head = tuple(name for name, _ in bridge.named_parameters() if not name.startswith("encoders."))
    return [*(block for block in found if block.parameters), Block(HEAD, head)]


def _joined(name: str, blocks: Sequence[Block]) -> Block:
    return Block(name, tuple(each for block in blocks for each in block.parameters))
