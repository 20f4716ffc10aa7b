"""What a run took, printed at its end: the time of each room, the slowest tests. And how processes share the rooms.

A room is a folder of tests; its tests share a cluster, so one process runs them all.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

SHARED = {"crds": "cluster", "images": "cluster", "python": "cluster"}
"""Rooms whose tests run on the cluster of another one."""
CLUSTERS = ("operator", "e2e", "charts", "cluster")
"""Rooms that have a cluster of their own; they come one after the other in one process, but for the one below."""
TRAINS = "e2e"
"""The room with a cluster whose jobs compute more than they wait: another process has it, before any file."""
LONG = (
    "test_product.py",
    "test_agents.py",
    "test_engines.py",
    "test_adapter_engines.py",
    "test_kills.py",
    "test_first_steps.py",
    "test_export.py",
    "test_newcomer.py",
    "test_skew.py",
    "test_stores.py",
)
"""Files that take longest, and those of other rooms that would be begun when the other processes come to the end."""


def room(nodeid: str) -> str:
    """Return the folder below tests/ that a test lies in; empty for one beside them."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 else ""


def share(nodeid: str) -> str:
    """Return the name of what one process runs as a whole: a room with a cluster, a file of the others."""
    name = room(nodeid)
    name = SHARED.get(name, name)
    return name if name in CLUSTERS else nodeid.partition("::")[0]


def suits(name: str, place: int) -> bool:
    """Return whether the process at a place takes this room or file before those that are others' business."""
    if name in CLUSTERS:
        return place == (name == TRAINS)
    return place > 0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --slowest."""
    parser.addoption(
        "--slowest", type=int, default=0, metavar="N", help="Print the N slowest tests and the time of each room."
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files whose tests are all marked as what -m says it does not want: importing them takes as long as the others.

    Only of an expression that joins `not MARK` by `and`.
    """
    parts = config.option.markexpr.split(" and ")
    if collection_path.suffix != ".py" or not all(re.fullmatch(r"not \w+", part) for part in parts):
        return None
    marks = re.search(r"^pytestmark = (.*)", collection_path.read_text(encoding="utf-8"), re.MULTILINE)
    unwanted = {f"pytest.mark.{part.removeprefix('not ')}" for part in parts}
    return True if marks and unwanted & set(re.split(r"[^\w.]+", marks[1])) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the rooms with clusters first, then the longest files, then the trainer's, then the others."""
    files = dict.fromkeys(share(item.nodeid) for item in items)
    places = {
        name: (name not in CLUSTERS, not name.endswith(LONG), not name.startswith("tests/trainer/"), place)
        for place, name in enumerate([*CLUSTERS, *(name for name in files if name not in CLUSTERS)])
    }
    items.sort(key=lambda item: places[share(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Give each process whole rooms and files, where --dist=loadscope asks for it.

    The first process takes the rooms with clusters, which wait more than they compute, the second one the room whose jobs
    train, and then it and the others take the files; who has come to the end of those helps. So programs that the tests
    on clusters start are none of a process in which models were trained: beside torch's threads, which stay, each has been
    seen to take seconds to be gone.
    """
    from xdist.scheduler import LoadScopeScheduling

    if config.getoption("dist") != "loadscope":
        return None

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            place = self.nodes.index(node)
            wanted = next((name for name in self.workqueue if suits(name, place)), None)
            if wanted is not None:
                self.workqueue.move_to_end(wanted, last=False)
            super()._assign_work_unit(node)

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
