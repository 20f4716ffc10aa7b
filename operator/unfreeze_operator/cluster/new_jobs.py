"""Among many new jobs pods come first: what is said of one waits until those of all are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from unfreeze_operator.objects.resources import Key
from unfreeze_operator.objects.views import PodView


class NewJobs:
    """The jobs that have no status yet, and which of them still wait for their pods.

    A status costs the API server as much as three children. While it is busy with pods, the first ones, which say that
    these wait for a node, would only hold up the pods of other jobs.

    Parameters
    ----------
    wake
        Asks for a job to be looked at.
    is_new
        Tells whether a job waits for its children, and nothing was said of it yet.
    pods
        Returns the pods of a job.
    longest
        For how many seconds at most others wait for the pods of a job.
    clock
        Seconds that never go back.
    """

    def __init__(
        self,
        wake: Callable[[Key], None],
        *,
        is_new: Callable[[Key], bool],
        pods: Callable[[Key], Sequence[PodView]],
        longest: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wake, self._is_new, self._pods, self._longest, self._clock = wake, is_new, pods, longest, clock
        self._unmade: dict[Key, float] = {}
        """Jobs whose pods are not all made, and until when others wait for that; oldest first."""
        self._unsaid: dict[Key, int] = {}
        """Jobs whose first status waits, and for how many pods."""

    @property
    def busy(self) -> bool:
        """Whether pods of any new job are to be made."""
        while self._unmade:
            key, until = next(iter(self._unmade.items()))
            if until > self._clock():
                return True
            del self._unmade[key]
        return False

    def take_note(self, key: Key) -> bool:
        """Whether a job that is to be looked at is a new one, whose children come before what is said of others."""
        new = self._is_new(key)
        if new:
            self._unmade.setdefault(key, self._clock() + self._longest)
        return new

    def wait(self, key: Key, nodes: int) -> None:
        """Note that a job's first status waits for the scheduler's word on so many pods, or for other jobs' pods."""
        self._unsaid.pop(key, None)  # it is looked at just now, and need not be woken
        if len(self._pods(key)) >= nodes:
            self._made(key)
        self._unsaid[key] = nodes

    def done(self, key: Key) -> None:
        """Note that something is said of a job, or that it is gone."""
        self._unsaid.pop(key, None)
        self._made(key)

    def pods_changed(self, key: Key) -> None:
        """Have a job looked at, unless nothing is to be said of it yet."""
        nodes = self._unsaid.get(key)
        if nodes is None:
            self._wake(key)
            return
        if len(self._pods(key)) >= nodes:
            self._made(key)
        if self._tells(key):
            self._wake(key)

    def _made(self, key: Key) -> None:
        if self._unmade.pop(key, None) is not None and not self.busy:
            for waiting in [other for other in self._unsaid if self._tells(other)]:
                self._wake(waiting)

    def _tells(self, key: Key) -> bool:
        """Whether there is more to say of a job than that the scheduler has not looked at all of its pods."""
        pods = self._pods(key)
        if any(pod.phase != "Pending" for pod in pods):
            return True
        return not self.busy and sum(pod.scheduler_knows for pod in pods) >= self._unsaid[key]
