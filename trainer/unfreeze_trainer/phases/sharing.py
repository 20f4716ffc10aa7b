"""Which phases share a cut: a lower one that several read costs more in each step, and has to be filled once only. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def shared_cuts(shares: Sequence[float | None], reads: Sequence[float], *, fewest: float) -> list[int]:
    """Return for each phase that of the phases whose cut it takes: its own or one that follows, as spares the most work.

    Parameters
    ----------
    shares
        By phase, what of a forward pass lies below its cut; None where it has none, or none to share.
    reads
        By phase, how often it reads each training sample.
    fewest
        Reads from which on it is worth to compute what lies below a cut once: fewer are not spared anything.

    Notes
    -----
    Phases that follow each other and read a cut r times in all are spared r - 1 times what lies below the lowest of their cuts.
    Of ways that spare as much the one with more cuts is taken.
    """
    count = len(shares)
    # What is spared from each phase on, and which one the next cut begins with.
    best: list[tuple[float, int]] = [(0.0, count)] * (count + 1)
    for first in reversed(range(count)):
        options = []
        total = 0.0
        for last in range(first, count):
            share, total = shares[last], total + reads[last]
            if last > first and (share is None or shares[first] is None):
                break
            spared = share * (total - 1) if share and total >= fewest else 0.0
            options.append((spared + best[last + 1][0], last + 1))
        best[first] = max(options, key=lambda option: (round(option[0], 9), -option[1]))
    takes: list[int] = []
    while len(takes) < count:
        end = best[len(takes)][1]
        takes += [end - 1] * (end - len(takes))
    return takes
