"""Samples that could not be read and were left out, counted over all ranks and starts of a run (data.onError)."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.runs.events import Events
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)


class Skipped:
    """Counts them; does nothing where they are not to be skipped.

    Parameters
    ----------
    task, engine
        Of the run.
    state
        Of the run: keeps those that were found when it was their turn.
    events
        Take the count when it has changed.
    on
        Whether data.onError is Skip.
    """

    def __init__(self, task: Task, engine: Engine, state: RunState, events: Events, *, on: bool) -> None:
        self._task, self._engine, self._state, self._events, self._on = task, engine, state, events, on

    def gather(self) -> None:
        """Take note of what any rank could not read. Collective."""
        if not self._on:
            return
        before = self.counts()
        for unread in self._engine.gather_json(self._task.unread, dict[str, set[int]]):
            for split, samples in unread.items():
                self._state.unread[split] = sorted(samples.union(self._state.unread.get(split, ())))
        if (after := self.counts()) != before:
            self._events.add("skippedSamples", step=self._state.step, samples=after)
            log.warning("samples that could not be read and were left out: %s", after)

    def counts(self) -> dict[str, int]:
        """Return how many of each split there are."""
        if not self._on:
            return {}
        found = Counter(self._task.left_out)
        found.update({split: len(samples) for split, samples in self._state.unread.items() if samples})
        return dict(found)

    @property
    def total(self) -> int | None:
        """How many there are, None where they are not to be skipped."""
        return sum(self.counts().values()) if self._on else None
