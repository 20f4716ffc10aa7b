"""What all tests share: one control plane for the run, a namespace for each test."""

import gc
import logging
import os
from collections.abc import Callable, Generator

import pytest
from hypothesis import settings

from tests.support.disk import flush_nothing

pytest_plugins = ["tests.cluster.fixtures", "tests.rooms"]

# What one test's job computes is no part of another's: those that are about it name a folder.
os.environ["UNFREEZE_FEATURES"] = "off"
flush_nothing()
# How long an example takes says more of the machine than of the code.
settings.register_profile("unfreeze", deadline=None)
# Of `make test-fast`: a fifth of the examples, where a test does not say how many.
settings.register_profile("fast", settings.get_profile("unfreeze"), max_examples=20)
settings.load_profile("unfreeze")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Prepare a run.

    What is collected stays until the end: looking through it for garbage, again and again, takes a tenth of a run of pure
    tests. So does pytest's log of each test, which looks through all loggers six times: tests that read `caplog` have it,
    and all with `--log-level`, which shows what those that fail have logged.
    """
    gc.disable()
    plugins = session.config.pluginmanager
    if session.config.getoption("log_level", None) is None and (log := plugins.unregister(name="logging-plugin")):
        plugins.register(LogWhereItIsRead(log))
        logging.getLogger().addHandler(logging.NullHandler())  # without any, warnings would go to stderr


class LogWhereItIsRead:
    """Pytest's log of a test, for those that read it."""

    def __init__(self, log: object) -> None:
        for part in ("pytest_runtest_setup", "pytest_runtest_call", "pytest_runtest_teardown"):
            setattr(self, part, _where_it_is_read(getattr(log, part)))


def _where_it_is_read(hook: Callable[[pytest.Item], Generator[None]]) -> Callable[[pytest.Item], Generator[None]]:
    @pytest.hookimpl(wrapper=True)
    def part(item: pytest.Item) -> Generator[None]:
        return (yield from hook(item)) if "caplog" in getattr(item, "fixturenames", ()) else (yield)

    return part


def pytest_collection_finish() -> None:
    """From here on garbage is looked for among what tests make."""
    gc.freeze()
    gc.enable()
