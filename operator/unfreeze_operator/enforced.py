"""Says whether the network enforces NetworkPolicies: `python -m unfreeze_operator.enforced HOST PORT`. The chart's test runs it.

It runs in a pod that a policy lets reach nothing but DNS, and tries to reach an operator that listens.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

import click

ENFORCED = "The network enforces NetworkPolicies: {host}:{port} is out of reach of a pod that may reach DNS alone."
NOT_ENFORCED = (
    "WARNING: the network does NOT enforce NetworkPolicies: {host}:{port} is within reach of a pod that may reach DNS alone."
    " Whoever runs pods in this cluster can talk to the gangs of all jobs. Use a network plugin that enforces policies;"
    " docs/security.md says what is at stake."
)
UNKNOWN = (
    "WARNING: whether the network enforces NetworkPolicies cannot be determined: {host} is not known here ({error})."
)


def reachable(host: str, port: int, timeout: float) -> bool:
    """Return whether a connection can be opened.

    Raises
    ------
    socket.gaierror
        Nobody knows the host.
    """
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except socket.gaierror:
        raise
    except OSError:
        return False


def look(connects: Callable[[], bool], patience: float, pause: float) -> bool:
    """Return whether policies are enforced; some networks need a moment until they hold for a new pod."""
    until = time.monotonic() + patience
    while connects():
        if time.monotonic() >= until:
            return False
        time.sleep(pause)
    return True


@click.command()
@click.argument("host")
@click.argument("port", type=int)
@click.option(
    "--patience", default=5.0, show_default=True, help="Seconds that a policy may take to hold for a new pod."
)
@click.option("--pause", default=0.5, show_default=True, help="Seconds between two tries.")
@click.option("--require", is_flag=True, help="Fail unless policies are enforced.")
def main(host: str, port: int, patience: float, pause: float, *, require: bool) -> None:
    """Say whether NetworkPolicies hold: HOST must be out of reach."""
    try:
        enforced = look(lambda: reachable(host, port, timeout=3.0), patience, pause)
        said = (ENFORCED if enforced else NOT_ENFORCED).format(host=host, port=port)
    except socket.gaierror as error:
        enforced, said = False, UNKNOWN.format(host=host, error=error.strerror)
    click.echo(said)
    if require and not enforced:
        sys.exit(1)


if __name__ == "__main__":
    main()
