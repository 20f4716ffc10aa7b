"""spent.json of a run folder: what the job has taken of its budget, all starts together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from unfreeze_api.contracts.resolved import ResolvedBudget
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.generation import Generation

log = logging.getLogger(__name__)

FILE = "spent.json"
_HOUR = 3600.0


class Spent(BaseModel):
    """spent.json."""

    format: Literal[1] = 1
    seconds: float = 0.0
    """That starts of pod 0 have run."""
    unit: str = ""
    """Of the budget then."""
    amount: float = 0.0
    """What these seconds took of it, in that unit."""
    until: float = 0.0
    """When that was written, in seconds since the epoch."""

    def seconds_of(self, budget: ResolvedBudget) -> float:
        """Return what was spent as seconds of the job as it runs now: its price and its pods may be others than before."""
        if self.unit != budget.unit or not budget.per_hour:
            return self.seconds
        return self.amount / budget.per_hour * _HOUR

    def after(self, seconds: float, budget: ResolvedBudget, now: float) -> Spent:
        """Return it with so many seconds more, up to now."""
        per_second = (budget.per_hour or 0.0) / _HOUR
        before = self.amount if self.unit == budget.unit else self.seconds * per_second
        return Spent(seconds=self.seconds + seconds, unit=budget.unit, amount=before + seconds * per_second, until=now)

    def at_least(self, seconds: float, budget: ResolvedBudget) -> Spent:
        """Return it with what was trained while the job had no budget, and nobody counted; `seconds` are those of all phases so far."""
        return self.after(seconds - self.seconds, budget, self.until) if seconds > self.seconds else self


def read_spent(run_folder: Path) -> Spent:
    """Return what a run has spent, nothing where it has not told."""
    try:
        return Spent.model_validate_json((run_folder / FILE).read_bytes())
    except FileNotFoundError:
        return Spent()
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read, so that the budget begins anew: %s", run_folder / FILE, error)
        return Spent()


def store_spent(spent: Spent, generation: Generation, run_folder: Path) -> None:
    """Write spent.json whole or not at all."""
    aside = generation.aside(FILE)
    aside.write_text(spent.model_dump_json() + "\n")
    generation.commit(aside, run_folder / FILE)


def require_known(budget: ResolvedBudget | None) -> None:
    """Raise JobError InvalidJob where nobody knows what a job takes of its budget."""
    if budget is None:
        return
    if budget.per_hour is None:
        raise JobError(
            "InvalidJob",
            "spec.runPolicy.budget.amount: nobody has a price for this job's accelerators: set budget.pricePerHour, have the operator's"
            " table of prices name them, or set budget.hours in place of amount",
        )
    if not budget.per_hour and budget.unit == "money":
        raise JobError(
            "InvalidJob",
            "spec.runPolicy.budget.amount: the operator's table of prices has 0 for this job's accelerators, so that no amount is ever spent:"
            " set budget.pricePerHour, or budget.hours in place of amount",
        )
    if not budget.per_hour:
        raise JobError(
            "InvalidJob",
            "spec.runPolicy.budget.acceleratorHours: the job asks for no accelerators in distribution.resourcesPerNode.limits: ask"
            " for some, or set budget.hours in place of acceleratorHours",
        )
