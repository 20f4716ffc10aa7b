"""What an accelerator does with Unfreeze: parity with the CPU, then speed and memory of Llama-like models.

    python -m bench.accelerator [--rehearse]

Needs a CUDA GPU and torch 2.11 or newer, and takes less than eight minutes. First it runs tests/accelerator (every engine and
strategy at small size, float16, bfloat16, a run that goes from the CPU to the accelerator and back); where one fails it ends. Then
it prints the table of docs/speed.md: tokens per second, the share of the card's peak that the model's operations take (MFU), and
the most bytes that torch held. Without a GPU it prints nothing of the kind. `--rehearse` goes through the same programme on CPUs, with
tiny models, and gives no figures: it shows that the programme runs.

Operations of a token: 2 N for a forward pass, N the weights of its matrices, and as many again for the gradients of activations
and those of the weights that train (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), and for a forward pass that gradient
checkpointing repeats, which MFU does not count (Chowdhery et al. 2022, arXiv 2204.02311, appendix B); attention adds 4 L T D for each
pass, halved since a token does not look ahead.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.support.turns import Texts, make_job, make_run, steps_of
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters import add_adapter
from unfreeze_trainer.models.blocks import find_blocks

LEAST_TORCH = (2, 11)
STEPS, WARM_UP = 8, 4

PEAK = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "B200": 2250,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10G": 70,
    "4090": 165,
}
"""bfloat16 TFLOP/s without sparsity, from the makers' data sheets, by a part of the card's name; the first that fits."""


@dataclass(frozen=True)
class Shape:
    """Of a Llama-like model and its batches."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    tokens: int
    batch: int

    @property
    def matrices(self) -> int:
        """Weights of matrices that every token goes through."""
        attention = 2 * self.hidden**2 * (1 + self.kv_heads / self.heads)
        return int(self.layers * (attention + 3 * self.hidden * self.mlp))

    def flops(self, *, full: bool) -> float:
        """Operations of a token that a training step needs."""
        passes = 3 if full else 2
        return passes * (2 * self.matrices + 2 * self.layers * self.tokens * self.hidden)


LLAMA_1B = Shape("Llama-like, 1B", 2048, 16, 32, 8, 8192, 32_000, tokens=2048, batch=8)
LLAMA_8B = Shape("Llama-like, 8B", 4096, 32, 32, 8, 14336, 32_000, tokens=2048, batch=4)
TINY = Shape("tiny", 16, 2, 2, 1, 32, 100, tokens=16, batch=2)

FULL: dict[str, Any] = {"strategy": {"type": "FullFineTuning"}}
LORA = FULL | {"adapter": {"type": "LoRA", "lora": {"r": 16, "loraDropout": 0}}}
CASES: Sequence[tuple[Shape, str, dict[str, Any]]] = (
    (LLAMA_1B, "FullFineTuning", FULL),
    (LLAMA_1B, "LoRA", LORA),
    (LLAMA_8B, "LoRA", LORA),
)


class Tokens(Texts):
    """Sequences of one length for a Llama-like model with random weights, made on the device."""

    def __init__(self, job: Any, shape: Shape) -> None:
        super().__init__(job, layers=shape.layers, width=shape.hidden)
        self.shape = shape
        self.splits = {"train": 4096, "validation": 8}
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, shape.vocabulary, (4096, shape.tokens), generator=generator)
        self.y = torch.randint(0, 2, (4096,), generator=generator)

    def build_model(self) -> LoadedModel:
        from transformers import LlamaConfig, LlamaForSequenceClassification

        shape = self.shape
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.tokens,
            pad_token_id=0,
        )
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            module = LlamaForSequenceClassification(config)
        blocks = find_blocks(module, [name for name, _ in module.named_parameters() if name.startswith("score")])
        if self.job.adapter:
            return add_adapter(module, blocks, self.job.adapter, seed=0, base="")
        return LoadedModel(module, blocks, frozenset())

    def lengths(self, split: str) -> Any:
        return super().lengths(split) // super().lengths(split) * self.shape.tokens


def measure(shape: Shape, spec: dict[str, Any]) -> dict[str, float]:
    """Train some steps of a case in this process; return seconds of a step, and the most bytes held on the device."""
    cuda = torch.cuda.is_available()
    training = {"batchSize": shape.batch, "precision": "BFloat16", "gradientCheckpointing": True}
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(folder, **spec, training={"epochs": 100, "checkpoint": {"everySteps": 10**8}} | training)
        run = make_run(Tokens(job, shape))
        steps = steps_of(run)
        _take(steps, WARM_UP)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(STEPS):
            began = time.perf_counter()
            _take(steps, 1)
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds), "bytes": torch.cuda.max_memory_allocated() if cuda else 0}


def _take(steps: Iterator[None], count: int) -> None:
    for _ in range(count):
        next(steps)


def _row(shape: Shape, name: str, found: dict[str, float] | None, peak: float | None) -> str:
    if found is None:
        return f"| {shape.name} | {name} | does not fit | | | |"
    rate = shape.batch * shape.tokens / found["seconds"]
    flops = rate * shape.flops(full=name == "FullFineTuning")
    share = f"{flops / peak / 1e12:.3f}" if peak else "-"
    return f"| {shape.name} | {name} | {rate:,.0f} | {flops / 1e12:.0f} | {share} | {found['bytes'] / 2**30:.1f} |"


def _run_case(number: int, *, rehearse: bool) -> dict[str, float] | None:
    """Run a case in a process of its own, whose memory is its own; None where the card has too little of it."""
    command = [sys.executable, "-m", "bench.accelerator", "--case", str(number), *(["--rehearse"] if rehearse else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "OutOfMemoryError" in done.stderr:
        return None
    if done.returncode:
        sys.exit(f"{CASES[number][0].name}, {CASES[number][1]}: {done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _parity(*, rehearse: bool) -> None:
    environment = os.environ | ({"UNFREEZE_REHEARSAL": "1"} if rehearse else {})
    chosen = ["-k", "cpu_to or waits or agrees and DDP-full"] if rehearse else []
    workers = max(1, min(8, (os.cpu_count() or 1) // 2))  # one by one they take a quarter of an hour
    beside = ["--dist=load", f"--numprocesses={workers}"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "accelerator", "tests/accelerator", *beside, *chosen]
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.exit("the accelerator does not agree with the CPU: see above. Nothing was measured")


def main() -> None:
    """Test, measure, print."""
    rehearse = "--rehearse" in sys.argv
    if "--case" in sys.argv:
        number = int(sys.argv[sys.argv.index("--case") + 1])
        shape, _, spec = CASES[number]
        print(json.dumps(measure(TINY if rehearse else shape, spec)), flush=True)
        os._exit(0)  # the loop's thread is held in the middle of a step
    if not torch.cuda.is_available() and not rehearse:
        sys.exit(
            "no CUDA GPU is here, and this table is of nothing else. --rehearse goes through the programme on the CPU, without figures"
        )
    if tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])) < LEAST_TORCH:
        sys.exit(f"torch {torch.__version__} is older than {'.'.join(map(str, LEAST_TORCH))}")
    if rehearse and torch.cuda.is_available():
        sys.exit("--rehearse is for machines without a GPU: set CUDA_VISIBLE_DEVICES= to rehearse on this one")
    _parity(rehearse=rehearse)
    found = [_run_case(number, rehearse=rehearse) for number in range(len(CASES))]
    if rehearse:
        print(f"The rehearsal went through: {len(found)} cases ran on the CPU, of tiny models. It measures nothing.")
        return
    card = torch.cuda.get_device_name()
    peak = next((peak for name, peak in PEAK.items() if name in card), None)
    print(
        f"{card}, torch {torch.__version__}, bfloat16 under autocast, gradient checkpointing, sequences of 2,048 tokens\n"
    )
    print("| model | strategy | tokens/s | TFLOP/s of the model | MFU | most GiB held |")
    print("|---|---|--:|--:|--:|--:|")
    for (shape, name, _), figures in zip(CASES, found, strict=True):
        print(_row(shape, name, figures, peak))


if __name__ == "__main__":
    main()
