"""events.jsonl of a run folder: what happened, a line each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unfreeze_trainer.runs.generation import Generation, append


class Events:
    """events.jsonl of a run folder: one line for each start, phase, evaluation, checkpoint, and the end."""

    def __init__(self, run_folder: Path, generation: Generation | None) -> None:
        self._path, self._generation = run_folder / "events.jsonl", generation

    def add(self, event: str, **details: Any) -> None:
        """Append a line, on the rank that may write."""
        if self._generation:
            self._generation.check()
            line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **details})
            with append(self._path) as file:
                file.write(line + "\n")
