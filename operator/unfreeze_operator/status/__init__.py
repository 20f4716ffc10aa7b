"""The status of a job from what was observed. Pure."""
