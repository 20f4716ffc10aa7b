"""What a language model learns of dialogues, against what it forgets of a text that it knew, by ways to train at equal budgets.

    python -m bench.kept FOLDER [WORD ...]

Measures the rows whose names have all the words. SmolLM2-135M-Instruct takes the same steps on the same English dialogues by each way; the text
that it knew is the first line of what Python's own library says of its functions, asked by their names. A row of the table, kept in
bench/results, is a way at a rate: the loss of held-out answers after the training less before, which is what it learned, and that of the text,
which is what it forgot. A job ends where its export would begin.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.support.outcomes import SEED, record
from bench.support.turns import make_job
from examples.prepare_dialogues import prepare_dialogues

STEPS, BATCH, LENGTH = 40, 8, 256
HELD_OUT, KNOWN, LEAST_WORDS = 48, 64, 6
MLP = ["gate_proj", "up_proj", "down_proj"]
Job = dict[str, Any]


def lora(rate: float, modules: list[str]) -> Job:
    """Return an adapter of LoRA on some modules, and how fast it learns."""
    options = {"r": 8, "loraAlpha": 16, "loraDropout": 0.0, "targetModules": modules}
    return at(rate) | {"adapter": {"type": "LoRA", "lora": options}}


def at(rate: float) -> Job:
    """Return a strategy that trains whatever there is at a rate."""
    return {"strategy": {"type": "FullFineTuning", "learningRate": {"head": rate, "backbone": rate}}}


WAYS: dict[str, Job] = {
    "LoRA on all linear layers, 5e-4": lora(5e-4, ["all-linear"]),
    "LoRA on the MLPs alone, 5e-4": lora(5e-4, MLP),
    "full, 5e-5": at(5e-5),
    "full, 1e-5": at(1e-5),
    "SHiRA, 5e-4": at(5e-4) | {"adapter": {"type": "PEFT", "peft": {"method": "SHIRA", "config": {"r": 8}}}},
    "LoRA on all linear layers, 1e-4": lora(1e-4, ["all-linear"]),
    "LoRA on the MLPs alone, 1e-4": lora(1e-4, MLP),
}


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    logging.disable(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    prepare_dialogues(folder)
    write(folder)
    asked = {name: way for name, way in WAYS.items() if all(word in name for word in sys.argv[2:])}
    print(table([record("kept", name, partial(measured, folder, way)) for name, way in asked.items()]))


def write(folder: Path) -> None:
    """Write what is learned, held out and known, as dialogues."""
    said: dict[str, str] = {}
    for module in sorted(Path(os.__file__).parent.glob("[a-z]*.py")):
        for node in ast.parse(module.read_bytes()).body:
            if (
                isinstance(node, ast.FunctionDef)
                and not node.name.startswith("_")
                and (text := ast.get_docstring(node))
            ):
                line = text.splitlines()[0]
                if len(line.split()) >= LEAST_WORDS:
                    said[f"What does {module.stem}.{node.name} of Python's library do?"] = line
    known = random.Random(SEED).sample(sorted(said.items()), KNOWN)  # noqa: S311 - no secret
    _dialogues(folder / "known.jsonl", known)
    for name, most in (("train", STEPS * BATCH), ("test", HELD_OUT)):
        lines = (folder / "data" / f"dialogues-{name}.jsonl").read_text().splitlines()[:most]
        (folder / f"kept-{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _dialogues(file: Path, pairs: list[tuple[str, str]]) -> None:
    rows = [[{"role": "user", "content": asked}, {"role": "assistant", "content": said}] for asked, said in pairs]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))


def measured(folder: Path, way: Job) -> dict[str, Any]:
    """Train a job up to its export; return what it has learned and forgotten."""
    from accelerate.state import AcceleratorState, PartialState

    from unfreeze_trainer.engines import open_engine
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.guards import keep_base
    from unfreeze_trainer.training.loop import train
    from unfreeze_trainer.training.run import Run

    AcceleratorState._reset_state()  # noqa: SLF001 - it takes one engine per process for granted
    PartialState._reset_state()  # noqa: SLF001
    scratch = Path(tempfile.mkdtemp(dir=folder))
    job = make_job(
        f"{scratch}/run",
        model={"source": f"file://{folder}/models/smollm2-135m"},
        task={"type": "CausalLM", "causalLm": {"maxLength": LENGTH}},
        data={
            name: {"source": f"file://{folder}/kept-{file}.jsonl"}
            for name, file in (("train", "train"), ("validation", "test"))
        },
        training={"epochs": 1, "batchSize": BATCH, "seed": SEED, "evaluate": {"everySteps": 10**8}},
        evidence={"forgetting": {"anchor": {"source": f"file://{folder}/known.jsonl"}}},
        **way,
    )
    task = open_task(job)
    run = Run(job, task, task.build_model(), open_engine(job), None)
    try:
        before = run.evaluator.measure("validation").metrics["loss"]
        train(run)
        run.saver.wait()
        assert run.state.best is not None
        keep_base(run, run.state.best)
    finally:
        run.saver.close()
    [decision] = [one for one in run.state.decisions if one.type == "Forgetting"]
    [phase] = run.state.phases
    figures = {one.name.partition(",")[0]: one for one in decision.evidence}
    anchor, divergence = figures["loss on the anchor"], figures["KL divergence from the base"]
    run.engine.end()
    shutil.rmtree(scratch)
    return {
        "trainable": phase.trainable_parameters,
        "steps": phase.steps,
        "loss before": round(before, 3),
        "loss": round(phase.metrics["loss"], 3),
        "forgotten": round(anchor.value or 0.0, 3),
        "divergence": round(divergence.value or 0.0, 3),
        "said": decision.message,
        "trained_s": round(phase.seconds, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of all ways, in Markdown."""
    lines = [
        "| way | trained | loss of held-out answers | loss of the text that it knew, after less before | KL divergence |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['row']} | {row['trainable']:,} | {row['loss']:.3f} | {row['forgotten']:+.3f} | {row['divergence']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
