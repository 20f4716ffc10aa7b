"""The agent: PID 1 of a pod. It starts the workers, watches them, and tells the operator how far they are."""
