"""Who wrote what and when, as the API server's audit log tells: exact where a watch only guesses.

Only for a cluster with ``Config(audit=True)``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# Nobody's writes: reads, heartbeats, and questions that are asked in the form of a write.
_UNLOGGED: list[dict[str, object]] = [
    {"verbs": ["get", "list", "watch"]},
    {"resources": [{"group": "coordination.k8s.io"}]},
    {"resources": [{"group": "authentication.k8s.io"}, {"group": "authorization.k8s.io"}]},
    {"resources": [{"group": "", "resources": ["serviceaccounts/token"]}]},
]
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [*({"level": "None", **rule} for rule in _UNLOGGED), {"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class Write:
    """A request that was to change something. Times are POSIX seconds, by the API server's clock."""

    user: str
    verb: str
    resource: str
    """Plural, and subresource after a slash."""
    namespace: str
    name: str
    code: int
    began: float
    ended: float


def flags(folder: Path) -> dict[str, object]:
    """Return the API server's flags for a log in ``folder``."""
    policy = folder / "audit.json"
    policy.write_text(json.dumps(_POLICY, indent=2))
    return {"audit-policy-file": policy, "audit-log-path": log(folder), "audit-log-maxsize": 4096}


def log(folder: Path) -> Path:
    return folder / "logs" / "audit.log"


def mark(folder: Path) -> int:
    """Return the end of the log, to read on from later."""
    return log(folder).stat().st_size


def read(folder: Path, since: int = 0) -> list[Write]:
    """Return the writes after a mark, in the order in which they were answered."""
    with log(folder).open("rb") as file:
        file.seek(since)
        return [_write(json.loads(line)) for line in file]


def _write(event: dict[str, dict[str, str]]) -> Write:
    what = event["objectRef"]
    resource = what["resource"] + (f"/{what['subresource']}" if "subresource" in what else "")
    return Write(
        user=event["user"].get("username", ""),  # none of a request that ended before anybody asked who it is
        verb=str(event["verb"]),
        resource=resource,
        namespace=what.get("namespace", ""),
        name=what.get("name", ""),
        code=int(event["responseStatus"]["code"]),
        began=_seconds(event["requestReceivedTimestamp"]),
        ended=_seconds(event["stageTimestamp"]),
    )


def _seconds(time: object) -> float:
    return datetime.fromisoformat(str(time)).timestamp()
