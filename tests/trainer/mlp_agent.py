"""An agent whose workers train the MLP of `mlp`: python -m tests.trainer.mlp_agent; or a forked process: `be_agent`."""

import os
from pathlib import Path

from tests.trainer.ranks import log_to
from unfreeze_trainer.agent import libraries
from unfreeze_trainer.agent import main as agent

WORKER = ("-m", "tests.trainer.mlp")
libraries._TRANSFORMERS = ()  # which an MLP does without


def be_agent(environment: dict[str, str], log: Path, stacks_seconds: float) -> None:
    """Be an agent; what it starts are processes of its own fork server, as ever."""
    os.environ |= environment
    log_to(log)
    agent.STACKS_SECONDS = stacks_seconds
    agent.main(WORKER)


if __name__ == "__main__":
    agent.main(WORKER)
