"""What tasks with labels have in common: the options of how labels are read and learned."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule, Since

Weights = Annotated[dict[str, Annotated[float, Field(gt=0, le=1000000)]], Field(max_length=1000)]


class FocalLossSpec(Model):
    """Options of the focal loss."""

    gamma: float = Field(default=2, gt=0, le=20)
    """How much less a sample counts that is predicted well: its loss is multiplied by (1 - p)^gamma, p being the
    probability of what is right."""


class LabelOptions(Model):
    """Base of the options of tasks with labels for each sample."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.labelSeparator) || (has(self.labels) && self.labels == 'Multi')",
            "labelSeparator stands between several labels of a sample: set labels to Multi, or remove it",
            ".labelSeparator",
        ),
        Rule(
            "!has(self.classWeights) || !has(self.classWeightsByLabel)",
            "classWeights Balanced follows from the data, classWeightsByLabel is given: remove one of them",
            ".classWeights",
        ),
        Rule(
            "!has(self.sampling) || self.sampling != 'Balanced'"
            " || (!has(self.classWeights) && !has(self.classWeightsByLabel))",
            "sampling Balanced evens out how often each label is seen, class weights would do so once more: remove"
            " sampling, or classWeights and classWeightsByLabel",
            ".sampling",
        ),
        Rule(
            "!has(self.sampling) || self.sampling != 'Balanced' || !has(self.labels) || self.labels != 'Multi'",
            "sampling Balanced draws samples by their label, and with labels Multi a sample has several: choose"
            " classWeights Balanced, which weighs each label alone, or remove sampling",
            ".sampling",
        ),
        Rule(
            "!has(self.labelSmoothing) || self.labelSmoothing == 0.0 || !has(self.labels) || self.labels != 'Multi'",
            "labelSmoothing takes probability from the right label for the others, and with labels Multi each is decided"
            " alone: remove labelSmoothing, or set labels to Single",
            ".labelSmoothing",
        ),
        Rule(
            "!has(self.labelSmoothing) || self.labelSmoothing == 0.0 || !has(self.focalLoss)",
            "labelSmoothing pulls predictions away from certainty and focalLoss lets certain ones count less, which is not"
            " defined for smoothed labels: remove one of them",
            ".labelSmoothing",
        ),
    )

    labels: Annotated[Literal["Single", "Multi"] | None, Since(2)] = None
    """How many labels a sample has. Single: one. Multi: any number, none too; the column holds a list, or a text with
    separators, each label is decided alone, by a sigmoid, and predicted where its probability is above 0.5. Default:
    Single."""
    label_separator: Annotated[str | None, Since(2)] = Field(default=None, min_length=1, max_length=8)
    """What stands between the labels of a text, where labels is Multi; blanks around labels are left out. Default: a
    comma."""
    class_weights: Annotated[Literal["Balanced"] | None, Since(2)] = None
    """What a mistake at a sample of each label costs. Balanced: the rarer the label is in the training data, the more, so that
    each label costs as much as any other (scikit-learn's class_weight); with labels Multi the samples that have a label
    cost as much as those that do not (torch's pos_weight). Default: every sample costs the same."""
    class_weights_by_label: Annotated[Weights | None, Since(2)] = None
    """The same in numbers, like {spam: 3}; labels that are not named have 1. With labels Single they are divided by their mean
    over the training data. Default: every sample costs the same."""
    label_smoothing: Annotated[float | None, Since(2)] = Field(default=None, ge=0, lt=1)
    """Share of the probability that a right answer gives to all labels alike (Szegedy et al. 2016, arXiv 1512.00567).
    Default: 0."""
    focal_loss: Annotated[FocalLossSpec | None, Since(2)] = None
    """Let samples that are predicted well count less (Lin et al. 2017, arXiv 1708.02002). Default: cross-entropy."""
    sampling: Annotated[Literal["Shuffled", "Balanced"] | None, Since(2)] = None
    """Which samples an epoch has. Shuffled: each one once. Balanced: as many, drawn with replacement, each label as often as
    any other. Default: Shuffled."""
