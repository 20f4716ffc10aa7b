"""Shows what becomes of the task in each room, as JSON; see `test_grown`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

ROOM = Path(__file__).parent


def grow(package: str, folder: str) -> ModuleType:
    """Import a package as if the files of a folder lay in it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.loader is not None
    assert spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(ROOM / folder))
    module = sys.modules[package] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(folder: Path) -> dict:
    grow("unfreeze_api.tasks", "api_tasks")
    grow("unfreeze_trainer.tasks", "trainer_tasks")
    import torch

    from tests.trainer.jobs import bert_folder, make_job, write_csv
    from unfreeze_api.apiserver.validate import validate
    from unfreeze_api.contracts.names import API_VERSION, KIND
    from unfreeze_api.generate import crd, reference
    from unfreeze_trainer.look import look
    from unfreeze_trainer.models import export, plain
    from unfreeze_trainer.preview import preview
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.worker import work

    torch.set_num_threads(1)
    model, table = bert_folder(folder / "bert"), write_csv(folder / "t.csv", rows=40, labels=("1", "3", "2"))
    task = {"type": "OrdinalRegression"}
    spec = {
        "model": {"source": "file:///m"},
        "data": {"train": {"source": "file:///t.csv"}},
        "strategy": {"type": "FullFineTuning"},
        "output": {"destination": "file:///run"},
    }

    def refused(**change) -> list[str]:
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}, "spec": spec | change}
        return [str(cause) for cause in validate(manifest)]

    options = crd.schema()["properties"]["spec"]["properties"]["task"]["properties"]
    training = {"epochs": 40, "batchSize": 8, "gradientAccumulationSteps": 2, "metric": "meanError"}
    rates = {"learningRate": {"head": 0.01, "backbone": 0.01}}
    job = make_job(
        model,
        table,
        task=task | {"ordinalRegression": {"maxLength": 8}},
        training=training,
        strategy=rates,
        output={"destination": f"file://{folder}/run"},
    )
    seen = {
        "crd": [options["type"]["enum"], options["ordinalRegression"]["properties"]["maxLength"]["default"]],
        "reference": "ordinalRegression" in reference.to_markdown(),
        "allowed": refused(task=task | {"ordinalRegression": {"maxLength": 8}}),
        "foreign": refused(task=task | {"textClassification": {}}),
        "look": look(job),
        "phases": preview(job).blocks["head"],
    }
    with patch.object(export, "reload", plain.plain_outputs):
        seen["code"] = int(work(job, open_task, None))
    report = json.loads((folder / "run" / "report.json").read_text())
    seen |= {"results": report["results"]["validation"], "labels": report["data"]["labels"]}
    usage = report["exports"][0]["usage"]
    seen["card"] = usage.replace(str(folder / "run" / "model"), ".") in (folder / "run/model/README.md").read_text()
    for word in ("how", "who", "what"):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(usage.replace("some text", f"{word} many of"), {})
        seen[word] = said.getvalue().strip()
    return seen


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    found = json.dumps(main(Path(sys.argv[1])))
    print(found, flush=True)
    os._exit(0)
