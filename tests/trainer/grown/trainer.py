"""Ordinal regression of texts: each output says whether a text is above a level (Frank and Hall 2001)."""

from __future__ import annotations

import torch
from torch.nn import functional
from unfreeze_api.tasks.ordinal_regression import OrdinalRegressionSpec

from unfreeze_trainer.libraries.transformers import Transformers
from unfreeze_trainer.modalities.text import Text
from unfreeze_trainer.objectives.base import TARGETS, Objective
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.tasks.composed import ComposedTask


class Levels(Objective):
    """The labels are levels in their order; there is an output for each but the highest."""

    problem_type = "multi_label_classification"

    def __init__(self, learned):
        super().__init__(learned)
        self.outputs = [f"above {level}" for level in self.labels[:-1]]
        self.metrics = LevelMetrics(self)

    def loss(self, outputs, batch):
        steps = torch.arange(outputs.shape[1], device=outputs.device)
        above = (batch[TARGETS][:, None] > steps).float()
        losses = functional.binary_cross_entropy_with_logits(outputs.float(), above, reduction="none").sum(dim=1)
        return losses * self.counted(batch)

    def answer(self, outputs):
        return f"{self.labels}[int(({outputs} > 0).sum())]"


class LevelMetrics(Metrics):
    """Mean distance of levels, and the loss. The state is float64 of shape (3,): both sums, and the number of samples."""

    names = ("meanError", "loss")

    def __init__(self, levels):
        self.levels = levels

    def new_state(self):
        return torch.zeros(3, dtype=torch.float64)

    @torch.no_grad()
    def update(self, state, outputs, batch):
        kept = self.levels.counted(batch)
        distance = ((outputs > 0).sum(dim=1) - batch[TARGETS])[kept].abs().double().sum()
        loss = self.levels.loss(outputs, batch).double().sum()
        state += torch.stack([distance, loss, kept.double().sum()]).to(state.device)

    def _compute(self, state):
        distance, loss, count = state.tolist()
        return {"meanError": distance / count, "loss": loss / count} if count else {}


class OrdinalRegression(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job):
        library = Transformers(job)
        super().__init__(job, Levels, Text(job, library, job.task.of(OrdinalRegressionSpec).max_length), library)
