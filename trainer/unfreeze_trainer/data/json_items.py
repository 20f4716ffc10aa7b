"""The rows of a file of JSON: an object on each line, or, where it ends in .json, the items of one list."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from unfreeze_trainer.data.packed import open_bytes
from unfreeze_trainer.data.suffixes import suffixes
from unfreeze_trainer.errors import JobError, quoted

MAX_ITEM = 16 << 20
"""Characters of the longest line or item: as lists of nothing these take 24 times as many bytes once they are read."""
_READ = 1 << 20
_BLANK = " \t\n\r"
Noun = Literal["line", "item"]


@contextmanager
def open_items(path: str, where: str, errors: str = "strict") -> Iterator[tuple[Noun, Iterator[str]]]:
    """Open a file of JSON, unpacked where it is compressed; give what a row is called in it, and the text of each.

    Parameters
    ----------
    path
        Where its suffix is .json and it begins with a bracket its rows are the items of that list, else its lines.
    where
        What messages start with.
    errors
        What becomes of bytes that are not UTF-8, as of `open`.

    Raises
    ------
    JobError
        InvalidData, also while it is read: as of `open_bytes`, a row that is too long, or a list that is none.
    """
    with io.TextIOWrapper(open_bytes(path, where), encoding="utf-8-sig", errors=errors) as file:
        if suffixes(path)[0] != ".json":
            yield "line", _rows(_lines(file, "", where))
            return
        begin = file.read(_READ)
        while begin.isspace() and (more := file.read(_READ)):
            begin = more
        if begin.lstrip(_BLANK).startswith("["):
            yield "item", iter(_Items(file, begin.lstrip(_BLANK)[1:], where))
        else:
            yield "line", _rows(_lines(file, begin, where))


def _lines(file: io.TextIOWrapper, begin: str, where: str) -> Iterator[str]:
    """Yield the lines of a text whose begin has been read already."""
    *whole, rest = begin.split("\n")
    number = 0
    for line in whole:
        number += 1
        yield f"{line}\n"
    while line := rest + file.readline(MAX_ITEM - len(rest)):
        number, rest = number + 1, ""
        if len(line) == MAX_ITEM and not line.endswith("\n"):
            raise JobError(
                "InvalidData",
                f"{where}: line {number} is longer than {MAX_ITEM >> 20} Mi characters; write one object a line (docs/conversions.md)",
            )
        yield line


def _rows(lines: Iterator[str]) -> Iterator[str]:
    """Yield lines but for blank ones at the end, which are no rows."""
    blank = 0
    for line in lines:
        if line.isspace():
            blank += 1
            continue
        for _ in range(blank):
            yield "\n"
        blank = 0
        yield line


class _Items:
    """The items of a list whose bracket has been read; what comes after one that is broken cannot be told apart."""

    def __init__(self, file: io.TextIOWrapper, text: str, where: str) -> None:
        self._file, self._text, self._where = file, text, where
        self._place = 0
        self._decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[str]:
        number = 0
        while self._sign() != "]":
            if number:
                self._pass_comma(number)
            number += 1
            yield self._item(number)
        self._place += 1
        if self._sign():
            raise self._broken(f"something stands behind the list: {self._shown(60)}")

    def _sign(self) -> str:
        """Go past blanks to the next sign and return it, "" at the end of the file."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _BLANK:
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            self._text, self._place = self._file.read(_READ), 0
            if not self._text:
                return ""

    def _pass_comma(self, number: int) -> None:
        sign = self._sign()
        if not sign:
            raise self._broken(f"the list breaks off after item {number}")
        if sign != ",":
            raise self._broken(f"a comma or the end of the list should come after item {number}: {self._shown(60)}")
        self._place += 1
        self._sign()

    def _item(self, number: int) -> str:
        """Return the text of the next item, of which more is read until it is whole."""
        while True:
            begin = self._place
            try:
                self._place = self._decoder.raw_decode(self._text, begin)[1]
            except (ValueError, RecursionError) as error:
                held = len(self._text) - begin
                more = "" if held > MAX_ITEM else self._file.read(max(_READ, held))
                if not more:
                    raise self._broken(
                        f"item {number} is not JSON: {getattr(error, 'msg', error)}: {self._shown(120)}"
                    ) from error
                self._text, self._place = self._text[begin:] + more, 0
            else:
                return self._text[begin : self._place]

    def _shown(self, most: int) -> str:
        return quoted(repr(self._text[self._place : self._place + most]))

    def _broken(self, what: str) -> JobError:
        return JobError(
            "InvalidData",
            f"{self._where}: {what}; correct the list, or write one object a line into a file that ends in .jsonl",
        )
