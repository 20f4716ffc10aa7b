"""What a run has decided by what it measured, with all evidence: in report.json and events.jsonl."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.contracts.progress import DecisionInfo, Finite
from unfreeze_api.grammar.model import Model

ALIKE = "linear CKA with the base at "
"""What the evidence of each layer begins with, of a decision about what was forgotten."""


class Evidence(Model):
    """A figure that a decision rests on."""

    name: str
    """What it is, for people."""
    value: Finite = None
    """None where it has no value."""
    low: Finite = None
    """Lower end of its 95 % interval; None where it has no interval."""
    high: Finite = None
    """Upper end of it."""
    seconds: float | None = Field(default=None, ge=0)
    """What it took to come to the value; None where nobody knows, or it has no meaning."""


class Decision(DecisionInfo):
    """A decision, with what it rests on."""

    question: str
    """What was asked, in a sentence."""
    evidence: list[Evidence] = Field(default=[])
    """What was measured."""
    seconds: float = Field(default=0, ge=0)
    """What it cost: time of the run that was spent for it alone."""
    otherwise: str = ""
    """What it would have taken to decide otherwise."""
    alternative: str = ""
    """What is done without looking at the data, and what that gives."""

    def info(self) -> DecisionInfo:
        """Return the part that stands in the job's status."""
        return DecisionInfo.model_validate(self.model_dump(include=set(DecisionInfo.model_fields)))
