"""Text embedding: a table of texts and of what is said of them, a transformers or sentence-transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.text_embedding import TextEmbeddingSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.sentence_encoder import SentenceEncoder
from unfreeze_trainer.modalities.sentences import Sentences
from unfreeze_trainer.objectives.base import TARGETS, Objective
from unfreeze_trainer.objectives.contrast import TEMPERATURE, LabelContrast, PairContrast
from unfreeze_trainer.objectives.retrieval import Retrieval
from unfreeze_trainer.objectives.similarity import CoSENT, CosineSimilarity
from unfreeze_trainer.tasks.composed import ComposedTask


class TextEmbedding(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(TextEmbeddingSpec)
        assert options is not None
        library = SentenceEncoder(job, options.pooling)
        make = _objective(options)

        def objective(learned: Any) -> Objective:
            made: Objective = make(learned)
            if isinstance(made.metrics, Retrieval):
                made.metrics.set_width(library.width)
            return made

        sentences = Sentences(job, library, options.max_length, annotation=options.annotation)
        super().__init__(job, objective, sentences, library)
        if options.annotation != "Pairs" or not job.data.train.columns.negative:  # a pair has its own negative
            self._require_others()
        self._require_metric_of_test()

    def _require_metric_of_test(self) -> None:
        """Raise JobError where what the test data are measured by has no value: there would be nothing to report."""
        test = self._splits.get("test")
        if test and (why := self.metrics.undefined(test.targets).get(self.job.metric.name)):
            raise JobError("InvalidData", f"spec.data.test: {self.job.metric.name} has no value for it: {why}")

    def repeats(self, split: str) -> bool:
        """Return whether frozen blocks need a split's samples once; those of several texts are several rows of a batch each."""
        return super().repeats(split) and not self._splits[split].source.inputs.type.num_fields

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of the texts of each sample, of shape (samples, texts, width)."""
        vectors = super().forward(module, batch)
        return vectors.view(-1, len(batch[TARGETS]), vectors.shape[1]).transpose(0, 1)

    def outputs(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of all texts, (texts, width); those of the samples' first ones come first."""
        return super().forward(module, inputs)

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of a batch's texts, (texts, width), in its order."""
        return super().forward(module, batch)


def _objective(options: TextEmbeddingSpec) -> Any:
    """Return what makes the objective of what the training data says."""
    temperature = options.temperature or TEMPERATURE
    if options.annotation == "Scores":
        return partial(CoSENT, temperature=temperature) if options.loss == "CoSENT" else CosineSimilarity
    return partial(LabelContrast if options.annotation == "Labels" else PairContrast, temperature=temperature)
