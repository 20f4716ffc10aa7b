"""Which samples of a batch share a row, and how long rows are. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from unfreeze_trainer.data.dialogue_tokens import padded_length

ROW = 512
"""Tokens up to which rows may be longer than a sample of a job may be, where its model takes as many."""
_ROWS, _SLACK = 16, 1.04
"""Numbers of rows that are tried, beside rows as long as the longest sample; and room beyond what they hold at least."""
_AS_LINEAR = 4096
"""Tokens of a row at which its attention computes as much as all else: about six times the width of a decoder (Kaplan et al. 2020,
arXiv 2001.08361), here of a small one."""


def packed(lengths: Sequence[int], most: int) -> tuple[list[list[int]], int]:
    """Return which samples share a row, by their places, and how long all rows are, so that the model computes least.

    Longer rows have less padding, and attention of which most is masked.

    Parameters
    ----------
    lengths
        Tokens of each sample.
    most
        Tokens of a row at most, unless a sample is longer.
    """
    longest, total = max(lengths), sum(lengths)
    tried = {longest, *(max(longest, min(int(total / rows * _SLACK) + 1, most)) for rows in range(1, _ROWS + 1))}
    found = []
    for room in sorted(tried):
        rows = packed_rows(lengths, room)
        width = padded_length([sum(lengths[place] for place in row) for row in rows], most)
        found.append((len(rows) * width * (1 + width / _AS_LINEAR), width, rows))
    _, width, rows = min(found)
    return rows, width


def packed_rows(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Return which samples share a row of so many tokens, by their places: the longest first, each into the first row with room.

    First-fit decreasing needs at most 11/9 of the fewest rows possible, and less than one more (Johnson 1973).
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        row = next((row for row, left in enumerate(room) if left >= lengths[place]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(place)
        room[row] -= lengths[place]
    return rows
