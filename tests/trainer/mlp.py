"""A task of a few lines that trains in milliseconds: an MLP of four blocks on made-up points. Also its worker:

python -m tests.trainer.mlp
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import pyarrow as pa
import torch
from torch import nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.blocks import Block
from unfreeze_trainer.objectives.answers import ABSENT, ANSWERED, OneOf
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.tasks import Task

FEATURES, WIDTH, CLASSES = 6, 8, 3
SAMPLES = {"train": 22, "validation": 13, "test": 9}


class Net(nn.Module):
    def __init__(self, dropout=0.1, norm=False, width=WIDTH, tied=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(FEATURES if i == 0 else width, width) for i in range(3))
        if tied:
            self.layers[2].weight = self.layers[1].weight
        self.norm = nn.BatchNorm1d(width) if norm else nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        for layer in self.layers:
            x = self.dropout(torch.tanh(layer(x)))
        return self.head(self.norm(x))


def blocks(module):
    def names(prefix):
        return tuple(name for name, _ in module.named_parameters() if name.startswith(prefix))

    stack = [Block(f"layer.{i}", names(f"layers.{i}.")) for i in range(3)]
    return [*stack, Block("norm", names("norm.")), Block("head", names("head."))]


class MLPTask(Task):
    """What tests make it do is told by UNFREEZE_TEST, a JSON object."""

    labels = ("a", "b", "c")
    splits = SAMPLES
    remedy = "Choose another one"
    blank_loss = math.log(CLASSES)
    answers = OneOf(labels)

    def __init__(self, _job=None, *, dropout=0.1, norm=False, width=WIDTH, tied=False, broken=()):
        self.options = json.loads(os.environ.get("UNFREEZE_TEST", "{}"))
        self.shape = {"dropout": dropout, "norm": norm, "width": width, "tied": tied}
        self.metrics = ClassificationMetrics(CLASSES)
        self.pins = {
            "base": {"source": "file:///mlp", "files": {}},
            "data": {"train": "0"} | self.options.get("pins", {}),
        }
        generator = torch.Generator().manual_seed(1)
        truth = torch.randn(FEATURES, CLASSES, generator=generator)
        self.x = {name: torch.randn(count, FEATURES, generator=generator) for name, count in SAMPLES.items()}
        self.y = {name: (x @ truth).argmax(dim=1) for name, x in self.x.items()}
        self.x["train"][list(broken)] = torch.inf  # samples whose gradients are not finite
        if "jobError" in self.options and str(os.environ.get("RANK")) == str(self.options["jobError"]):
            raise JobError("InvalidData", "row 3 of data.csv has no label")

    def build_model(self):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            module = Net(**self.shape)
        return LoadedModel(module, blocks(module), frozenset())

    def name_of(self, split, index):
        return f"{split}, row {index + 1}"

    def batches(self, split, batches, **_):
        for indices in batches:
            rows = torch.as_tensor([int(i) for i in indices] or [0])
            labels = self.y[split][rows] if len(indices) else torch.tensor([-100])
            self.take_time(split)
            self.hang_once()
            yield {"x": self.x[split][rows], "labels": labels}

    def take_time(self, split):
        """Sleep before a batch of the training, as long as a file is there if one is named."""
        if "sleep" in self.options and split == "train" and Path(self.options.get("sleepWhile", "/")).exists():
            time.sleep(self.options["sleep"])

    def hang_once(self):
        """Hang for ever, once on this rank, when 20 batches were read."""
        if "hang" not in self.options or os.environ.get("RANK") != str(self.options["hang"]):
            return
        self.batches_read = getattr(self, "batches_read", 0) + 1
        marker = Path(self.options["hangMarker"])
        if self.batches_read == 20 and not marker.exists():
            marker.touch()
            time.sleep(1e6)

    def known(self, split, samples, **_):
        return {"row": pa.array(samples + 1), "label": self.answers.labels(self.y[split][samples].numpy())}

    def keep(self, outputs, batch):
        return outputs.float()[:, None], torch.where(batch["labels"] == -100, ABSENT, ANSWERED)[:, None]

    def forward(self, module, batch):
        return module(batch["x"])

    def loss(self, outputs, batch):
        return nn.functional.cross_entropy(outputs.float(), batch["labels"], reduction="none", ignore_index=-100)

    def export(self, module, folder: Path, *_, **__):
        folder.mkdir(parents=True)
        torch.save(module.state_dict(), folder / "weights.pt")

    def usage(self, *_):
        return "import torch"

    def verify_export(self, folder, _, module):
        saved = torch.load(folder / "weights.pt")
        assert all(torch.equal(saved[name], tensor) for name, tensor in module.state_dict().items())


if __name__ == "__main__":
    from unfreeze_trainer.worker import main

    if told := json.loads(os.environ.get("UNFREEZE_TEST", "{}")).get("told"):
        Path(f"{told}-{os.environ['RANK']}").write_text(json.dumps(dict(os.environ)))
    main(MLPTask)
