"""Start-up of each entry point against its bare imports: what our own code adds before it is ready.

    python -m bench.startup [ROUNDS]

Prints JSON: median seconds of both, taken in turns, and their ratio; `floor` is Python itself.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from examples.prepare import prepare

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
BIN = Path(PYTHON).parent
MANIFEST = ROOT / "examples" / "trec-minilm.yaml"
EXAMPLES = ROOT / ".demo"


def seconds(*command: str | Path) -> float:
    """Return how long a command takes."""
    began = time.perf_counter()
    subprocess.run(
        [str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    return time.perf_counter() - began


def imports(text: str) -> Callable[[], float]:
    """Return a measurement of a Python that only imports."""
    return lambda: seconds(PYTHON, "-c", text)


def agent_until_healthy() -> float:
    """Return how long the agent takes until it answers /healthz; its workers are not waited for."""
    port = 29600 + os.getpid() % 1000
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "UNFREEZE_JOB": f"{folder}/job.json",
            "POD_IP": "127.0.0.1",
            "JOB_COMPLETION_INDEX": "1",  # waits for pod 0, so that it stays until it is ended here
            "UNFREEZE_HTTP_PORT": str(port),
            "UNFREEZE_TERMINATION_LOG": f"{folder}/termination",
        }
        Path(folder, "job.json").write_text(_job(Path(folder, "run")))
        began = time.perf_counter()
        with subprocess.Popen(
            [BIN / "unfreeze-trainer"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as agent:
            while not _answers(f"http://127.0.0.1:{port}/healthz"):
                time.sleep(0.002)
            taken = time.perf_counter() - began
            agent.kill()
    return taken


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own http address
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


_BARE_WORKER = """
import torch, accelerate, pyarrow
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained({folder!r}, num_labels=6)
AutoTokenizer.from_pretrained({folder!r})
torch.optim.AdamW(model.parameters())
"""


def worker_until_training() -> float:
    """Return how long a worker takes until its first phase begins: imports, data, model, engine, optimizer."""
    with tempfile.TemporaryDirectory() as folder:
        run, job = Path(folder, "run"), Path(folder, "job.json")
        job.write_text(_job(run))
        environment = os.environ | {"UNFREEZE_JOB": str(job), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        events = run / "events.jsonl"
        began = time.perf_counter()
        command = [PYTHON, "-m", "unfreeze_trainer.worker"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
            while not (events.exists() and '"phase"' in events.read_text()):
                time.sleep(0.002)
            taken = time.perf_counter() - began
            worker.kill()
    return taken


def bare_worker() -> float:
    """Return how long a Python takes that imports the same libraries and loads the same model."""
    return seconds(PYTHON, "-c", _BARE_WORKER.format(folder=str(EXAMPLES / "models" / "minilm")))


def _job(run: Path) -> str:
    from unfreeze_api.apiserver.manifest import read
    from unfreeze_api.apiserver.validate import load_job
    from unfreeze_api.resolve import resolve

    text = MANIFEST.read_text().replace("pvc://results/trec-minilm", f"file://{run}")
    text = text.replace("pvc://", f"file://{EXAMPLES}/").replace("numNodes: 2", "numNodes: 1")
    job = load_job(next(iter(read(text))).manifest)
    return resolve("bench", "default", job.spec, rendezvous_host="127.0.0.1").to_json()


ENTRY_POINTS: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
    "unfreeze validate": (
        lambda: seconds(BIN / "unfreeze", "validate", MANIFEST),
        imports("import click, yaml, cel_expr_python; from pydantic import BaseModel"),
    ),
    "unfreeze-operator --help": (
        lambda: seconds(BIN / "unfreeze-operator", "--help"),
        imports("import kopf, kubernetes, aiohttp, prometheus_client; from pydantic import BaseModel"),
    ),
    "unfreeze-trainer until /healthz": (
        agent_until_healthy,
        imports("import http.server; from pydantic import BaseModel"),
    ),
    "worker until training": (worker_until_training, bare_worker),
}


def main() -> None:
    """Measure and print."""
    prepare(EXAMPLES)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    result: dict[str, object] = {
        "benchmark": "startup",
        "floor_s": round(min(seconds(PYTHON, "-c", "") for _ in range(rounds)), 3),
    }
    for name, (entry, bare) in ENTRY_POINTS.items():
        entry(), bare()  # files come into the page cache
        pairs = [(entry(), bare()) for _ in range(rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        result[name] = {"seconds": round(ours, 3), "bare_imports_s": round(theirs, 3), "ratio": round(ours / theirs, 2)}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
