"""The Grafana dashboards as the tests read them: panels and their queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.cluster.cluster import REPOSITORY

Json = dict[str, Any]
FILES = sorted((REPOSITORY / "charts/unfreeze/files/dashboards").glob("*.json"))


def load() -> dict[str, Json]:
    """Return the dashboards by the names of their files."""
    return {file.stem: json.loads(file.read_text()) for file in FILES}


def panels(board: Json) -> list[Json]:
    """Return the panels that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: Json) -> Iterator[tuple[str, str]]:
    """Yield what asks and the PromQL that it asks, with Grafana's variables in it."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in board["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
