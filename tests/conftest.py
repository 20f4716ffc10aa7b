"""What all tests share: one control plane for the run, a namespace for each test."""

import os

from hypothesis import settings

pytest_plugins = ["tests.cluster.fixtures", "tests.rooms"]

# What one test's job computes is no part of another's: those that are about it name a folder.
os.environ["UNFREEZE_FEATURES"] = "off"
# How long an example takes says more of the machine than of the code.
settings.register_profile("unfreeze", deadline=None)
settings.load_profile("unfreeze")
