"""Runs of one worker, one whole and one cut off, with nothing but what the first build of Unfreeze has.

python runs_of_first_build.py FOLDER JOB.json...    (job.json without output; runs go to FOLDER/NAME-whole and -half)
"""

import os
import sys
from pathlib import Path

import torch

from unfreeze_api.resolve import ResolvedJob
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.run import Run
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.worker import train

CUT_OFF_AT = 7


class Killed(BaseException):
    pass


def run(job: ResolvedJob, folder: Path, *, cut_off: bool) -> None:
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._shared_state.clear()
    job = job.model_copy(update={"output": job.output.model_copy(update={"path": str(folder)})})
    task = open_task(job)
    task.verify_export = lambda *_: None  # a fresh Python each time
    run = Run(job, task, task.build_model(), open_engine(job), None)
    after = run.after_step

    def after_step(step: int) -> None:
        if cut_off and step == CUT_OFF_AT:
            raise Killed
        after(step)

    run.after_step = after_step
    try:
        train(run)
    except Killed:
        run.saver.close()
    else:
        run.engine.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    out = Path(sys.argv[1])
    for file in map(Path, sys.argv[2:]):
        for cut_off in (False, True):
            job = ResolvedJob.model_validate_json(file.read_bytes())
            run(job, out / f"{file.stem}-{'half' if cut_off else 'whole'}", cut_off=cut_off)
