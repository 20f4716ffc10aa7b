"""What is measured beside the training, to say whether it was worth it. What is not asked for costs nothing."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule

MAX_SAMPLES = 20_000
"""Training samples that a classical model is fitted on where nobody says a number."""


class BaselineSpec(Model):
    """A classical model."""

    max_samples: int = Field(default=MAX_SAMPLES, ge=10, le=1000000)
    """Training samples that it is fitted on at most; of more so many are drawn by training.seed."""


class EvidenceSpec(Model):
    """What the finished model is compared with."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("has(self.baseline)", "name what is compared with: baseline"),)

    baseline: BaselineSpec | None = None
    """A classical model: `baseline: {}` is enough. Of texts logistic regression on TF-IDF of words and characters, of pictures on
    small pixels, colours and histograms of oriented gradients; ridge regression where numbers are predicted. It is fitted on the
    training samples after the training, by the first worker alone, and takes seconds. Default: none."""
