"""Argo CD's health check of FineTuneJobs, run by Debian's Lua."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.cluster.cluster import REPOSITORY
from tests.debian import find

FOLDER = REPOSITORY / "operator/deploy/argocd"
PROGRAM = 'obj = {obj}\nlocal hs = dofile("{file}")\nprint(hs.status)\nprint(hs.message)\n'


def health(job: dict[str, Any]) -> tuple[str, str]:
    """Return status and message that Argo CD shows of a FineTuneJob."""
    program = PROGRAM.format(obj=_lua(job), file=FOLDER / "health.lua")
    done = subprocess.run([find("lua5.4", "lua5.4"), "-"], input=program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, _, message = done.stdout.partition("\n")
    return status, message.removesuffix("\n")


def _lua(value: Any) -> str:
    """Return a JSON value as a Lua expression."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{_lua(key)}] = {_lua(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(_lua, value)) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03d}" for byte in value.encode()) + '"'
    return "nil" if value is None else repr(value)
