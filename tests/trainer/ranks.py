"""Processes forked from one that has imported everything: a start costs a moment where it would cost ten seconds.

`Ranks` are those of one process group, which stays while they take one piece of work after the other. A gang does one piece
of work, and may die of it.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest.mock import patch

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.trainer.imported"])


def prepare() -> None:
    """Start the process that is forked; it imports what ranks need while others go on."""
    with patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def place_of(rank: int, world: int, port: int) -> dict[str, str]:
    """Return the environment of a rank, as torchrun describes it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "OMP_NUM_THREADS": 1}
    return {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def log_to(file: Path) -> None:
    """Append what this process prints to a file."""
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)


class Ranks:
    """The ranks of one process group; after a call that went wrong they are started anew.

    Parameters
    ----------
    folder
        For their logs.
    world
        How many they are.
    """

    def __init__(self, folder: Path, world: int = 2) -> None:
        self._folder, self._world = folder, world
        self._processes: list[tuple[Any, Connection]] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what a function of a module returns on each rank, called on all of them.

        Raises
        ------
        AssertionError
            With the traceback of the rank where it first went wrong.
        """
        if not self._processes:
            self.start()
        try:
            for _, connection in self._processes:
                connection.send_bytes(pickle.dumps((function, arguments)))
            return self._answers()
        except BaseException:
            self.kill()
            raise

    def start(self) -> None:
        """Start the processes, which join no group before they are asked to."""
        port = free_port()
        for rank in range(self._world):
            here, there = FORKS.Pipe()
            log = self._folder / f"rank-{rank}.log"
            process = FORKS.Process(target=_serve, args=(place_of(rank, self._world, port), log, there), daemon=True)
            process.start()
            there.close()
            self._processes.append((process, here))

    def _answers(self) -> list[Any]:
        left = {connection: rank for rank, (_, connection) in enumerate(self._processes)}
        answers = [None] * self._world
        while left:
            for connection in wait(left):
                rank = left.pop(connection)
                try:
                    answers[rank], error = pickle.loads(connection.recv_bytes())
                except EOFError:
                    error = f"it has died:\n{(self._folder / f'rank-{rank}.log').read_text()[-3000:]}"
                assert not error, f"rank {rank}: {error}"
        return answers

    def kill(self) -> None:
        """End the processes."""
        for process, connection in self._processes:
            process.kill()
            process.join()
            connection.close()
        self._processes = []


def _serve(place: dict[str, str], log: Path, connection: Connection) -> None:
    log_to(log)
    os.environ |= place
    for _ in itertools.count():
        try:
            function, arguments = pickle.loads(connection.recv_bytes())
        except EOFError:  # nobody asks any more
            os._exit(0)
        gc.collect()
        gc.freeze()  # as a worker does before it trains: each change of phase collects
        try:
            answer = function(*arguments), None
        except BaseException:  # noqa: BLE001 - it is told to those who asked
            answer = None, traceback.format_exc()[-5000:]
        connection.send_bytes(pickle.dumps(answer))


def run_gang(world: int, function: Callable[..., int], *arguments: Any) -> list[int]:
    """Run a function of a module on each rank; return its exit codes, which are what it returns, or -9 of a killed rank.

    When the first rank has gone wrong the others are killed, as an agent does.
    """
    port = free_port()
    places = [place_of(rank, world, port) for rank in range(world)]
    ranks = [FORKS.Process(target=_be_rank, args=(place, function, arguments), daemon=True) for place in places]
    for process in ranks:
        process.start()
    left = {process.sentinel: process for process in ranks}
    while left:
        for sentinel in wait(left):
            process = left.pop(sentinel)
            process.join()
            if process.exitcode:
                for other in left.values():
                    other.kill()
    return [process.exitcode for process in ranks]


def _be_rank(place: dict[str, str], function: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    os.environ |= place
    code = 1
    try:
        code = function(*arguments)
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
    finally:
        os._exit(code)
