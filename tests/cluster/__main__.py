"""Command line: ``python -m tests.cluster up`` and ``down``.

``eval "$(python -m tests.cluster up)"`` starts a cluster in the background and points kubectl to it.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from pathlib import Path

from tests.cluster.binaries import BinariesError
from tests.cluster.cluster import REPOSITORY, STOP_TIMEOUT, Cluster, ClusterError, running
from tests.cluster.config import Config, Image
from tests.cluster.controlplane import ControlPlaneError


def up(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.dir.absolute()
    if running(folder) is not None:
        say(f"The cluster in {folder} is up already (its options stay as they are).")
    else:
        say("Starting the cluster: about 5 s.")
        images = dict(parse_image(text) for text in arguments.image)
        resources = dict(parse_pair(text, "--resource", "NAME=AMOUNT") for text in arguments.resource)
        config = Config(nodes=arguments.nodes, resources=resources, images=images)
        Cluster(config, folder=folder, detached=True).start()
        say(f"{arguments.nodes} nodes are Ready; logs are in {folder / 'logs'}.")
    print(f"export KUBECONFIG={folder / 'kubeconfig'}")
    print(f"export PATH={folder / 'bin'}:$PATH")
    return 0


def down(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.dir.absolute()
    pid = running(folder)
    if pid is None:
        say(f"No cluster is running in {folder}.")
        return 0
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    if not select.select([process], [], [], STOP_TIMEOUT)[0]:
        os.kill(pid, signal.SIGKILL)  # its children die with it
        select.select([process], [], [])
    say("The cluster is down.")
    return 0


def parse_image(text: str) -> tuple[str, Image | None]:
    name, folder = parse_pair(text, "--image", "NAME=BIN_FOLDER")
    return name, Image(path=(str(Path(folder).absolute()),) if folder else ())


def parse_pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ClusterError(f"{option} {text}: expected {form}")
    return name, value


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start a cluster in the background")
    stop = commands.add_parser("down", help="stop it")
    for command in (start, stop):
        command.add_argument(
            "--dir", type=Path, default=REPOSITORY / ".cluster", help="state folder (default: .cluster)"
        )
    start.add_argument("--nodes", type=int, default=2)
    start.add_argument("--resource", action="append", default=[], metavar="NAME=AMOUNT", help="of every node")
    start.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="NAME=BIN_FOLDER",
        help="an image the nodes have, with a folder that comes first in its PATH; '*=' for any other",
    )
    arguments = parser.parse_args()
    try:
        return up(arguments) if arguments.command == "up" else down(arguments)
    except (ClusterError, ControlPlaneError, BinariesError) as error:
        say(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
