"""An agent whose workers train the MLP of `mlp`: python -m tests.trainer.mlp_agent; or a forked process: `be_agent`."""

import os
import socket
from pathlib import Path

from tests.trainer.ranks import log_to
from unfreeze_trainer.agent import libraries
from unfreeze_trainer.agent import main as agent
from unfreeze_trainer.fork_server import ENV

WORKER = ("-m", "tests.trainer.mlp")
libraries._TRANSFORMERS = ()  # which an MLP does without


def be_agent(environment: dict[str, str], log: Path, stacks_seconds: float, way: socket.socket | None) -> None:
    """Be an agent; what it starts are forks of the server that it is given a way to, or of its own."""
    os.environ |= environment | ({} if way is None else {ENV: str(way.detach())})
    log_to(log)
    agent.STACKS_SECONDS = stacks_seconds
    agent.main(WORKER)


if __name__ == "__main__":
    agent.main(WORKER)
