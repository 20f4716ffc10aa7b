"""The documents of the repository, taken apart: links, headings, blocks of code."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.cluster.cluster import REPOSITORY
from unfreeze_api.generate.reference import slug

FILES = sorted(
    [
        REPOSITORY / "README.md",
        *(file for room in ("docs", "examples", "tests", "charts") for file in (REPOSITORY / room).rglob("*.md")),
    ]
)


@dataclass(frozen=True)
class Block:
    """A block of code."""

    file: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(REPOSITORY)}:{self.line}"


@functools.cache
def _tokens(file: Path) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(file.read_text(encoding="utf-8"))


def links(file: Path) -> list[str]:
    """Return the targets of a document's links."""
    inline = [child for token in _tokens(file) for child in token.children or ()]
    return [str(child.attrGet("href")) for child in inline if child.type == "link_open"]


@functools.cache
def anchors(file: Path) -> set[str]:
    """Return the anchors of a document's headings; the reference alone has hundreds of links to its own."""
    tokens = _tokens(file)
    titles = [inline.content for opening, inline in pairwise(tokens) if opening.type == "heading_open"]
    return {slug(title.replace("`", "")) for title in titles}


def blocks() -> Iterator[Block]:
    """Yield every block of code of every document."""
    for file in FILES:
        for token in _tokens(file):
            if token.type == "fence":
                yield Block(file, (token.map or [0])[0] + 1, token.info.strip(), token.content)
