"""A copy of the API in which every model has more fields: unset, with a default, and a member with defaults of its own."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
_FIELDS = """\
    planted_unset: int | None = None
    planted: float = 0.25
    planted_names: list[str] = ["a"]
    planted_member: PlantedSpec = PlantedSpec(of_another_default=5)
"""
_MEMBER = '''

class PlantedSpec(Model):
    """Planted."""

    unset: str | None = None
    of_another_default: int = 4

'''
_PROGRAM = """
import json, sys
from tests.crds.corpus import load, patched
from unfreeze_api.resolve import resolve
from unfreeze_api.apiserver.validate import load_job

cases = {}
for case in load("good.yaml"):
    spec = load_job(patched(patched(load("base.yaml"), case["patch"]), json.loads(sys.argv[1]))).spec
    job = resolve("job", "default", spec, rendezvous_host="host")
    cases[case["name"]] = {"fingerprints": job.fingerprints(), "json": job.to_json(indent=1)}
print(json.dumps(cases))
"""


def plant(folder: Path) -> Path:
    """Copy the API into a folder with more fields in every model; return what belongs on the PYTHONPATH."""
    package = folder / "unfreeze_api"
    shutil.copytree(REPOSITORY / "crds" / "unfreeze_api", package, ignore=shutil.ignore_patterns("__pycache__"))
    models = {"Model"}
    sources = {path: path.read_text() for path in package.rglob("*.py")}
    for path, source in sources.items():
        lines, classes = source.splitlines(keepends=True), _models(source, models)
        for last in sorted((node.body[0].end_lineno for node in classes), reverse=True):
            lines.insert(last, "\n" + _FIELDS)
        if classes:
            first = min(node.lineno for node in classes)
            lines.insert(first - 1, _MEMBER)
        path.write_text("".join(lines))
    return folder


def _models(source: str, known: set[str]) -> list[Any]:
    """Return the classes of a module that are models of its own or of other modules, in their order."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id in known for base in node.bases
        ):
            found.append(node)
            known = known | {node.name}
    return found


def resolved_cases(path: Path, patch: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return fingerprints and job.json of every good case of the corpus, as the API on that path resolves them."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(path), str(REPOSITORY)))}
    command = [sys.executable, "-c", _PROGRAM, json.dumps(patch or {})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=path)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
