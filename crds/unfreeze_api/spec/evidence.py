"""What is measured beside the training, to say whether it was worth it. What is not asked for costs nothing."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.spec.data import ColumnsSpec
from unfreeze_api.spec.source import DataSource

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


class AnchorSpec(Model):
    """Rows that the base is good at."""

    source: DataSource
    """A table or a folder, as in data.train. Of a CausalLM, a Seq2SeqLM, a SpeechRecognition and a TextEmbedding it has their columns, of other tasks it needs no labels."""
    columns: ColumnsSpec | None = None
    """Names of the columns, when they are not those of data.train."""


Guard = Literal["Report", "Interpolate", "Stop", "Replay", "Hold"]
"""What is done about forgetting."""
TRAINING_GUARDS = ("Replay", "Hold")
"""Those that change how weights are trained, and not only which of them are taken."""
_WRITERS = ("CausalLM", "Seq2SeqLM", "SpeechRecognition")


def usual_replay_share(task: str) -> float:
    """Return the rows of the anchor for each training sample where nobody says a number.

    Of language models one in a hundred keeps the loss on other text where it was (Bethune et al. 2025, arXiv 2502.06042).
    """
    return 0.01 if task in _WRITERS else 0.1


class ReplaySpec(Model):
    """Rows of the anchor among the training samples."""

    share: float | None = Field(default=None, gt=0, le=1)
    """Rows of the anchor for each training sample. Default: 0.01 of CausalLM, Seq2SeqLM and SpeechRecognition, 0.1 of other tasks."""


class ForgettingSpec(Model):
    """What the base knew and the trained model does not."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.guard) || self.guard in ['Report', 'Replay'] || has(self.budget)",
            "Interpolate, Stop and Hold keep a budget: set evidence.forgetting.budget, or guard to Report or Replay",
            ".budget",
        ),
        Rule(
            "!has(self.guard) || self.guard != 'Replay' || has(self.anchor)",
            "Replay mixes rows of the anchor into the training: set evidence.forgetting.anchor, or another guard",
            ".anchor",
        ),
        Rule(
            "!has(self.replay) || (has(self.guard) && self.guard == 'Replay')",
            "replay is about guard Replay: remove it, or set guard to Replay",
            ".replay",
        ),
        Rule(
            f"self == oldSelf || !(has(self.guard) && self.guard in {list(TRAINING_GUARDS)})"
            f" && !(has(oldSelf.guard) && oldSelf.guard in {list(TRAINING_GUARDS)})",
            "guards Replay and Hold are a part of what is learned: neither can be set, changed or removed once the job is there; delete and"
            " recreate the job, or use another name",
            ".guard",
        ),
    )

    anchor: AnchorSpec | None = None
    """Rows that the base is good at, on which it is measured what is left of that. Default: none, the validation inputs, which tell
    how far the model has moved."""
    budget: float | None = Field(default=None, gt=0, le=1000)
    """What may be lost, by the first gauge that there is. CausalLM, Seq2SeqLM and SpeechRecognition: nats a token by which the loss on the anchor grows, or, without an
    anchor, of KL divergence from the base. A base with a head of its own for masked words or classes: share of the rows whose answer changes.
    Others: share of each row's nearest neighbours that are others. Default: none, it is reported what is lost."""
    guard: Guard | None = None
    """What is done about it. Report: nothing, it is said. Interpolate: the finished weights are mixed with the base's, as much as
    the budget needs, as the validation data likes it best. Stop: the training ends at the first evaluation beyond the budget, and the
    best checkpoint within it is taken. Replay: rows of the anchor that are not measured are trained on too, the new task beside what the base
makes of them. Hold: each step pulls the weights towards the base's, as strongly as the budget needs. Replay and Hold are a part of what
is learned: they cannot be changed later. Default: Report."""
    replay: ReplaySpec | None = None
    """How much is replayed. Default: as share says."""


class EvidenceSpec(Model):
    """What the finished model is compared with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.baseline) || has(self.scratch) || has(self.forgetting)",
            "name what is compared with: baseline, scratch or forgetting",
        ),
    )

    baseline: BaselineSpec | None = None
    """A classical model: `baseline: {}` is enough. Of texts logistic regression on TF-IDF of words and characters, of pictures on
    small pixels, colours and histograms of oriented gradients; ridge regression where numbers are predicted. It is fitted on the
    training samples after the training, by the first worker alone, and takes seconds. Default: none."""
    scratch: ScratchSpec | None = None
    """The same architecture from random weights: `scratch: {}` is enough. After the export all of its weights are trained by the
    same recipe, without layerDecay and adapter, for as many steps as the job, and again for as many seconds where these are more than
    a tenth longer or shorter. Suspends, crashes and several pods are as for the job itself. Default: none."""
    forgetting: ForgettingSpec | None = None
    """The base itself: `forgetting: {}` is enough. What the training makes the model lose of what the base could, measured at the end of each
    phase and at the end, in less than a thirtieth of the time of the training; and what is done about it. Default: none."""
