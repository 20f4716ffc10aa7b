"""What `unfreeze run` has imported for the processes of its job, while it looks at the job itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_trainer import forks
from unfreeze_trainer.agent.libraries import libraries_of

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob


@contextmanager
def forking(job: ResolvedJob) -> Iterator[list[socket.socket]]:
    """Start what forks the processes of a job, which imports their libraries meanwhile; yield a way to it for each agent."""
    # Perhaps there is nothing left to do; where there is, agents start their own.
    if os.path.exists(Path(job.output.path, "report.json")):  # noqa: PTH110 - Path.exists raises where nobody may look
        yield []
        return
    server, ways = forks.start(libraries_of(job), job.distribution.num_nodes, quiet=True)
    try:
        yield ways
    finally:
        for way in ways:
            way.close()
        if server:
            server.kill()  # what it has forked has ended with the agents
            server.wait()
