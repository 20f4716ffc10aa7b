"""sources.json of a run folder: every pod and every later start reads the same bytes, wherever a branch has moved."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from unfreeze_trainer.runs.generation import Generation
from unfreeze_trainer.sources.pins import Pin

log = logging.getLogger(__name__)

FILE = "sources.json"


class Pins(BaseModel):
    """sources.json."""

    format: Literal[1] = 1
    fingerprint: str
    """Of the run that they belong to."""
    sources: dict[str, Pin]
    """By what the manifest says."""


def read_pins(run_folder: Path, fingerprint: str) -> dict[str, Pin]:
    """Return the pins of a run by source, none where it has not begun or its folder is another run's."""
    try:
        found = Pins.model_validate_json((run_folder / FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read, the sources are looked up again: %s", run_folder / FILE, error)
        return {}
    return found.sources if found.fingerprint == fingerprint else {}


def store_pins(pins: Mapping[str, Pin], generation: Generation, run_folder: Path, fingerprint: str) -> None:
    """Write sources.json into a run's folder, whole or not at all."""
    aside = generation.aside(FILE)
    aside.write_text(
        Pins(fingerprint=fingerprint, sources=dict(pins)).model_dump_json(indent=1, exclude_none=True) + "\n"
    )
    generation.commit(aside, run_folder / FILE)
