"""`make demo`: from kubectl apply to a fine-tuned model, on a control plane and two nodes of this machine.

Everything is real but the containers, which are processes of this machine: the API server, the scheduler, the operator
installed by its manifests, the weights and the data. The job is examples/trec-minilm.yaml; others run the same way:

    .venv/bin/python -m examples.demo examples/tasks/text-classification.yaml examples/adapters/lora.yaml
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from examples.prepare import prepare, prepare_images
from tests.cluster.cluster import Cluster
from tests.cluster.config import Config, Image

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / ".demo"
JOB = "examples/trec-minilm.yaml"
FROZEN = "examples/strategies/feature-extraction.yaml"
SCRATCH = "examples/trec-minilm-scratch.yaml"
TERMINAL = ("Succeeded", "Failed")
console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run the demo, or the jobs that are named; exit status 1 when one fails."""
    started = time.monotonic()
    manifests = sys.argv[1:]
    with _step("Weights and data, from their packages"):
        prepare(FOLDER)
        if manifests:
            prepare_images(FOLDER)
    programs = Image(path=(str(Path(sys.executable).parent),), folders=(str(REPOSITORY),))
    with Cluster(Config(nodes=2, images={"*": programs})) as cluster:
        with _step("Operator, installed as on any cluster"):
            install(cluster)
            volumes(cluster, FOLDER)
        for manifest in manifests:
            explain(run(cluster, manifest))
        if not manifests:
            status = run(cluster, JOB)
            console.print(
                "\nFeature extraction, the cheapest strategy, to see what the pretrained model knows already:"
            )
            frozen = run(cluster, FROZEN)
            console.print("\nThe same recipe from random weights, to see what the pretrained ones are worth:")
            scratch = run(cluster, SCRATCH)
    if not manifests:
        explain(status)
        compare(status, frozen, scratch)
    console.print(f"\nThe demo took {time.monotonic() - started:.0f} s.")


def install(cluster: Cluster) -> None:
    """Apply CRD and operator, and wait until the operator is ready."""
    cluster.kubectl("apply", "--server-side", "-k", str(REPOSITORY / "operator" / "deploy"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/finetunejobs.unfreeze.dev", "--timeout=60s")
    cluster.kubectl("-n", "unfreeze-system", "rollout", "status", "deployment/unfreeze-operator", "--timeout=120s")


def volumes(cluster: Cluster, folder: Path, namespace: str = "default") -> None:
    """Make the claims of examples/volumes.yaml, on FOLDER/models, FOLDER/data and FOLDER/results."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    results.chmod(0o777)  # the trainer runs as a user of its own
    for name in ("models", "data", "results"):
        cluster.kubectl("apply", "-f", "-", stdin=_persistent_volume(name, folder / name, namespace))
    cluster.kubectl("-n", namespace, "apply", "-f", str(REPOSITORY / "examples" / "volumes.yaml"))


def _persistent_volume(name: str, path: Path, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany" if name == "results" else "ReadOnlyMany"],
            "hostPath": {"path": str(path)},
            "claimRef": {"name": name, "namespace": namespace},
            "storageClassName": "",
        },
    }


def run(cluster: Cluster, manifest: str) -> dict[str, Any]:
    """Apply a job, show its progress until it ends, and return its status."""
    console.print(f"\n$ kubectl apply -f {manifest}")
    name = yaml.safe_load((REPOSITORY / manifest).read_text())["metadata"]["name"]
    _clear(FOLDER / "results" / name)
    console.print(cluster.kubectl("apply", "-f", str(REPOSITORY / manifest)).strip())
    shown = ""
    while True:
        job = json.loads(cluster.kubectl("get", "ftj", name, "-o", "json"))
        status = job.get("status", {})
        ended = status.get("phase") in TERMINAL
        if console.is_terminal:  # one line that moves
            console.file.write(f"\r\x1b[2K{progress_line(status)}")
            console.file.flush()
        elif ended or _mark(status) != shown:  # a line now and then
            console.print(progress_line(status))
            shown = _mark(status)
        if ended:
            break
        time.sleep(0.5)
    console.print("\n" if console.is_terminal else "", end="")
    if status["phase"] == "Failed":
        console.print(f"The job failed: {json.dumps(status.get('failure'), indent=2)}")
        sys.exit(1)
    console.print("$ kubectl get ftj")
    console.print(cluster.kubectl("get", "ftj").strip())
    return status


def _mark(status: dict[str, Any]) -> str:
    """Return what a log should not show twice: the state, the phase, the tenth of the way."""
    progress = status.get("progress", {})
    return f"{status.get('phase')} {progress.get('phaseName')} {progress.get('percent', 0) // 10}"


def progress_line(status: dict[str, Any]) -> str:
    """Return the state of a job in one line."""
    progress = status.get("progress", {})
    words = [f"{status.get('phase', 'Created'):<9}"]
    if nodes := status.get("nodes"):
        words.append(f"{nodes.get('ready', 0)}/{nodes.get('desired', 0)} nodes")
    if progress.get("totalSteps"):
        words.append(f"{progress['percent']:>3} %")
        words.append(f"phase {progress['phaseIndex'] + 1}/{progress['phaseCount']} {progress.get('phaseName', '')}")
        words.append(f"step {progress['step']}/{progress['totalSteps']}")
    if (loss := progress.get("loss")) is not None:
        words.append(f"loss {loss:.3f}")
    words += [text for text in (status.get("summary", {}).get("metric"),) if text]
    if eta := status.get("summary", {}).get("eta"):
        words.append(f"{eta} left")
    return "  ".join(words)


def explain(status: dict[str, Any]) -> None:
    """Print what each phase did."""
    metric = status.get("summary", {}).get("metric", "").partition(" ")[0]
    phases = Table("phase", "trainable parameters", "steps", "time", f"validation {metric}", title="\nPhases")
    for phase in status["phases"]:
        value = phase.get("metrics", {}).get(metric)
        phases.add_row(
            phase["name"],
            f"{phase['trainableParameters']:,}",
            str(phase["steps"]),
            f"{phase['seconds']:.0f} s",
            "" if value is None else f"{value:.3f}",
        )
    console.print(phases)


def compare(status: dict[str, Any], frozen: dict[str, Any], scratch: dict[str, Any]) -> None:
    """Print what transfer was worth, and how to load the model."""
    worth = Table("model", "test accuracy", title="\nWas transfer worth it? (1,000 labelled questions)")
    worth.add_row("MiniLM, unfrozen from the top: this job", f"{status['results']['test.accuracy']:.3f}")
    worth.add_row("MiniLM, frozen: feature extraction", f"{frozen['results']['test.accuracy']:.3f}")
    worth.add_row("MiniLM, random weights, the job's recipe", f"{scratch['results']['test.accuracy']:.3f}")
    worth.add_row("TF-IDF + logistic regression", f"{tfidf_accuracy(FOLDER / 'data'):.3f}")
    console.print(worth)
    model = FOLDER / "results" / "trec-minilm" / "model"
    place = model.relative_to(REPOSITORY)
    lines = (
        "from runpy import run_path",
        f"classify = run_path('{place}/pooled.py')['classifier']('{place}')",
        "print(classify('How far is it from Denver to Aspen ?'))",
    )
    page = model.with_name("report.html")
    console.print(f"\nWhat it is worth, on one page for a browser: {page.relative_to(REPOSITORY)}")
    console.print(f"\nThe model lies in {model.relative_to(REPOSITORY)}. To load it, in {sys.executable}:\n")
    console.print("\n".join(f"    {line}" for line in lines))
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if result.returncode:
        console.print(result.stderr)
        sys.exit("the exported model does not load")
    console.print(f"\nwhich prints\n\n    {result.stdout.strip()}")


def tfidf_accuracy(data: Path) -> float:
    """Return the test accuracy of TF-IDF and logistic regression on the same 1,000 questions."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def read(name: str) -> tuple[list[str], list[str]]:
        with (data / name).open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [row["question"] for row in rows], [row["label"] for row in rows]

    classifier = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000))
    classifier.fit(*read("trec-train-1000.csv"))
    return float(classifier.score(*read("trec-test.csv")))


def _clear(folder: Path) -> None:
    """Remove the run of an earlier demo, which would otherwise be found finished."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _step(what: str) -> Iterator[None]:
    started = time.monotonic()
    console.print(f"{what} ...", end=" ")
    yield
    console.print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
