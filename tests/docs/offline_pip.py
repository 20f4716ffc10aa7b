"""`pip install '.[EXTRAS]'` from the packages of the environment that the tests run in: links in place of copies.

What is linked is what pip would install: the extras' requirements and theirs, and nothing else.

    PYTHON_OF_THE_TESTS offline_pip.py ENVIRONMENT install '.[EXTRAS]'
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]
OWN = "unfreeze"


def requirements(extras: frozenset[str]) -> set[str]:
    """Return the names of all packages that Unfreeze needs with some extras, those that are not for this platform left out."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(OWN, extras)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            marks = [{"extra": extra} for extra in ("", *wanted)]
            if needed.marker is None or any(needed.marker.evaluate(mark) for mark in marks):
                try:
                    distribution(needed.name)
                except PackageNotFoundError as error:
                    raise SystemExit(f"{name} needs {needed}, which is not installed") from error
                waiting.append((needed.name, frozenset(needed.extras)))
    return {name for name, _ in seen} - {OWN}


def install(environment: Path, extras: frozenset[str]) -> None:
    """Link what is needed into an environment, and write the programs of Unfreeze."""
    [site] = environment.glob("lib/python3*/site-packages")
    for name in requirements(extras):
        package = distribution(name)
        for part in {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / part).exists():
                (site / part).symlink_to(Path(str(package.locate_file(part))).resolve())
    [metadata] = {file.parts[0] for file in distribution(OWN).files or () if ".dist-info" in file.parts[0]}
    if not (site / metadata).exists():
        (site / metadata).symlink_to(Path(str(distribution(OWN).locate_file(metadata))).resolve())
    (site / f"{OWN}.pth").write_text(
        "".join(f"{REPOSITORY / room}\n" for room in ("cli", "crds", "operator", "trainer"))
    )
    for program in entry_points(group="console_scripts"):
        if program.dist is not None and program.dist.name == OWN:
            file = environment / "bin" / program.name
            file.write_text(
                f"#!{environment}/bin/python\nfrom {program.module} import {program.attr} as main\n\nmain()\n"
            )
            file.chmod(0o755)


if __name__ == "__main__":
    folder, verb, *what = sys.argv[1:]
    if verb != "install" or len(what) != 1 or not (found := re.fullmatch(r"\.\[([\w,]+)\]", what[0])):
        sys.exit(f"only install '.[EXTRAS]' is known here, not {sys.argv[2:]}")
    install(Path(folder), frozenset(found[1].split(",")))
