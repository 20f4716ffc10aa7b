"""The container beside a trainer's that brings sources into a cache which the trainer's cannot write.

    python -m unfreeze_trainer.sources

Jobs of a namespace may share a volume claim as their cache. What runs a model, or reads data, sees it read-only; this process can
write there and has the credentials, and reads nothing of what it brings but its bytes, the index of sharded weights and the README.md
of a data set. It answers at a socket that both containers see, for the sources of its job alone, until the agent has what it needs.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unfreeze_api.contracts.progress import CONFIG_FOLDER, FETCHER_ENV, JOB_FILE_ENV
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.sources import access_of
from unfreeze_trainer.job_file import load_job
from unfreeze_trainer.sources.asking import cache_of, child
from unfreeze_trainer.sources.secrecy import close_to_others
from unfreeze_trainer.sources.wanted import sources_of

log = logging.getLogger("unfreeze.fetcher")

_MOST_BYTES = 256 << 20
"""Of a request: 100,000 files with long names."""


class Beside:
    """Answers an agent.

    Parameters
    ----------
    job
        Whose sources may be asked for.
    address
        Of the socket.
    done
        File of this container alone that says that the agent has what it needs.
    """

    def __init__(self, job: ResolvedJob, address: Path, done: Path) -> None:
        self._sources = {(wanted.source, wanted.is_model): wanted for wanted in sources_of(job)}
        self._address, self._done = address, done
        self._pins: dict[str, Any] = {}
        """What the hub or store itself has said here."""

    def serve(self) -> None:
        """Answer until the agent needs no more, also in a former life of this container."""
        if self._done.exists():
            return
        self._address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self._address))
            server.listen()
            while not self._done.exists():
                connection, _ = server.accept()
                with connection:
                    try:
                        self._answer(connection)
                    except Exception as error:  # noqa: BLE001 - it has gone, or asks for nonsense
                        log.warning("a request was not answered: %r", error)
        self._address.unlink(missing_ok=True)

    def _answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"a request of more than {_MOST_BYTES:,} bytes")
        request = json.loads(text)
        if request["what"] == "done":
            self._done.touch()
            connection.sendall(b"{}\n")
            return
        asked = self._asked(request)
        with child(asked) as answers:
            for line in answers:
                if asked["what"] == "pin":
                    self._pins |= json.loads(line).get("result", {})
                connection.sendall(line.encode())

    def _asked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request as it may be made: for what the job names, as this container reads it; ValueError for another one.

        Of the request it has what is asked for, what each source is pinned to, and how patient to be: the agent may be of another version.
        """
        asked = [self._sources.get((one["source"], one["is_model"])) for one in request["wanted"]]
        known = [one for one in asked if one is not None]
        schemes = {access.scheme for one in known for access in access_of(one.source)}
        if len(known) < len(asked) or len(schemes) != 1 or request["what"] not in ("pin", "fetch"):
            raise ValueError("it asks for what is none of the job's sources")
        pins = request["pins"]
        return {
            "what": request["what"],
            "scheme": schemes.pop(),
            "wanted": [dataclasses.asdict(one) for one in known],
            "pins": pins,
            "noted": [source for source, pin in pins.items() if self._pins.get(source) == pin],
            "cache": cache_of(known),
            "pod": True,
            "offline": False,
            "patience": float(request["patience"]),
        }


def be_container() -> None:
    """Answer as long as it takes, and then wait for ever: Kubernetes would start again what ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s fetcher: %(message)s")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    close_to_others()
    job = load_job(Path(os.environ.get(JOB_FILE_ENV, f"{CONFIG_FOLDER}/job.json")), say=False)
    Beside(job, Path(os.environ[FETCHER_ENV]), Path(tempfile.gettempdir(), "done")).serve()
    log.info("the sources are here: this container has nothing more to do")
    sys.stderr.flush()
    while True:
        signal.pause()
