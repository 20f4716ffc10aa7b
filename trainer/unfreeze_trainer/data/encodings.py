"""Text that is not UTF-8: where it is not, what it most likely is, and how it is converted."""

from __future__ import annotations

import codecs

from unfreeze_trainer.data.packed import open_bytes
from unfreeze_trainer.errors import JobError

_READ = 1 << 20
_WIDE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_SAVE = "save it as UTF-8 (spreadsheets call it CSV UTF-8), or convert it"


def require_no_utf16(path: str, where: str) -> None:
    """Raise JobError InvalidData for a file that begins with the mark of UTF-16 or UTF-32."""
    with open_bytes(path, where) as file:
        name = _WIDE.get(file.read(2))
    if name:
        raise JobError("InvalidData", f"{where}: the file is {name}, not UTF-8: {_SAVE}: iconv -f {name} -t UTF-8")


def not_utf8(path: str, where: str) -> JobError | None:
    """Return the error about the first line of a file that is not UTF-8, None where all are."""
    line, rest = 1, b""
    with open_bytes(path, where) as file:
        while True:
            chunk = file.read(_READ)
            content = rest + chunk
            try:
                content.decode()
            except UnicodeDecodeError as error:
                line += content.count(b"\n", 0, error.start)
                if chunk and "unexpected end" in error.reason:
                    rest = content[error.start :]
                    continue
                return JobError(
                    "InvalidData",
                    f"{where}: line {line} is not UTF-8 (byte 0x{content[error.start]:02X}): the file may be Windows-1252 or Latin-1:"
                    f" {_SAVE}: iconv -f WINDOWS-1252 -t UTF-8",
                )
            if not chunk:
                return None
            line, rest = line + content.count(b"\n"), b""
