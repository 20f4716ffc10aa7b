"""The training loop against a hand-written torch loop of the same work, in turns within one process.

    python bench/loop.py

Prints JSON: seconds per step of both, and their ratio (median over the turns; 1 means that the loop costs nothing).
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

from unfreeze_api.resolve import resolve
from unfreeze_api.spec import FineTuneJobSpec
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.link import Link
from unfreeze_trainer.metrics import ClassificationMetrics
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.phases.blocks import Block
from unfreeze_trainer.run import Run
from unfreeze_trainer.seeds import seed_everything

SAMPLES, BATCH, TURNS, STEPS = 32_000, 16, 60, 5


class _Texts:
    """A BERT of 2 layers, 128 wide, on made-up tokens: steps as short as those of a small model on a CPU."""

    labels, splits = ("a", "b"), {"train": SAMPLES, "validation": 32}
    pins: ClassVar[dict[str, Any]] = {"base": {}, "data": {}}

    def __init__(self) -> None:
        self.metrics = ClassificationMetrics(2)
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, 1000, (SAMPLES, 32), generator=generator)
        self.y = torch.randint(0, 2, (SAMPLES,), generator=generator)

    def build_model(self) -> LoadedModel:
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=1000, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512
        )
        module = BertForSequenceClassification(config)
        names = [name for name, _ in module.named_parameters()]
        head = tuple(name for name in names if name.startswith("classifier"))
        body = tuple(name for name in names if not name.startswith("classifier"))
        return LoadedModel(module, [Block("body", body), Block("head", head)], frozenset())

    def batches(self, _split: str, batches: Any, **_: Any) -> Iterator[dict[str, Tensor]]:
        for indices in batches:
            rows = torch.as_tensor(indices)
            yield {"input_ids": self.ids[rows], "labels": self.y[rows]}

    def forward(self, module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return module(input_ids=batch["input_ids"]).logits

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return int(batch["input_ids"].numel())


def _job(folder: str) -> Any:
    spec = {
        "model": {"source": "file:///none"},
        "task": {"type": "TextClassification"},
        "data": {"train": {"source": "file:///none.csv"}},
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 100, "batchSize": BATCH, "checkpoint": {"everySteps": 10**8}},
        "output": {"destination": f"file://{folder}"},
    }
    return resolve("bench", "default", FineTuneJobSpec.model_validate(spec), rendezvous_host="127.0.0.1")


def ours(folder: str) -> Iterator[float]:
    """Yield the seconds of STEPS steps of the loop, again and again."""
    from unfreeze_trainer import worker

    job, task = _job(folder), _Texts()
    run = Run(job, task, task.build_model(), open_engine(job), Link(Path(folder)))  # type: ignore[arg-type]
    loop = _generator(worker.train, run)
    while True:
        began = time.perf_counter()
        for _ in range(STEPS):
            next(loop)
        yield time.perf_counter() - began


def _generator(train: Any, run: Run) -> Iterator[None]:
    """Run the very loop of `worker.train` in a thread that is held between two steps."""
    import threading

    go, done = threading.Semaphore(0), threading.Semaphore(0)
    after = run.after_step

    def after_step(step: int) -> None:
        after(step)
        done.release()
        go.acquire()

    run.after_step = after_step  # type: ignore[method-assign]

    def work() -> None:
        go.acquire()
        train(run)

    threading.Thread(target=work, daemon=True).start()
    while True:
        go.release()
        done.acquire()
        yield


def by_hand() -> Iterator[float]:
    """Yield the seconds of STEPS steps of a plain loop on the same batches, again and again."""
    task = _Texts()
    module = task.build_model().module.train()
    decay = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in module.parameters() if parameter.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, weight_decay=0.01, fused=True)
    feed = Feed(task, seed=0, batch_size=BATCH, accumulate=1, rank=0, world_size=1)  # type: ignore[arg-type]
    batches = (micro.tensors for _, step in feed.steps(0, 10**6) for micro in step)
    parameters = list(module.parameters())
    while True:
        began = time.perf_counter()
        for _ in range(STEPS):
            batch = next(batches)
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(module(input_ids=batch["input_ids"]).logits, batch["labels"])
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        yield time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        plain, loop = by_hand(), ours(folder)
        next(plain), next(loop)
        gc.collect()
        gc.freeze()
        pairs = [(next(loop), next(plain)) if turn % 2 else (next(plain), next(loop))[::-1] for turn in range(TURNS)]
        ratios = [mine / other for mine, other in pairs]
        print(
            json.dumps(
                {
                    "benchmark": "loop",
                    "loop_ms_per_step": round(1000 * statistics.median(mine for mine, _ in pairs) / STEPS, 3),
                    "by_hand_ms_per_step": round(1000 * statistics.median(other for _, other in pairs) / STEPS, 3),
                    "ratio": round(statistics.median(ratios), 4),
                    "ratio_quartiles": [round(value, 4) for value in statistics.quantiles(ratios, n=4)[::2]],
                },
                indent=1,
            ),
            flush=True,
        )
        os._exit(0)  # the loop's thread is held in the middle of a step


if __name__ == "__main__":
    main()
