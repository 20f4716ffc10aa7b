"""The program `unfreeze-operator`: the operator where its libraries are installed, one line where they are not."""

from __future__ import annotations

import sys

from unfreeze_api.commands import missing


def main() -> None:
    """Run the operator."""
    try:
        from unfreeze_operator.main import main as operator
    except ModuleNotFoundError as error:
        sys.exit(f"Error: {missing('unfreeze-operator', 'operator', error)}")
    operator()


if __name__ == "__main__":
    main()
