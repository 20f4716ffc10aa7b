"""What the operator says of itself and its jobs: series, logs, health."""
