"""Gangs of forked workers that die by SIGKILL at chosen moments: the cases of `test_kills`."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tests.trainer.engine_group import ENGINES
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from tests.trainer.ranks import log_to, run_gang
from unfreeze_trainer import worker
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity, Snapshot
from unfreeze_trainer.runs.generation import Generation
from unfreeze_trainer.runs.recovery import find
from unfreeze_trainer.runs.saving import prune, write
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.training.work import Work

STRATEGY = {"type": "GradualUnfreezing", "learningRate": {"head": 1e-2, "backbone": 5e-3}}
TRAINING = {"epochs": 6, "batchSize": 8, "metric": "loss", "checkpoint": {"everySteps": 2}}
STEPS, PHASES = 18, 5  # phases begin at 0, 3, 6, 9 and 12
SEEDS = (0, 1, 2, 3, 4)
_CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod"}


@dataclass(frozen=True)
class Moment:
    """When a worker dies."""

    kind: str
    """file: before its n-th access to a file or folder of the run; step: when a step is done; phase: before one begins;
    finish: when all phases are over; export: when the last checkpoint is complete too."""
    number: int = 0
    rank: int = 0


def job_in(folder: Path, engine: str, world: int, **training):
    distribution = {"numNodes": world, **ENGINES[engine]}
    place = {"destination": f"file://{folder}"}
    return make_job(
        "/none", "/none.csv", strategy=STRATEGY, training=TRAINING | training, output=place, distribution=distribution
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: Moment, run_folder: Path) -> None:
    """Make this process die at its moment."""
    if moment.kind == "file":
        die_at_access(run_folder, moment.number)
        return
    place, name = {
        "step": (Work, "after_step"),
        "phase": (Work, "enter"),
        "finish": (worker, "finish"),
        "export": (Exporter, "write"),
    }[moment.kind]
    real = getattr(place, name)

    def deadly(*arguments, **options):
        now = {"step": lambda: arguments[1], "phase": lambda: arguments[1].index}.get(moment.kind, lambda: 0)()
        if now == moment.number:
            die()
        return real(*arguments, **options)

    setattr(place, name, deadly)


def die_at_access(folder: Path, number: int) -> None:
    """Die before the n-th time that Python touches a file or folder below `folder`."""
    left, lock, root = [number], threading.Lock(), str(folder)

    def hook(event, arguments):
        if event in _CHANGES and str(arguments[0]).startswith(root):
            with lock:
                left[0] -= 1
                if left[0] <= 0:
                    die()

    sys.addaudithook(hook)


class OrderedTask(MLPTask):
    """Writes down which samples it gave to which rank, batch by batch."""

    def __init__(self, job):
        super().__init__(norm=True)
        self.order = Path(job.output.path).with_suffix(".order")

    def batches(self, split, batches, **options):
        def noted():
            for indices in batches:
                if split == "train" and options["epoch_seed"]:  # not of a look before the training
                    with self.order.open("a") as file:
                        file.write(
                            json.dumps([os.environ["ATTEMPT"], int(os.environ["RANK"]), *map(int, indices)]) + "\n"
                        )
                yield indices

        return super().batches(split, noted(), **options)


def start_gang(job, moment: Moment | None, attempt: int) -> list[int]:
    """Run the workers of a job until they are done, or one of them is gone; return the exit codes, -9 for a killed one."""
    return run_gang(job.distribution.num_nodes, be_worker, job, moment, attempt)


def be_worker(job, moment: Moment | None, attempt: int) -> int:
    os.environ["ATTEMPT"] = str(attempt)
    log_to(Path(f"{job.output.path}.log"))
    if moment and moment.rank == int(os.environ["RANK"]):
        arm(moment, Path(job.output.path))
    return worker.work(job, OrderedTask, None)


def moments(engine: str) -> list[Moment]:
    """Return when the workers of an engine die, in the order of the attempts: before each phase, and in between.

    Files are written alike on every engine: only the one that is least like one process dies at them, and DDP; of the others
    each phase has one moment.
    """
    choose = random.Random(engine)
    found = []
    for phase in range(1, PHASES):
        first = 3 * (phase - 1)
        found.append(Moment("step", choose.randrange(first, first + 3), choose.randrange(2)))
        found.append(Moment("file", choose.randrange(8, 60)))
        found.append(Moment("phase", phase, choose.randrange(2)))
    ends = [Moment("finish"), Moment("export"), Moment("file", choose.randrange(14, 24))]
    if engine in ("DDP", "ZeRO-3"):
        return [*found, *ends]
    turns = [(found[3 * turn], found[3 * turn + 2])[turn % 2] for turn in range(PHASES - 1)]
    return [*turns, *ends[:2]]


def crash_points(folder: Path) -> list:
    """Die before each access that writing a checkpoint takes; return (step that is found, what is said to be broken)."""
    found = []
    while True:
        place = folder / f"crash-{len(found)}"
        checkpoints = Checkpoints(place, Identity("me", {}))
        for step in (1, 2):
            replace_oldest(checkpoints, Generation.take(place), step)
        [died] = run_gang(1, write_and_die, place, len(found) + 1)
        left = find(checkpoints, Generation.take(place))
        found.append([left.checkpoint.step, left.recovery and left.recovery.message])
        if not died:
            return found


def write_and_die(place: Path, access: int) -> int:
    generation = Generation.take(place)
    die_at_access(place, access)
    replace_oldest(Checkpoints(place, Identity("me", {})), generation, 3)
    return 0


def replace_oldest(checkpoints: Checkpoints, generation: Generation, step: int) -> None:
    snapshot = Snapshot(RunState(step=step), {"w": torch.full((3,), float(step))}, {"w": {"step": torch.tensor(1.0)}})
    write(checkpoints, snapshot, generation)
    prune(checkpoints, snapshot.state, generation, keep=2)


def killed_case(engine: str, folder: Path) -> dict:
    """Run a job undisturbed, and the same one through all moments; return what became of each attempt."""
    start_gang(job_in(folder / f"{engine}-whole", engine, 2), None, 0)
    job = job_in(folder / f"{engine}-killed", engine, 2)
    attempts = [[asdict(moment), start_gang(job, moment, n)] for n, moment in enumerate(moments(engine))]
    return {"attempts": attempts, "last": start_gang(job, None, 99)}


def resized_case(engine: str, folder: Path, before: int, after: int) -> list[list[int]]:
    """Kill a job at a step, go on with another number of workers; return the exit codes of both."""
    place = folder / f"{engine}-{before}-{after}"
    killed = start_gang(job_in(place, engine, before), Moment("step", 10), before)
    return [killed, start_gang(job_in(place, engine, after), None, after)]
