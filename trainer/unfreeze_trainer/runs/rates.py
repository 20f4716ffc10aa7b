"""rates.json of a run folder: the learning rates that a run has chosen by a range test, and why. Once it trains it never chooses again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from unfreeze_api.contracts.decision import Decision
from unfreeze_trainer.runs.generation import Generation

log = logging.getLogger(__name__)

FILE = "rates.json"


class Tested(BaseModel):
    """The course of a range test."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    part: str
    """Of the model."""
    rates: list[float]
    losses: list[float]
    """Mean loss of each step's batch before the step, and of the next one after the last."""
    before: list[float]
    """Of the same batches by the weights of before the test."""


class ChosenRates(BaseModel):
    """rates.json."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    format: Literal[1] = 1
    fingerprint: str
    """Of the run that has chosen."""
    found_on: str = ""
    """Hash of the data and the base that it has chosen by; empty of earlier versions."""
    head: float
    backbone: float
    tests: list[Tested]
    decision: Decision


def read_rates(run_folder: Path, fingerprint: str | None = None) -> ChosenRates | None:
    """Return what a run has chosen, None where it has not or its folder is another run's; `fingerprint` None for any run's."""
    try:
        found = ChosenRates.model_validate_json((run_folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read: %s", run_folder / FILE, error)
        return None
    return found if fingerprint in (None, found.fingerprint) else None


def store_rates(chosen: ChosenRates, generation: Generation, run_folder: Path) -> None:
    """Write rates.json whole or not at all."""
    aside = generation.aside(FILE)
    aside.write_text(chosen.model_dump_json(indent=1, by_alias=True, exclude_none=True) + "\n")
    generation.commit(aside, run_folder / FILE)
