"""Beside TRL's SFTTrainer: the same dialogues, model, rates and tokens a step, in turns within one process of one thread.

    python -m bench.sft FOLDER [lora|lora-packed|full|full-packed ...]

SmolLM2-135M-Instruct learns the answers of short English dialogues, of each its first question and answer; dialogues held out share neither question
nor answer with them. TRL is installed into FOLDER/peer with what it needs beside this project's packages. Unpacked, both read as many
samples a step. Packed, Unfreeze puts the samples of a step into rows, and TRL fills rows of LENGTH tokens over the whole epoch, of which
a step takes so many that an epoch has as many steps. A row of the table, kept in bench/results, is an epoch: how many times as many tokens Unfreeze
learns from in a second of the processor, and by the clock, and the loss of held-out answers before and at the end, by one plain function for both.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from bench.support.outcomes import SEED, interval, record
from bench.support.turns import held, make_job, steps_of
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.link import Link
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.run import Run

TRAIN, HELD_OUT, LENGTH, BATCH = 32, 16, 128, 8
STEPS = TRAIN // BATCH
RATES = {"lora": 5e-4, "full": 5e-5}
RANK, ALPHA = 8, 16
PEER = ("trl==1.16.0", "datasets==5.2.0", "dill==0.4.1", "multiprocess==0.70.19", "pandas==3.1.1", "gguf==0.19.0")
HOW = ("lora", "lora-packed", "full", "full-packed")

Dialogue = list[dict[str, str]]


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "peer").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "peer"), *PEER]
        subprocess.run(pip, check=True)
    search = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(folder / "peer")])
    prepare = [sys.executable, "-m", "examples.prepare_dialogues", str(folder)]
    subprocess.run(prepare, check=True, env=os.environ | {"PYTHONPATH": search}, stdout=sys.stderr)
    sys.path.append(str(folder / "peer"))  # last, so that all else is as this project pins it
    train, test = _dialogues(folder)
    path = folder / "sft-train.jsonl"
    path.write_text("".join(json.dumps({"messages": dialogue}) + "\n" for dialogue in train))
    for how in sys.argv[2:] or HOW:
        print(json.dumps(record("sft", how, partial(_both, folder, how, train, test)), indent=1), flush=True)
    sys.stdout.flush()
    os._exit(0)  # threads are held in the middle of a step


def _dialogues(folder: Path) -> tuple[list[Dialogue], list[Dialogue]]:
    """Return the first question and answer of dialogues to learn from and of those held out."""
    parts: list[list[Dialogue]] = []
    seen: set[str] = set()
    for name, most in (("test", HELD_OUT), ("train", TRAIN)):
        rows = [json.loads(line)["messages"][:2] for line in (folder / "data" / f"dialogues-{name}.jsonl").open()]
        kept: list[Dialogue] = []
        for row in rows:
            said = {message["content"].strip().lower() for message in row}
            if len(row) == 2 and not said & seen and len(kept) < most:  # noqa: PLR2004 - a question and its answer
                kept.append(row)
                seen |= said
        parts.append(kept)
    return parts[1], parts[0]


def _both(folder: Path, how: str, train: list[Dialogue], test: list[Dialogue]) -> dict[str, Any]:
    """Return what both took and left, an epoch of each in turns of one step."""
    model = folder / "models" / "smollm2-135m"
    going = {"Unfreeze": _ours(folder, how), "TRL": _peer(model, how, train)}
    before = _held_out(model, going["TRL"][0](), test)  # no adapter has an effect yet
    losses = {name: [before] for name in going}
    seconds, clock = dict.fromkeys(going, 0.0), dict.fromkeys(going, 0.0)
    for number in range(STEPS):
        names = list(going)
        for name in names[:: -1 if number % 2 else 1]:
            module, steps, count = going[name]
            began, at = time.process_time(), time.perf_counter()
            for _ in range(round((number + 1) * count / STEPS) - round(number * count / STEPS)):
                next(steps)
            seconds[name] += time.process_time() - began
            clock[name] += time.perf_counter() - at
            if number + 1 == STEPS:
                losses[name].append(_held_out(model, module(), test))
    beyond = losses["Unfreeze"][-1] - losses["TRL"][-1]
    curves = {f"loss, {name}": [round(float(one.mean()), 3) for one in found] for name, found in losses.items()}
    return {
        "processor seconds": {name: round(taken, 1) for name, taken in seconds.items()},
        "tokens a second by TRL's": round(seconds["TRL"] / seconds["Unfreeze"], 2),
        "by the clock": round(clock["TRL"] / clock["Unfreeze"], 2),
        **curves,
        "beyond": round(float(beyond.mean()), 3),
        "beyond 95 %": interval(lambda rows: beyond[rows].mean(), len(beyond)),
    }


Contender = tuple[Callable[[], nn.Module], Iterator[None], int]


def _ours(folder: Path, how: str) -> Contender:
    """Return the model, the steps of its training, and how many are in an epoch."""
    kind, _, packed = how.partition("-")
    rate = {"head": RATES[kind], **({"backbone": RATES[kind]} if kind == "full" else {})}
    job = make_job(
        tempfile.mkdtemp(),
        model={"source": f"file://{folder}/models/smollm2-135m"},
        task={"type": "CausalLM", "causalLm": {"maxLength": LENGTH, "packing": bool(packed)}},
        data={"train": {"source": f"file://{folder}/sft-train.jsonl"}},
        strategy={"type": "FullFineTuning", "learningRate": rate},
        training={
            "epochs": 1,
            "batchSize": BATCH,
            "checkpoint": {"everySteps": 10**8},
            "evaluate": {"everySteps": 10**8},
        },
        **(
            {"adapter": {"type": "LoRA", "lora": {"r": RANK, "loraAlpha": ALPHA, "loraDropout": 0.0}}}
            if kind == "lora"
            else {}
        ),
    )
    task = open_task(job)
    run = Run(job, task, task.build_model(), open_engine(job), Link(Path(tempfile.mkdtemp())))
    return lambda: run.engine.module, steps_of(run), run.feed.steps_per_epoch


def _peer(model: Path, how: str, train: list[Dialogue]) -> Contender:
    """Return the same of TRL."""
    import datasets  # type: ignore[import-not-found, unused-ignore]
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found, unused-ignore]

    kind, _, packed = how.partition("-")
    rows = datasets.Dataset.from_list([{"prompt": row[:1], "completion": row[1:]} for row in train])
    options: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "max_length": LENGTH,
        "packing": bool(packed),
        "num_train_epochs": 1,
        "learning_rate": RATES[kind],
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(0.06 * STEPS),
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": False,
        "gradient_checkpointing": False,  # as ours is by default
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": SEED,
    }
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")

    def made(batch: int, hold: Callable[[], None]) -> Any:
        class Hold(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                hold()

        return SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, trust_remote_code=False),
            args=SFTConfig(**options, per_device_train_batch_size=batch),
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(model, trust_remote_code=False),
            peft_config=lora if kind == "lora" else None,
            callbacks=[Hold()],
        )

    holds: list[Callable[[], None]] = []

    def held_there() -> None:
        holds[0]()

    batch = BATCH
    if packed:
        batch = math.ceil(len(made(BATCH, lambda: None).train_dataset) / STEPS)
    trainer = made(batch, held_there)

    def work(hold: Callable[[], None]) -> None:
        holds.append(hold)
        trainer.train()

    return lambda: trainer.model, held(work), math.ceil(len(trainer.train_dataset) / batch)


def _held_out(model: Path, module: nn.Module, dialogues: list[Dialogue]) -> np.ndarray:
    """Return the mean loss of each answer and its end, in nats a token, by a plain forward pass of one dialogue at a time."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    training, found = module.training, []
    module.eval()
    for dialogue in dialogues:
        texts = [tokenizer.apply_chat_template(dialogue[:1], tokenize=False, add_generation_prompt=True)]
        texts.append(texts[0] + dialogue[1]["content"] + tokenizer.eos_token)
        asked, whole = (tokenizer(text, add_special_tokens=False)["input_ids"][:LENGTH] for text in texts)
        ids = torch.tensor([whole])
        with torch.inference_mode():
            logits = module(input_ids=ids).logits[0, len(asked) - 1 : -1]
        found.append(float(nn.functional.cross_entropy(logits.float(), ids[0, len(asked) :])))
    module.train(training)
    return np.array(found)


if __name__ == "__main__":
    main()
