"""Tries a scheme that is a file in each room, in a process of its own: the CRD is made of what there is at the start."""

import importlib.util
import json
import sys
from pathlib import Path

from click.testing import CliRunner

FOLDER = Path(__file__).parent


def add(package, folder):
    """Import a package with one more folder to look for files in."""
    spec = importlib.util.find_spec(package)
    spec.submodule_search_locations.append(str(folder))
    module = sys.modules[package] = importlib.util.module_from_spec(spec)
    parent, _, name = package.rpartition(".")
    setattr(sys.modules[parent], name, module)
    spec.loader.exec_module(module)


def main(file):
    add("unfreeze_api.sources", FOLDER / "api")
    add("unfreeze_trainer.sources.schemes", FOLDER / "trainer")
    from unfreeze_api import cli
    from unfreeze_api.apiserver.validate import load_job
    from unfreeze_api.generate.crd import schema
    from unfreeze_api.resolve import claims, resolve
    from unfreeze_trainer.data.samples import read_texts
    from unfreeze_trainer.errors import JobError
    from unfreeze_trainer.sources.schemes import fetch_sources

    manifest = json.loads(Path(file).read_text())
    spec = load_job(manifest).spec
    job = resolve("job", "default", spec, rendezvous_host="pod-0")
    fetch_sources(job)
    missing = job.data.train.model_copy(update={"source": "mem://none"})
    try:
        fetch_sources(job.model_copy(update={"data": job.data.model_copy(update={"train": missing})}))
    except JobError as error:
        refused = str(error)
    properties = schema()["properties"]["spec"]["properties"]
    manifest["spec"]["output"]["destination"] = "mem://words"
    Path(file).write_text(json.dumps(manifest))
    found = {
        "data": properties["data"]["properties"]["train"]["properties"]["source"],
        "model": properties["model"]["properties"]["source"],
        "claims": claims(spec),
        "path": job.data.train.path,
        "texts": read_texts(job.data.train, "spec.data.train", skip=False).inputs.to_pylist(),
        "refused": refused,
        "told": CliRunner().invoke(cli.main, ["validate", file]).output,
    }
    sys.stdout.write(json.dumps(found))


main(sys.argv[1])
