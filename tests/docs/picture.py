"""The picture of the rooms in docs/architecture.md, drawn from the imports: `python -m tests.docs.picture --write`."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.cluster import REPOSITORY

DOCUMENT = REPOSITORY / "docs/architecture.md"
PACKAGES = {
    "unfreeze": "python",
    "unfreeze_api": "crds",
    "unfreeze_cli": "cli",
    "unfreeze_operator": "operator",
    "unfreeze_trainer": "trainer",
}
_BLOCK = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)


def rooms() -> dict[str, set[str]]:
    """Return for each room the rooms that it imports; a room is a folder of a package, or the files beside its folders."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for package, folder in PACKAGES.items():
        root = REPOSITORY / folder / package
        for file in sorted(root.rglob("*.py")):
            module = ".".join((package, *file.relative_to(root).with_suffix("").parts))
            own = _room(module)
            found[own] |= {room for name in _imports(file) if (room := _room(name)) != own}
    return dict(found)


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in PACKAGES)


def _room(module: str) -> str:
    package, *parts = module.split(".")
    folder = REPOSITORY / PACKAGES[package] / package
    return f"{package}.{parts[0]}" if parts and (folder / parts[0]).is_dir() else package


def drawn() -> str:
    """Return the picture as Mermaid."""
    found = rooms()
    lines = ["flowchart TD"]
    for package in PACKAGES:
        lines.append(f"  subgraph {package}")
        lines += [f'    {_id(room)}["{_title(room)}"]' for room in sorted(found) if room.partition(".")[0] == package]
        lines.append("  end")
    lines += [
        f"  {_id(room)} --> {_id(other)}"
        for room in sorted(found)
        for other in sorted(found[room])
        if room.startswith("unfreeze_api") or not other.startswith("unfreeze_api")  # which all of them know
    ]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def _id(room: str) -> str:
    name = PACKAGES[room] if room == "unfreeze" else room  # a subgraph has that name
    return name.removeprefix("unfreeze_").replace(".", "_")


def _title(room: str) -> str:
    return room.partition(".")[2] or "files"


def with_picture(text: str) -> str:
    """Return the document with today's picture."""
    return _BLOCK.sub(lambda _: drawn(), text, count=1)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.docs.picture --write")
    DOCUMENT.write_text(with_picture(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
