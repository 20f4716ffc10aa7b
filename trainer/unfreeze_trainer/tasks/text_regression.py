"""Text regression: a table of texts, or of pairs of them, and numbers; a transformers model."""

from __future__ import annotations

from functools import partial

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.text_regression import TextRegressionSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.transformers import Transformers
from unfreeze_trainer.modalities.text import Text
from unfreeze_trainer.objectives.regression import Regression
from unfreeze_trainer.tasks.composed import ComposedTask

_OF_VARIANCE = frozenset({"r2", "pearson", "spearman"})
"""Metrics that are not defined where all numbers are the same."""


class TextRegression(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(TextRegressionSpec)
        assert options is not None
        objective = partial(Regression, loss=options.loss or "MeanSquaredError", delta=options.huber_delta or 1.0)
        library = Transformers(job, options.pooling)
        super().__init__(job, objective, Text(job, library, options.max_length), library)
        if job.metric.name in _OF_VARIANCE:
            self._require_variance()

    def _require_variance(self) -> None:
        """Raise JobError where training.metric has no value on the validation data."""
        split = self._splits["validation"]
        for name, values in zip(self.objective.outputs, split.targets.values.T, strict=True):
            if (values == values[0]).all():
                raise JobError(
                    "InvalidData",
                    f"spec.data.validation: all {len(values)} samples have the same {name!r}, for which"
                    f" spec.training.metric {self.job.metric.name} is not defined: hold out more data, or set it to rmse",
                )
