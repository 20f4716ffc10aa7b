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


class ScratchSpec(Model):
    """Random weights, trained too."""

    max_share: float = Field(default=2.0, gt=0, le=100)
    """Time that it may take in all, as a share of the time of the job's own phases. Where it is over, that training ends and is
    judged as it is."""


class EvidenceSpec(Model):
    """What the finished model is compared with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.baseline) || has(self.scratch)", "name what is compared with: baseline or scratch"),
    )

    baseline: BaselineSpec | None = None
    """A classical model: `baseline: {}` is enough. Of texts logistic regression on TF-IDF of words and characters, of pictures on
    small pixels, colours and histograms of oriented gradients; ridge regression where numbers are predicted. It is fitted on the
    training samples after the training, by the first worker alone, and takes seconds. Default: none."""
    scratch: ScratchSpec | None = None
    """The same architecture from random weights: `scratch: {}` is enough. After the export all of its weights are trained by the
    same recipe, without layerDecay and adapter, for as many steps as the job, and again for as many seconds where these are more than
    a tenth longer or shorter. Suspends, crashes and several pods are as for the job itself. Default: none."""
