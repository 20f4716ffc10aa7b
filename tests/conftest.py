"""What all tests share: one control plane for the run, a namespace for each test."""

from hypothesis import settings

pytest_plugins = ["tests.cluster.fixtures", "tests.rooms"]

# How long an example takes says more of the machine than of the code.
settings.register_profile("unfreeze", deadline=None)
settings.load_profile("unfreeze")
