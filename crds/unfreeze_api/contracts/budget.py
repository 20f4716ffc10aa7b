"""How much a trainer says of itself: bounds of /progress that hold whatever a model or a task brings.

The trainer keeps to them in what it publishes. The operator applies them to what it reads, so that a trainer of another
version is cut and not refused. What is left out stands in report.json.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unfreeze_api.contracts.progress import MOST_DECISIONS, DecisionInfo, PhaseResult, Progress

if TYPE_CHECKING:
    from unfreeze_api.contracts.decision import Decision

MAX_PROGRESS_BYTES = 128 * 1024
"""Longest answer of /progress."""
MAX_PHASES = 64
"""Phases that are listed, the newest."""
MAX_METRICS = 8
"""Metrics of an evaluation. Figures of each class are no metrics: they would be as many as a task has labels."""
MAX_RESULTS = 2 * MAX_METRICS + 4
"""Metrics of the finished model, on validation and test data, the figures of its usefulness, and what its base has lost."""
MAX_RATES = 256
"""Blocks whose learning rate is reported."""
MAX_DECISIONS = 8
"""Decisions that are listed, the newest."""
MAX_DECISION_BYTES = 256
"""Longest decision, as JSON in etcd; what it rests on stands in report.json."""
RECORDED_ONLY = frozenset({"EarlyStopping", "Rollback", "TooShort", "Useful"})
"""Decisions that jobs have which set no newer field: the first release's operators hear no trainer that says something new,
so these stand in events.jsonl and report.json alone."""
DECISIONS = frozenset(
    {
        "Base",
        "Rates",
        "Solver",
        "Rung",
        "Trial",
        "Strategy",
        "Stage",
        "Baseline",
        "Scratch",
        "Forgetting",
        "Budget",
        "BetterThanBase",
    }
)
"""Types of the decisions that stand in a status: what else a trainer says is cut off where a type costs something."""
ANSWERS = frozenset({"Yes", "No", "NotSurely", "Within", "Broken", "Measured", "Kept", "Ended", "Exceeded"})
"""Answers that are the same for all jobs; others name a base, a strategy or rates."""
MAX_NAME_LENGTH = 63
_MAX_ANSWER_BYTES = 32
_DIGEST = 8

_METRIC = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""One word, so that no name can be put together from a metric and a label."""
_RESULT = re.compile(r"[A-Za-z0-9]+\.[A-Za-z][A-Za-z0-9_]*|[A-Za-z][A-Za-z0-9_]*")
_ESCAPED = re.compile("[<>&\u2028\u2029]")
"""What Go's JSON escapes, each in six bytes."""
_MARK = "…"
_BLOCK = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
"""As the value of a label of Kubernetes."""


def metrics(values: Mapping[str, float], first: str = "") -> dict[str, float]:
    """Return the metrics of an evaluation that have a place.

    Parameters
    ----------
    first
        The one that is kept before all others: the job's training.metric.
    """
    return _fitting(values, _METRIC, MAX_METRICS, first)


def results(values: Mapping[str, float], first: str = "") -> dict[str, float]:
    """Return the metrics of the finished model that have a place; their names are like test.accuracy."""
    return _fitting(values, _RESULT, MAX_RESULTS, first)


def rates(values: Mapping[str, float]) -> dict[str, float]:
    """Return the learning rates of blocks that have a place."""
    return _fitting(values, _BLOCK, MAX_RATES)


def block(name: str) -> str:
    """Return the name of a phase, or of its block, as it may be reported: of one that is too long a hash and its end."""
    if len(name) > MAX_NAME_LENGTH:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
        name = f"{digest}-{name[_DIGEST + 1 - MAX_NAME_LENGTH :]}"
    if not name or _BLOCK.fullmatch(name):
        return name
    return re.sub(r"[^-A-Za-z0-9_.]", "-", name).strip("-_.") or "unnamed"


def phase(reported: PhaseResult, first: str = "") -> PhaseResult:
    """Return a phase that has ended with what of it has a place."""
    return reported.model_copy(update={"name": block(reported.name), "metrics": metrics(reported.metrics, first)})


def decision(reported: DecisionInfo) -> DecisionInfo:
    """Return a decision with what of its message has a place."""
    answer = _cut(reported.answer, _MAX_ANSWER_BYTES)
    rest = reported.model_copy(update={"answer": answer, "message": ""})
    return rest.model_copy(update={"message": _cut(reported.message, MAX_DECISION_BYTES - _bytes(rest.to_json()))})


def taken(recorded: Sequence[Decision]) -> list[DecisionInfo]:
    """Return the decisions of a run that a progress takes, the newest: a run may end each of any number of phases early."""
    return [one.info() for one in recorded if one.type not in RECORDED_ONLY][-MOST_DECISIONS:]


def decisions(reported: Sequence[DecisionInfo]) -> list[DecisionInfo]:
    """Return the decisions that have a place, the newest."""
    return [decision(one) for one in reported if one.type not in RECORDED_ONLY][-MAX_DECISIONS:]


def _bytes(text: str) -> int:
    """Return the size of a text as Go's JSON writes it, or that of JSON which has no escapes."""
    return len(text.encode()) + sum(6 - len(found.encode()) for found in _ESCAPED.findall(text))


def _cut(text: str, most: int) -> str:
    """Return the beginning of a text, with a mark where it is cut, in so many bytes of JSON."""
    sizes = [_bytes(json.dumps(character, ensure_ascii=False)) - 2 for character in text]
    if sum(sizes) <= most:
        return text
    room, kept = most - len(_MARK.encode()), 0
    while (room := room - sizes[kept]) >= 0:
        kept += 1
    return text[:kept] + _MARK


def bounded(progress: Progress, first: str = "") -> Progress:
    """Return what /progress says, in at most MAX_PROGRESS_BYTES of JSON."""
    return progress.model_copy(
        update={
            "phase_name": block(progress.phase_name),
            "metrics": metrics(progress.metrics, first),
            "learning_rates": rates(progress.learning_rates),
            "phases": [phase(ended, first) for ended in progress.phases[-MAX_PHASES:]],
            "results": results(progress.results, f"test.{first}"),
            "decisions": (progress.decisions and decisions(progress.decisions)) or None,
        }
    )


def _fitting(values: Mapping[str, float], pattern: re.Pattern[str], most: int, first: str = "") -> dict[str, float]:
    named = [name for name in values if len(name) <= MAX_NAME_LENGTH and pattern.fullmatch(name)]
    kept = {*sorted(named, key=lambda name: name != first)[:most]}
    return {name: values[name] for name in named if name in kept}
