"""Nets with weights that get no gradient: never, at times, by chance, or first of all later; and a task for each."""

from __future__ import annotations

import torch
from torch import nn

from tests.trainer.mlp import FEATURES, WIDTH, MLPTask, Net
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.blocks import Block

LATER = 1.5
"""What the first feature of a sample has to be for the nets that look at it; no sample of a dry run has it."""


class Never(Net):
    """A pooler that is computed and not read, as BigBird's; a module that is not called, as ESM's."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.pooler = nn.Linear(WIDTH, WIDTH)
        self.other = nn.Sequential(nn.Linear(WIDTH, 2), nn.BatchNorm1d(2))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        self.pooler(x)
        return self.head(self.norm(x))


class Scalar(Never):
    """One without dimensions beside."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.5))


class Routed(Net):
    """Experts, of which a batch uses those that its samples choose."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        choice = (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        y = torch.zeros_like(x)
        for number in choice.unique().tolist():
            rows = (choice == number).nonzero().flatten()
            y = y.index_add(0, rows, self.experts[number](x[rows]))
        return self.head(self.norm(x + y))


class Dropped(Net):
    """Layers that are left out at random, as wav2vec 2.0's."""

    def __init__(self, chance=0.5):
        super().__init__(dropout=0.0)
        self.chance = chance

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            if number and torch.rand([]) < self.chance:
                continue
            x = torch.tanh(layer(x))
        return self.head(self.norm(x))


class Later(Net):
    """A part that only samples of one kind use."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.extra = nn.Linear(FEATURES, WIDTH)
        self.pooler = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        y = x
        for layer in self.layers:
            y = torch.tanh(layer(y))
        self.pooler(y)
        if bool((x[:, 0] > LATER).any()):
            y = y + self.extra(x) * (x[:, :1] > LATER)
        return self.head(self.norm(y))


class Missing(Net):
    """A part that all batches use until they have samples of one kind."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.extra = nn.Linear(FEATURES, WIDTH)

    def forward(self, x):
        y = x
        for layer in self.layers:
            y = torch.tanh(layer(y))
        if not bool((x[:, 0] > LATER).any()):
            y = y + self.extra(x)
        return self.head(self.norm(y))


class IdleTask(MLPTask):
    """Trains such a net. The first samples are what a dry run sees, some more than a micro batch; those from `kind` on are of the other kind."""

    def __init__(self, net, *, kind=None):
        super().__init__()
        self.net = net
        self.x["train"][:, 0].clamp_(max=1)
        if kind is not None:
            self.x["train"][kind:, 0] = 2 * LATER

    def build_model(self):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            module = self.net()
        names = [name for name, _ in module.named_parameters()]

        def block(name, *prefixes):
            return Block(name, tuple(each for each in names if each.startswith(prefixes)))

        stack = [block(f"layer.{i}", f"layers.{i}.") for i in range(3)]
        neck = block("neck", "pooler", "other", "temperature", "experts", "extra")
        rest = [neck] if neck.parameters else []
        return LoadedModel(module, [*stack, *rest, block("norm", "norm."), block("head", "head.")], frozenset())


NETS = {net.__name__.lower(): net for net in (Never, Scalar, Routed, Dropped, Later, Missing)}
UNUSED = {
    "never": [f"{part}.{name}" for part in ("other.0", "other.1", "pooler") for name in ("bias", "weight")],
    "later": [f"{part}.{name}" for part in ("extra", "pooler") for name in ("bias", "weight")],
}
UNUSED["scalar"] = [*UNUSED["never"], "temperature"]
