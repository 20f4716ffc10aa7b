"""What a base costs that the namespace's cache has, or that an image has, against one on a claim: from a pod's start to its first step, in turns.

    python -m bench.cached [ROUNDS]

A hub on this machine has MiniLM (tests/hub), a first job has fetched it. Prints JSON: median seconds by the clock and of the processor, of all
processes of the pod together, with the model at hf:// in the cache, at a path of a claim, and at oci:// where the same path stands
for what a node has mounted; the medians of the ratios of a round, and their goal; and
how many bytes came over the network, of all files and of the weights. What a job does with the cache besides: it asks the hub which commit
the branch is at and what that holds, and compares all files with their hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.job import MINILM, Watch, moment
from bench.startup import EXAMPLES, PYTHON
from examples.prepare import prepare
from tests.hub import Hub, serve
from unfreeze_api.apiserver.manifest import read
from unfreeze_api.apiserver.validate import load_job
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.resolve import resolve
from unfreeze_trainer.sources.schemes import fetch_sources, pin_sources
from unfreeze_trainer.sources.wanted import Bringing

ROUNDS, GOAL = 5, 1.05
SOURCE, WEIGHTS = "hf://org/minilm", "model.safetensors"


def main() -> None:
    """Measure and print."""
    rounds = int((sys.argv[1:] or [str(ROUNDS)])[0])
    prepare(EXAMPLES)
    with serve() as hub, tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_ENDPOINT"] = hub.url
        folder, base = Path(scratch), EXAMPLES / "models" / "minilm"
        files = {str(file.relative_to(base)): file.read_bytes() for file in base.rglob("*") if file.is_file()}
        hub.model("org/minilm", files)
        jobs = {"cached": _job(SOURCE, f"{folder}/cache/models--org--minilm/snapshots/main")}
        jobs["claim"] = _job(f"file://{base}", str(base))
        image = "oci://registry.example/minilm@sha256:" + hashlib.sha256(files[WEIGHTS]).hexdigest()
        jobs["image"] = _job(image, str(base))
        how = Bringing(cache=f"{folder}/cache")
        fetch_sources(jobs["cached"], how, pin_sources(jobs["cached"], how, {}))
        before = hub.sent.copy()
        turns = []
        for _ in range(rounds):
            turns.append({name: _first_step(job, folder) for name, job in jobs.items()})
            print(json.dumps(turns[-1]), file=sys.stderr, flush=True)
        print(json.dumps(_result(turns, hub, before), indent=1), flush=True)


def _result(turns: list[dict[str, tuple[float, float]]], hub: Hub, before: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"benchmark": "cached", "rounds": len(turns), "goal": GOAL}
    for place, what in enumerate(("seconds", "processor_s")):
        found |= {
            f"{name} {what}": round(statistics.median(turn[name][place] for turn in turns), 2) for name in turns[0]
        }
        for name in ("cached", "image"):
            found[f"{name}/claim {what}"] = round(
                statistics.median(turn[name][place] / turn["claim"][place] for turn in turns), 3
            )
    found["bytes of files"], found["bytes of weights"] = (hub.sent - before).total(), (hub.sent - before)[WEIGHTS]
    return found


def _job(source: str, path: str) -> ResolvedJob:
    """Return the job of one pod, whose model lies at a path as far as job.json knows."""
    text = MINILM.replace("MODEL", source).replace("DATA", f"file://{EXAMPLES}/data/trec-train-1000.csv")
    spec = load_job(next(iter(read(text.replace("RUN", "file:///none")))).manifest).spec
    job = resolve("bench", "default", spec, rendezvous_host="127.0.0.1")
    distribution = job.distribution.model_copy(update={"num_nodes": 1})
    return job.model_copy(update={"model": job.model.model_copy(update={"path": path}), "distribution": distribution})


def _first_step(job: ResolvedJob, folder: Path) -> tuple[float, float]:
    """Return seconds from a pod's start until its first phase begins, by the clock and of the processor."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        run, file = Path(own, "run"), Path(own, "job.json")
        output = job.output.model_copy(update={"source": f"file://{run}", "path": str(run)})
        file.write_text(job.model_copy(update={"output": output}).to_json())
        place = {
            "UNFREEZE_JOB": str(file),
            "JOB_COMPLETION_INDEX": "0",
            "POD_IP": "127.0.0.1",
            "UNFREEZE_HTTP_PORT": str(29600 + os.getpid() % 1000),
            "UNFREEZE_TERMINATION_LOG": f"{own}/termination",
            "OMP_NUM_THREADS": "1",
        }
        watch = Watch()
        with Path(own, "log").open("wb") as log:
            command = [PYTHON, "-m", "unfreeze_trainer.agent.main"]
            agent = subprocess.Popen(command, env=os.environ | place, cwd=own, stdout=log, stderr=log)
        events = run / "events.jsonl"
        while not (events.exists() and '"phase"' in events.read_text()):
            if agent.poll():
                sys.exit(Path(own, "log").read_text())
            time.sleep(0.02)
        found = watch.parts({"first step": moment(run, "phase")})
        agent.terminate()
        agent.wait()
        return found["first step"]


if __name__ == "__main__":
    main()
