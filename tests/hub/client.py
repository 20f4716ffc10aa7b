"""A process of the real client that answers many requests: what the fetcher does for one, without its start each time."""

import json
import sys

from unfreeze_trainer.sources.fetcher import answer


def main():
    for line in sys.stdin:
        said = []
        answer(json.loads(line), said.append)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
