"""What all tests share: one control plane for the run, a namespace for each test."""

import gc
import os

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


def pytest_sessionstart() -> None:
    """What is collected stays until the end: looking through it for garbage, again and again, takes a tenth of a run of pure tests."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is looked for among what tests make."""
    gc.freeze()
    gc.enable()
