"""`python -m unfreeze_trainer.sources`: the container that fetches for a trainer's, see beside.py."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Be the container until Kubernetes ends it, after the trainer's, which may be at once."""
    for number in (signal.SIGTERM, signal.SIGINT):  # process 1 of a container ignores what it has no handler for
        signal.signal(number, lambda *_: os._exit(0))
    from unfreeze_trainer.sources.beside import be_container

    be_container()


if __name__ == "__main__":
    main()
