"""How well a job knows when its training ends: what it says after 5 % of its steps, beside how long the rest takes.

    python -m bench.ends FOLDER [EXAMPLE...]

Runs examples (paths below examples/) by `unfreeze run`, and reads the progress that each shows while it trains. One row an example is kept in
bench/results/ends.jsonl: what was said to be left in seconds, what was left until the training ended, and until all was exported. One that stands there
is not run again; of a job that trains too shortly to say anything it has the time of the whole job. FOLDER is as `python -m examples.prepare FOLDER` leaves it with its sets trec and images, which is done here. Nothing is kept from one job to the next. Time in which this program and what it has started were held still does not count.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.support.outcomes import ROOT, record
from examples.prepare import prepare, prepare_images

NEAR = 0.2
"""Share of the time that is left by which it may be off."""
SHARE = 0.05
"""Of the steps, after which it should know."""
EXAMPLES = (
    "trec-minilm.yaml",
    "trec-minilm-scratch.yaml",
    "strategies/feature-extraction.yaml",
    "strategies/bitfit.yaml",
    "strategies/partial-fine-tuning.yaml",
    "strategies/gradual-unfreezing.yaml",
    "strategies/linear-probe-then-fine-tune.yaml",
    "strategies/full-fine-tuning.yaml",
    "adapters/lora.yaml",
    "tasks/image-classification.yaml",
)
_LOOK_SECONDS = 0.05
_HELD_SECONDS = 1.0
"""From one look to the next, where somebody has held this program still."""


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    prepare_images(folder)
    rows = [record("ends", name, lambda name=name: watched(folder, name)) for name in sys.argv[2:] or EXAMPLES]  # type: ignore[misc]
    told = [row for row in rows if "error" in row]
    near = sum(abs(row["error"]) <= NEAR or abs(row["said"] - row["left"]) < 1 for row in told)  # it is said in seconds
    print(
        f"{near} of {len(told)} within {NEAR:.0%} of the time to the end, after {SHARE:.0%} of the steps; {len(rows) - len(told)} too short"
    )


def watched(folder: Path, name: str) -> dict[str, Any]:
    """Run an example, and return what it said and what came."""
    place = folder / "ends"
    shutil.rmtree(place, ignore_errors=True)
    (place / "tmp").mkdir(parents=True)
    command = [sys.executable, "-c", "from unfreeze_api.cli import main; main()", "run", str(ROOT / "examples" / name)]
    command += ["--claims", str(folder), "--output", str(place / "run")]
    process = subprocess.Popen(
        command,
        env=os.environ | {"TMPDIR": str(place / "tmp"), "XDG_CACHE_HOME": str(place / "cache")},
        stdout=sys.stderr,
    )
    clock, last = 0.0, time.monotonic()
    said: dict[str, Any] = {}
    at = trained = None
    while process.poll() is None:
        time.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        clock, last = clock + (now - last if now - last < _HELD_SECONDS else 0.0), now
        shown = _progress(place / "tmp")
        if at is None and shown.get("etaSeconds") is not None and _begun(shown):
            at, said = clock, shown
        if at is not None and trained is None and shown.get("state") in ("Exporting", "Done"):
            trained = clock
    if process.returncode:
        raise RuntimeError(f"{name} has ended with code {process.returncode}")
    if at is None or trained is None:  # it trains for a second or two
        return {"wholeJob": round(clock, 1)}
    left = trained - at
    return {
        "step": said["step"], "steps": said["totalSteps"], "said": said["etaSeconds"], "left": round(left, 1),
        "leftWithExport": round(clock - at, 1), "error": round(said["etaSeconds"] / left - 1, 3),
    }  # fmt: skip


def _begun(shown: dict[str, Any]) -> bool:
    return int(shown["step"]) >= math.ceil(SHARE * int(shown["totalSteps"]))


def _progress(folder: Path) -> dict[str, Any]:
    """Return the newest progress of the first pod; nothing before there is any."""
    for file in sorted(folder.glob("**/progress.json")):
        try:
            found: dict[str, Any] = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        return found
    return {}


if __name__ == "__main__":
    main()
