"""The process that fetches from a hub or a store: the only one that has their credentials and goes online.

Its input is one request as JSON, its output lines of JSON: how far it is, and at last a result or an error. It has no core file,
and processes of the same user cannot read its memory.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.secrecy import CREDENTIALS, close_to_others, redacted
from unfreeze_trainer.sources.wanted import Wanted

if TYPE_CHECKING:
    from unfreeze_trainer.sources.bringer import Bringer

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _guard(parent: int) -> None:
    """Leave no core file, let nobody of the same user look in, and end with the process that asked."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    close_to_others()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def answer(request: Mapping[str, Any], say: Callable[[Mapping[str, Any]], None]) -> None:
    """Say the result of a request, or why there is none.

    Parameters
    ----------
    request
        `what` (pin or fetch), `scheme`, `wanted` (all of it), `pins`, `cache`, whether that is a `pod`'s, `offline`, `patience`, perhaps
        `noted`; see asking.py and beside.py.
    say
        Takes a line of the output.
    """
    wanted = [Wanted(**one) for one in request["wanted"]]
    try:
        bringer = _bringer(request, say)
        if request["what"] == "pin":
            say({"result": {one.source: bringer.pin(one).model_dump() for one in wanted}})
        else:
            pins = {source: Pin.model_validate(pin) for source, pin in request["pins"].items()}
            say({"result": {one.source: bringer.fetch(one, pins[one.source]) for one in wanted}})
    except (JobError, RetryError) as error:
        say({"reason": error.reason, "message": error.message, "again": isinstance(error, RetryError)})


def _bringer(request: Mapping[str, Any], say: Callable[[Mapping[str, Any]], None]) -> Bringer:
    """Return what brings the sources of a scheme; each has a client of its own, which takes its time to import."""
    how = {name: request.get(name) for name in ("offline", "patience", "noted")} | {"say": say}
    module = importlib.import_module(f"unfreeze_trainer.sources.schemes.{request['scheme']}")
    if hasattr(module, "prepare"):
        module.prepare(request["cache"], pod=request["pod"], offline=request["offline"])
    if not hasattr(module, "connect"):
        from unfreeze_trainer.sources.hub import Hub

        return Hub(request["cache"], **how)
    from unfreeze_trainer.sources.store import Store

    return Store(request["cache"], module, **how)


def main() -> None:
    """Do what the input asks for."""
    request = json.load(sys.stdin)
    _guard(request["parent"])
    lock = threading.Lock()
    secrets = [os.environ[name] for name in CREDENTIALS if name in os.environ]

    def say(content: Mapping[str, Any]) -> None:
        texts = {name: redacted(value, secrets) if isinstance(value, str) else value for name, value in content.items()}
        with lock:
            sys.stdout.write(json.dumps(texts) + "\n")
            sys.stdout.flush()

    code = 0
    try:
        answer(request, say)
    except Exception:  # noqa: BLE001 - for the log; who asked sees that there is no result
        sys.stderr.write(redacted(traceback.format_exc(), secrets))
        code = 1
    sys.stdout.flush()
    os._exit(code)  # threads of the client that wait for a network must not hold this process


if __name__ == "__main__":
    main()
