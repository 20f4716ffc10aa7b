"""Where the time of a whole job goes, from `unfreeze run` to its end and from its pods' start to the first step; against another build.

    python -m bench.job [ROUNDS [FOLDER]]

FOLDER is a checkout of the other build, which runs on the same libraries, in turns with this one. Prints JSON: for each part the
median seconds by the clock and of the processor, of all processes together, and the medians of the ratios between the builds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from bench.startup import EXAMPLES, PYTHON, ROOT
from examples.prepare import prepare

Parts = dict[str, tuple[float, float]]
"""For each part its seconds by the clock, and of the processor."""
_TICK = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.03
_RUN = """
import sys, tomllib
from importlib import import_module
from pathlib import Path
points = tomllib.loads(Path(sys.argv[1], "pyproject.toml").read_text())["project"]["entry-points"]["unfreeze.commands"]
module, _, name = points["run"].partition(":")
getattr(import_module(module), name)(sys.argv[2:])
"""
RESOLVE = """
import sys
from pathlib import Path
try:
    from unfreeze_api.apiserver.manifest import read
    from unfreeze_api.apiserver.validate import load_job
except ImportError:  # an older build
    from unfreeze_api.manifest import read
    from unfreeze_api.validate import load_job
from unfreeze_api.resolve import resolve
job = load_job(next(iter(read(Path(sys.argv[1]).read_text()))).manifest)
Path(sys.argv[2]).write_text(resolve("bench", "default", job.spec, rendezvous_host="127.0.0.1").to_json())
"""
TINY = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: tiny}
spec:
  model: {source: MODEL}
  task: {type: TextClassification}
  data: {train: {source: DATA}, validation: {fraction: 0.2}}
  strategy: {type: FullFineTuning}
  training: {epochs: 10, batchSize: 8}
  distribution: {numNodes: 1, resourcesPerNode: {requests: {cpu: "1"}}}
  output: {destination: RUN}
"""
MINILM = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: minilm}
spec:
  model: {source: MODEL}
  task: {type: TextClassification, textClassification: {maxLength: 64}}
  data: {train: {source: DATA, columns: {text: question}}, validation: {fraction: 0.2}}
  strategy: {type: FeatureExtraction}
  training: {epochs: 1, batchSize: 32}
  distribution: {numNodes: 2, engine: DDP, resourcesPerNode: {requests: {cpu: "1"}}}
  output: {destination: RUN}
"""


class Watch:
    """Reads the processor time of this process's descendants until it is told to stop."""

    def __init__(self) -> None:
        self.began, self._stop = time.time(), threading.Event()
        self._seen: dict[int, float] = {}
        self._sums: list[tuple[float, float]] = [(self.began, 0.0)]
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            for pid in _below(os.getpid()):
                try:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                self._seen[pid] = (int(fields[11]) + int(fields[12])) / _TICK
            self._sums.append((time.time(), sum(self._seen.values())))

    def parts(self, marks: dict[str, float]) -> Parts:
        """Return what each part took, given the moments at which they ended."""
        self._stop.set()
        self._thread.join()
        found, before = {}, (self.began, 0.0)
        for name, moment in marks.items():
            here = (moment, max((used for when, used in self._sums if when <= moment), default=0.0))
            found[name] = (here[0] - before[0], here[1] - before[1])
            before = here
        found["all"] = (before[0] - self.began, before[1])
        return found


def _below(pid: int) -> Iterator[int]:
    try:
        children = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return
    for child in map(int, " ".join(children).split()):
        yield child
        yield from _below(child)


def environment(build: Path) -> dict[str, str]:
    """Return the environment in which a Python imports a build."""
    rooms = [str(build / room) for room in ("crds", "trainer", "cli")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(rooms), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def moment(run: Path, event: str, *, last: bool = False) -> float:
    """Return when a run has written an event, at first or at last."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in lines if line["event"] == event]
    return times[-1 if last else 0]


def whole(build: Path, manifest: str) -> Parts:
    """Return the parts of `unfreeze run`."""
    with tempfile.TemporaryDirectory() as folder:
        file, run = Path(folder, "job.yaml"), Path(folder, "run")
        file.write_text(manifest.replace("RUN", f"file://{run}"))
        watch = Watch()
        done = subprocess.run(
            [PYTHON, "-P", "-c", _RUN, build, file],
            env=environment(build),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        ended = time.time()
        if done.returncode:
            sys.exit(done.stdout)
        marks = {
            "command: manifest, a look at model and data": (run / "logs").stat().st_mtime,
            "libraries, gang, data, model": moment(run, "start"),
            "model into its engine": moment(run, "phase"),
            "training": moment(run, "evaluation", last=True),
            "predictions, export and its verification, report": (run / "report.json").stat().st_mtime,
            "end": ended,
        }
        return watch.parts(marks)


def pods(build: Path, manifest: str) -> Parts:
    """Return the part of a job's pods until their first phase begins: images are present, and so is the service's name."""
    with tempfile.TemporaryDirectory() as folder:
        file, job, run = Path(folder, "job.yaml"), Path(folder, "job.json"), Path(folder, "run")
        file.write_text(manifest.replace("RUN", f"file://{run}"))
        own = environment(build)
        subprocess.run([PYTHON, "-P", "-c", RESOLVE, file, job], env=own, cwd=folder, check=True)
        watch, agents = Watch(), []
        for index in (0, 1):
            place = {
                "UNFREEZE_JOB": str(job),
                "JOB_COMPLETION_INDEX": str(index),
                "POD_IP": f"127.0.0.{index + 1}",
                "UNFREEZE_HTTP_PORT": str(29600 + os.getpid() % 1000),
                "UNFREEZE_TERMINATION_LOG": f"{folder}/termination-{index}",
                "OMP_NUM_THREADS": "1",
            }
            command = [PYTHON, "-m", "unfreeze_trainer.agent.main"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            agents.append(subprocess.Popen(command, env=own | place, cwd=folder, **quiet))  # type: ignore[call-overload]
        events = run / "events.jsonl"
        while not (events.exists() and '"phase"' in events.read_text()):
            if any(agent.poll() for agent in agents):
                sys.exit("a pod has failed")
            time.sleep(0.02)
        found = watch.parts({"first step": moment(run, "phase")})
        for agent in agents:
            agent.terminate()
        for agent in agents:
            agent.wait()
        return found


def _write_tiny(folder: Path) -> None:
    """Write FOLDER/bert, a BERT of 30,000 parameters with random weights, and FOLDER/data.csv, 240 texts of three classes."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [f"word{number}" for number in range(30)]
    model = folder / "bert"
    model.mkdir()
    (model / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(vocab=str(model / "vocab.txt"), model_max_length=64).save_pretrained(model)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words) + 5, max_position_embeddings=64, **shape)).save_pretrained(model)
    rows = [f"{words[row % 3]} {words[row % 30]} {words[row % 7]},{'abc'[row % 3]}" for row in range(240)]
    (folder / "data.csv").write_text("text,label\n" + "\n".join(rows) + "\n")


def jobs(folder: Path) -> dict[str, Callable[[Path], Parts]]:
    """Return what is measured, each of a build."""
    _write_tiny(folder)
    tiny = TINY.replace("MODEL", f"file://{folder}/bert").replace("DATA", f"file://{folder}/data.csv")
    minilm = MINILM.replace("MODEL", f"file://{EXAMPLES}/models/minilm")
    minilm = minilm.replace("DATA", f"file://{EXAMPLES}/data/trec-train-1000.csv")
    return {
        "unfreeze run, a BERT of 30,000 parameters": lambda build: whole(build, tiny),
        "two pods, MiniLM, until the first step": lambda build: pods(build, minilm),
        "unfreeze run, MiniLM on two workers": lambda build: whole(build, minilm),
    }


@contextmanager
def _stdout_is_ours() -> Iterator[None]:
    """Have what libraries print go elsewhere: the output is JSON."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)


def _medians(rounds: list[Parts]) -> dict[str, object]:
    return {
        part: {
            "seconds": _median([found[part][0] for found in rounds]),
            "processor_s": _median([found[part][1] for found in rounds]),
        }
        for part in rounds[0]
    }


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    builds = {"this": ROOT} | ({"other": Path(sys.argv[2]).resolve()} if len(sys.argv) > 2 else {})  # noqa: PLR2004
    result: dict[str, object] = {"benchmark": "job", "rounds": rounds}
    with _stdout_is_ours(), tempfile.TemporaryDirectory() as folder:
        prepare(EXAMPLES)
        for name, measure in jobs(Path(folder)).items():
            turns: list[dict[str, Parts]] = []
            for _ in range(rounds):
                turns.append({build: measure(where) for build, where in builds.items()})
                print(name, json.dumps(turns[-1]), file=sys.stderr, flush=True)
            table: dict[str, object] = {build: _medians([turn[build] for turn in turns]) for build in builds}
            if "other" in builds:
                pairs = [(turn["other"]["all"], turn["this"]["all"]) for turn in turns]
                table["times_faster"] = _median([other[0] / this[0] for other, this in pairs])
                table["times_less_processor"] = _median([other[1] / this[1] for other, this in pairs])
            result[name] = table
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
