"""A run to its end, as a worker has it."""

from __future__ import annotations

from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run


def complete(run: Run) -> None:
    train(run)
    finish(run)
