"""The run folder: who may write to it, what it began with, its checkpoints, its events. Nothing here knows a model or an engine."""
