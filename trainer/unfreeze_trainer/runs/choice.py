"""ranking.json of a run folder: which of its candidates the run has chosen as its base, and why. It never chooses again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from unfreeze_api.contracts.decision import Decision
from unfreeze_trainer.runs.generation import Generation

log = logging.getLogger(__name__)

FILE = "ranking.json"
MEAN = "mean of layers"
"""What the mean over all layers is called that are as wide as the topmost."""
_ANSWER = 64
"""Characters of a decision's answer."""
_MESSAGE = 900
"""Characters of a decision's message that leave room for more."""


class Choice(BaseModel):
    """ranking.json."""

    format: Literal[1] = 1
    fingerprint: str
    """Of the run that has chosen."""
    source: str
    """The base, as in spec.model.candidates."""
    decision: Decision
    """Why, for people and for the run's record."""
    ranking: dict[str, Any]
    """What `unfreeze rank -o json` prints."""
    train: dict[str, Any] | None = None
    """Pins of the training data with which the run was first opened after it; None where it was not yet, or by an earlier version."""

    def beside(self, train: dict[str, Any] | None) -> Decision:
        """Return the decision, a warning where the training data has changed since it was taken."""
        if self.train is None or self.train == train:
            return self.decision
        message = f"{self.decision.message[:_MESSAGE]}; the training data has changed since: to choose anew take another output.destination"
        return self.decision.model_copy(update={"message": message, "warning": True})


def read_choice(run_folder: Path, fingerprint: str) -> Choice | None:
    """Return what a run has chosen, None where it has not or its folder is another run's."""
    try:
        found = Choice.model_validate_json((run_folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read: %s", run_folder / FILE, error)
        return None
    return found if found.fingerprint == fingerprint else None


def short_name(source: str, others: Sequence[str] = ()) -> str:
    """Return the last parts of a source, as many as tell it from others, in at most 64 characters: the last ones of more."""

    def last(text: str, count: int) -> str:
        return "/".join(text.rstrip("/").split("/")[-count:])

    counts = range(1, source.count("/") + 1)
    found = next(
        (last(source, n) for n in counts if all(last(source, n) != last(other, n) for other in others)), source
    )
    return found[-_ANSWER:]


def store_choice(choice: Choice, generation: Generation, run_folder: Path) -> None:
    """Write ranking.json into a run's folder, whole or not at all."""
    aside = generation.aside(FILE)
    aside.write_text(choice.model_dump_json(indent=1, by_alias=True, exclude_none=True) + "\n")
    generation.commit(aside, run_folder / FILE)
