"""events.jsonl of a run folder: what happened, a line each."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unfreeze_trainer.runs.generation import Generation, append


class Events:
    """events.jsonl of a run folder: one line for each start, phase, evaluation, decision, checkpoint, and the end."""

    def __init__(self, run_folder: Path, generation: Generation | None) -> None:
        self._path, self._generation = run_folder / "events.jsonl", generation

    def add(self, event: str, **details: Any) -> None:
        """Append a line, on the rank that may write."""
        if self._generation:
            self._generation.check()
            line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **details})
            with append(self._path) as file:
                file.write(line + "\n")

    def read(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one kind, on the rank that may write; one that a crash has cut is not among them."""
        return [one for one in lines_of(self._path) if one.get("event") == event] if self._generation else []


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of an events.jsonl, none where there is no such file; one that a crash has cut is not among them."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]
