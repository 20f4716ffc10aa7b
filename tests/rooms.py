"""What a run took, printed at its end: the time of each room, the slowest tests. And how two processes share the rooms.

A room is a folder of tests; its tests share a cluster, so one process runs them all.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

SHARED = {"crds": "cluster", "images": "cluster"}
"""Rooms whose tests run on the cluster of another one."""
LONGEST_FIRST = ("trainer", "operator", "e2e", "charts", "cluster")
"""Rooms in the order in which two processes take them; the others follow."""


def room(nodeid: str) -> str:
    """Return the folder below tests/ that a test lies in; empty for one beside them."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 else ""


def share(nodeid: str) -> str:
    """Return the name of what one process runs as a whole."""
    name = room(nodeid)
    return SHARED.get(name, name)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --slowest."""
    parser.addoption(
        "--slowest", type=int, default=0, metavar="N", help="Print the N slowest tests and the time of each room."
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the rooms, each in its own order."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(share(item.nodeid), len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Give each process whole rooms, where --dist=loadscope asks for it."""
    from xdist.scheduler import LoadScopeScheduling

    if config.getoption("dist") != "loadscope":
        return None

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share(nodeid)

    return Rooms(config, log)


class Times:
    """Adds up what each test took: its fixtures' start and end too, which fall to the first and the last that need them."""

    def __init__(self, slowest: int) -> None:
        self._slowest = slowest
        self._tests: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a part of a test: its setup, its call or its teardown."""
        self._tests[report.nodeid][report.when or ""] += report.duration

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the tables."""
        rooms: defaultdict[str, list[float]] = defaultdict(list)
        for nodeid, parts in self._tests.items():
            rooms[room(nodeid) or "(none)"].append(sum(parts.values()))
        write = terminalreporter.write_line
        terminalreporter.section("time of the rooms")
        for name, seconds in sorted(rooms.items(), key=lambda item: -sum(item[1])):
            write(f"{sum(seconds):8.1f} s  {len(seconds):5} tests  {name}")
        terminalreporter.section(f"slowest {self._slowest} tests")
        ranked = sorted(self._tests.items(), key=lambda item: -sum(item[1].values()))
        for nodeid, parts in ranked[: self._slowest]:
            told = ", ".join(f"{when} {seconds:.1f}" for when, seconds in parts.items() if seconds >= 0.1)
            write(f"{sum(parts.values()):8.1f} s  {nodeid}  ({told})")


def pytest_configure(config: pytest.Config) -> None:
    """Add up times where somebody asks for them; with xdist, in the process that prints."""
    slowest = config.getoption("--slowest")
    if slowest and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Times(slowest))
