"""Shows what the rooms make of the task, as JSON: `python seen.py FOLDER`, where its job and its run lie."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import yaml

from tests.crds import of_tasks
from unfreeze_api.apiserver.validate import validate
from unfreeze_api.generate import crd, reference
from unfreeze_api.resolve import resolve
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.commands.preview import preview


def answer(lines: str, text: str) -> str:
    """Return what the lines that people are shown print of a text."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(lines.replace("some text", text), {})
    return said.getvalue().strip()


def main(folder: Path) -> dict:
    options = crd.schema()["properties"]["spec"]["properties"]["task"]["properties"]
    manifest = yaml.safe_load((folder / "job.yaml").read_text())
    spec = manifest["spec"]
    job = resolve("grades", "default", FineTuneJobSpec.model_validate(spec), rendezvous_host="localhost")
    foreign = manifest | {"spec": spec | {"task": spec["task"] | {"textClassification": {}}}}
    [export] = json.loads((folder / "run" / "report.json").read_text())["exports"]
    return {
        "crd": [options["type"]["enum"], options["ordinalRegression"]["properties"]["maxLength"]["default"]],
        "reference": "ordinalRegression" in reference.to_markdown(),
        "allowed": [str(cause) for cause in validate(manifest)],
        "foreign": [str(cause) for cause in validate(foreign)],
        "corpus": [name for name in (*of_tasks.good(), *of_tasks.bad()) if "OrdinalRegression" in name],
        "wrong": of_tasks.wrong(),
        "look": look(job),
        "head": preview(job).blocks["head"],
        "usage": export["usage"],
        "answers": {word: answer(export["usage"], f"{word} many of") for word in ("how", "who", "what")},
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
