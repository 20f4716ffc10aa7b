"""What two workers take to load a Llama-like model in bfloat16 and divide it, in parts of one copy of its weights.

    python -m bench.loading [--large] [--only FSDP|ZeRO-3|DDP] [--float32]

A LoRA job of two workers on this machine, with random weights that are written to a folder first: 50 million parameters, or 1.1
billion with --large (2.2 GB on the disk of a temporary folder, some GiB of memory). Measured is the sum over both workers of the
proportional set size that is no page of a file (Pss_Anon and Pss_Shmem of smaps_rollup, proc(5)), looked at as often as can be, above what it is
just before the model is loaded: the most until it is divided, after it was tried on a batch, and the
most until the first step is done. --float32 says so in model.dtype. One row for each engine is added to bench/results/loading.jsonl.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ENGINES: dict[str, dict[str, Any]] = {
    "DDP": {"engine": "DDP"},
    "FSDP": {"engine": "FSDP"},
    "ZeRO-3": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 3}},
}
SMALL = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8}
LARGE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32}
_MIB = 2**20
RESULTS = Path(__file__).parent / "results" / "loading.jsonl"


def write_model(folder: Path, *, large: bool) -> int:
    """Write a model and its tokenizer; return the bytes of its weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    jobs: Any = importlib.import_module("tests.trainer.jobs")  # not typed
    jobs.decoder_folder(folder)
    (folder / "model.safetensors").unlink()
    sizes = LARGE if large else SMALL
    config = LlamaConfig(
        vocab_size=32_000, num_key_value_heads=4, max_position_embeddings=2048, pad_token_id=0, bos_token_id=0,
        eos_token_id=2, **sizes,
    )  # fmt: skip
    with torch.device("meta"):
        module = LlamaForCausalLM(config).to(torch.bfloat16)
    module = module.to_empty(device="cpu")
    for parameter in module.parameters():
        parameter.data.uniform_(-0.02, 0.02)
    module.save_pretrained(folder, max_shard_size="1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    return sum(parameter.nbytes for parameter in module.parameters())


def work(spec: dict[str, Any]) -> None:
    """Be a worker: load, divide, try, begin, train; say on stdout when each is done, and wait for a line before each."""
    from bench.support.turns import steps_of
    from unfreeze_api.resolve import resolve
    from unfreeze_api.spec.job import FineTuneJobSpec
    from unfreeze_trainer.engines import open_engine
    from unfreeze_trainer.models.keeping import why_float32
    from unfreeze_trainer.models.own_type import own_types
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.run import Run

    job = resolve("loading", "bench", FineTuneJobSpec.model_validate(spec), rendezvous_host="127.0.0.1")
    task, engine = open_task(job), open_engine(job)
    _warm_up()
    _said("ready")
    with own_types(wanted=why_float32(job) is None):
        loaded = task.build_model()
    run = Run(job, task, loaded, engine, None)
    _said("divided")
    steps = steps_of(run)
    next(steps)
    _said("trained")
    os._exit(0)


def _warm_up() -> None:
    """Import what a worker's fork has imported before it begins, and compute once."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    for module in (
        "torch._dynamo",
        "torch._inductor.compile_fx",
        "torch.distributed.fsdp",
        "bitsandbytes",
        "accelerate",
    ):
        importlib.import_module(module)
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    module = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=1))
    module(input_ids=torch.ones(1, 2, dtype=torch.int64)).logits.sum().backward()


def _said(what: str) -> None:
    print(what, flush=True)
    sys.stdin.readline()


def private(process: int) -> int:
    """Return the bytes of a process's proportional set that are no pages of files."""
    rows = dict(line.split(":") for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    return 1024 * sum(int(rows[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem"))


class Watch(threading.Thread):
    """Looks at the sum over some processes; `most` is the largest since it was set to 0."""

    def __init__(self, processes: list[int]) -> None:
        super().__init__(daemon=True)
        self.processes, self.most = processes, 0

    def run(self) -> None:
        while True:
            try:
                self.most = max(self.most, sum(map(private, self.processes)))
            except (OSError, ValueError, KeyError):
                return
            time.sleep(0.005)


def measure(name: str, folder: Path, *, float32: bool) -> dict[str, int]:
    """Run both workers of an engine; return the most bytes of each part above those of before."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    spec = {
        "model": {"source": f"file://{folder / 'model'}"} | ({"dtype": "Float32"} if float32 else {}),
        "task": {"type": "CausalLM", "causalLm": {"maxLength": 64}},
        "data": {"train": {"source": f"file://{folder / 'rows.jsonl'}"}, "validation": {"fraction": 0.25}},
        "strategy": {"type": "FullFineTuning"},
        "adapter": {"type": "LoRA", "lora": {"r": 8}},
        "training": {"epochs": 1, "batchSize": 2},
        "output": {"destination": f"file://{folder / 'run'}"},
        "distribution": {"numNodes": 2, **ENGINES[name]},
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-m", "bench.loading", "--work", json.dumps(spec)]
    workers = [
        subprocess.Popen(
            command,
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found: dict[str, int] = {}
    try:
        _wait(workers, "ready")
        before = sum(private(worker.pid) for worker in workers)
        watch = Watch([worker.pid for worker in workers])
        watch.start()
        for part in ("divided", "trained"):
            watch.most = 0
            _go(workers)
            _wait(workers, part)
            found[part] = watch.most - before
            found[f"after {part}"] = sum(private(worker.pid) for worker in workers) - before
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return found


def _wait(workers: list[subprocess.Popen[str]], what: str) -> None:
    for worker in workers:
        assert worker.stdout is not None
        while (line := worker.stdout.readline()).strip() != what:
            if not line:
                sys.exit(f"a worker has ended before it was {what}")


def _go(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()


def main() -> None:
    """Measure each engine, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--only", choices=list(ENGINES))
    parser.add_argument("--work")
    options = parser.parse_args()
    if options.work:
        work(json.loads(options.work))
        return
    jobs: Any = importlib.import_module("tests.trainer.jobs")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        copy = write_model(folder / "model", large=options.large)
        jobs.write_dialogues(folder / "rows.jsonl")
        print(f"one copy: {copy / _MIB:,.0f} MiB\n")
        print("| engine | most until divided | after it | most of the first step | after it |")
        print("|---|--:|--:|--:|--:|")
        for name in [options.only] if options.only else ENGINES:
            found = measure(name, folder, float32=options.float32)
            row = {"engine": name, "float32": options.float32, "copyBytes": copy, **found}
            with RESULTS.open("a") as rows:
                rows.write(json.dumps(row) + "\n")
            print(f"| {name} | {' | '.join(f'{value / copy:.2f}' for value in found.values())} |", flush=True)


if __name__ == "__main__":
    main()
