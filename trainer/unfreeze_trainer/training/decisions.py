"""What a run has decided by what it measured: kept with its state, in events.jsonl once, shown with its progress.

Whatever decides is a pure function that returns a `Decision`; it is asked where all ranks hold the same numbers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfreeze_api.contracts.decision import Decision
    from unfreeze_trainer.runs.events import Events
    from unfreeze_trainer.runs.state import RunState

log = logging.getLogger(__name__)


class Decisions:
    """The decisions of a run.

    Parameters
    ----------
    state
        Of the run: checkpoints have its decisions, progress and report are made from it.
    events
        Take each decision once, whatever stops the run.
    """

    def __init__(self, state: RunState, events: Events) -> None:
        self._state, self._events = state, events
        self._written = {(line.get("step"), line.get("type"), line.get("answer")) for line in events.read("decision")}

    def add(self, decision: Decision) -> None:
        """Take a decision, on all ranks alike. One of the same type at the same step takes the place of the first."""
        found = {one.key: one for one in (*self._state.decisions, decision)}
        self._state.decisions = [found[key] for key in sorted(found)]
        log.info("%s: %s: %s", decision.type, decision.answer, decision.message)
        line = (decision.step, decision.type, decision.answer)
        if line in self._written:
            return
        self._written.add(line)
        self._events.add(
            "decision",
            step=decision.step,
            type=decision.type,
            question=decision.question,
            answer=decision.answer,
            message=decision.message,
            warning=bool(decision.warning),
            evidence=[one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in decision.evidence],
            seconds=round(decision.seconds, 3),
            otherwise=decision.otherwise,
            alternative=decision.alternative,
        )
