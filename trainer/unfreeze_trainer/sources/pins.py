"""Pins of what is brought over the network: the commit, and each file with size and hash, before anything of it is used."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, Field, field_validator

MAX_FILES = 100_000
"""Files of one source."""
_NAME_BYTES = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_BLOCK = 1 << 20


class PinnedFile(BaseModel):
    """What a file must be."""

    size: int = Field(ge=0)
    """Bytes."""
    hash: str = Field(pattern="^(sha256:[0-9a-f]{64}|git:[0-9a-f]{40})$")
    """SHA-256 of the content, or git's name of a blob of it."""
    etag: str | None = None
    """What an object store called this state of it, for people."""

    def is_at(self, path: Path) -> bool:
        """Return whether a file has this size."""
        try:
            return path.is_file() and path.stat().st_size == self.size
        except OSError:
            return False

    def matches(self, path: Path) -> bool:
        """Return whether a file has this size and hash; it is read to its end."""
        if not self.is_at(path):
            return False
        kind, _, wanted = self.hash.partition(":")
        digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if kind == "git":
            digest.update(f"blob {self.size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest() == wanted


class Pin(BaseModel):
    """What a source stands for."""

    revision: str = Field(pattern="^[0-9a-f]{40}$")
    """Full commit; of an object store, a name of the listing."""
    files: dict[str, PinnedFile] = Field(max_length=MAX_FILES)
    """What is read of it, by path below its root."""

    @field_validator("files")
    @classmethod
    def _names(cls, files: dict[str, PinnedFile]) -> dict[str, PinnedFile]:
        if bad := next((name for name in files if not is_plain(name)), None):
            raise ValueError(f"{bad!r} is no path below a folder")
        return files

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def is_plain(name: str) -> bool:
    """Return whether a name of a listing stays below the folder that it is put into."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and "/".join(parts) == name
        and not name.startswith("/")
        and ".." not in parts
        and not _CONTROL.search(name)
        and len(name.encode(errors="replace")) <= _NAME_BYTES
    )


def pins_to_json(pins: Mapping[str, Pin]) -> str:
    """Return pins as JSON, for another process."""
    return json.dumps({source: pin.model_dump(exclude_none=True) for source, pin in pins.items()})


def pins_from_json(text: str | bytes) -> dict[str, Pin]:
    """Return pins from JSON; ValueError if it is none."""
    return {source: Pin.model_validate(pin) for source, pin in json.loads(text).items()}
