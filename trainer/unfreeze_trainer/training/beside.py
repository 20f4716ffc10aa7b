"""What ranks compute in a thread, while all of them look whether they are to stop, and give news: who is silent for long is taken for one that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Waited
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine

T = TypeVar("T")
_LOOK_SECONDS = 0.5
"""From one look whether the ranks are to stop to the next."""


def on_first(engine: Engine, name: str, work: Callable[[], T], look: Callable[[], None]) -> Future[T]:
    """Return what rank 0 computes, once it is done; on the others a future that is never done. Collective.

    Parameters
    ----------
    engine
        Of the ranks.
    name
        Of the thread.
    work
        Is called on rank 0; what it raises is raised by the future's result().
    look
        Is called on all ranks meanwhile, as often on each; may raise, on every rank.
    """
    done: Future[T] = Future()
    if engine.rank == 0:
        threading.Thread(target=_compute, args=(work, done), name=name, daemon=True).start()
    while not engine.any_rank(engine.rank == 0 and _is_done(done)):
        look()
    return done


def on_each(engine: Engine, name: str, work: Callable[[], T], look: Callable[[], None]) -> T:
    """Return what each rank computes, once all have. Parameters as of `on_first`. Collective."""
    done: Future[T] = Future()
    threading.Thread(target=_compute, args=(work, done), name=name, daemon=True).start()
    while engine.any_rank(not _is_done(done)):
        look()
    return done.result()


def _compute(work: Callable[[], T], done: Future[T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits
        done.set_exception(error)


def _is_done(done: Future[T]) -> bool:
    try:
        done.exception(_LOOK_SECONDS)
    except Waited:
        return False
    return True
