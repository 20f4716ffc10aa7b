"""How much a mistake at each label costs: by its frequency in the training data, or in numbers of the job."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unfreeze_api.tasks.labels import LabelOptions
from unfreeze_trainer.errors import JobError, quoted, some_of
from unfreeze_trainer.objectives.targets.label_sets import LabelSets
from unfreeze_trainer.objectives.targets.labels import Labels


def class_weights(learned: Labels, options: LabelOptions, where: str) -> np.ndarray | None:
    """Return the weight of each label, float64 of shape (labels,); None where all weigh the same.

    The mean over the training data is 1, so that learning rates mean what they mean without weights: torch's
    CrossEntropyLoss divides by the sum of a batch's weights instead, which no two workers have in common.

    Parameters
    ----------
    learned
        Labels and their frequencies in the training data.
    options, where
        Of the task, and their field.

    Raises
    ------
    JobError
        InvalidData: a label that has a weight does not occur.
    """
    if options.class_weights == "Balanced":
        return learned.samples / (len(learned.labels) * learned.frequencies)
    if not options.class_weights_by_label:
        return None
    weights = named_weights(options.class_weights_by_label, learned.labels, where)
    return weights * (learned.samples / (weights * learned.frequencies).sum())


def positive_weights(learned: LabelSets, options: LabelOptions, where: str) -> np.ndarray | None:
    """Return how much each label weighs where a sample has it, float64 of shape (labels,); None for 1.

    Balanced is the number of samples without a label over that of those with it, as torch's BCEWithLogitsLoss has it; 1 for
    a label that all samples have. Parameters and errors as of `class_weights`.
    """
    if options.class_weights == "Balanced":
        without = learned.samples - learned.frequencies
        return np.where(without > 0, without / learned.frequencies, 1.0)
    if not options.class_weights_by_label:
        return None
    return named_weights(options.class_weights_by_label, learned.labels, where)


def named_weights(given: Mapping[str, float], labels: list[str], where: str) -> np.ndarray:
    """Return the weight of each label, 1 for those without, float64 of shape (labels,). JobError InvalidData where others have one."""
    if unknown := sorted(set(given) - set(labels)):
        raise JobError(
            "InvalidData",
            f"{where}.classWeightsByLabel: {some_of(list(map(repr, unknown)))} {'does' if len(unknown) == 1 else 'do'} not occur"
            f" in the training data, which has {quoted(some_of(list(map(repr, labels)), 20))}: correct or remove it",
        )
    return np.array([given.get(label, 1.0) for label in labels])
