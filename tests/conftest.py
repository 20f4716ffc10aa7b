"""What all tests share: one control plane for the run, a namespace for each test."""

pytest_plugins = ["tests.cluster.fixtures"]
