"""Contenders that train the same model on the same batches, in turns within one process, and their ratios."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.resolve import resolve
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.link import Link
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters import add_adapter
from unfreeze_trainer.models.blocks import find_blocks
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.tasks import Task
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, which the Trainer imports, would warn among the results

SAMPLES, BATCH, TOKENS = 32_000, 16, 32


class Texts(Task):
    """A BERT on made-up tokens, whose run never comes to its end."""

    def __init__(self, job: ResolvedJob, *, layers: int, width: int) -> None:
        self.job, self._layers, self._width = job, layers, width
        self.labels, self.splits = ("a", "b"), {"train": SAMPLES, "validation": 32}
        self.metrics = ClassificationMetrics(2)
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, 1000, (SAMPLES, TOKENS), generator=generator)
        self.y = torch.randint(0, 2, (SAMPLES,), generator=generator)

    def build_model(self) -> LoadedModel:
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        width = self._width
        config = BertConfig(
            vocab_size=1000,
            hidden_size=width,
            num_hidden_layers=self._layers,
            num_attention_heads=4,
            intermediate_size=4 * width,
        )
        module = BertForSequenceClassification(config)
        blocks = find_blocks(module, [name for name, _ in module.named_parameters() if name.startswith("classifier")])
        if self.job.adapter:
            return add_adapter(module, blocks, self.job.adapter, seed=0, base="")
        return LoadedModel(module, blocks, frozenset())

    def batches(
        self, split: str, batches: Iterable[Sequence[int]], *, epoch_seed: int | None = None
    ) -> Iterator[dict[str, Tensor]]:
        del split, epoch_seed
        for indices in batches:
            rows = torch.as_tensor(indices)
            yield {"input_ids": self.ids[rows], "labels": self.y[rows]}

    def lengths(self, split: str) -> np.ndarray:
        return np.full(self.splits[split], TOKENS)

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return module(input_ids=batch["input_ids"]).logits

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch["labels"], reduction="none")

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        return int(batch["input_ids"].numel())

    def export(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def verify_export(self, *_: Any) -> None:
        raise NotImplementedError

    def usage(self, *_: Any) -> str:
        raise NotImplementedError


def make_job(folder: str, **spec: Any) -> ResolvedJob:
    """Resolve a job that trains without end, evaluation or checkpoint."""
    whole = {
        "model": {"source": "file:///none"},
        "task": {"type": "TextClassification"},
        "data": {"train": {"source": "file:///none.csv"}},
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 100, "batchSize": BATCH, "checkpoint": {"everySteps": 10**8}},
        "output": {"destination": f"file://{folder}"},
    }
    return resolve("bench", "default", FineTuneJobSpec.model_validate(whole | spec), rendezvous_host="127.0.0.1")


def ours(task: Texts) -> Iterator[None]:
    """Take one step of the very loop of `training.loop` at each turn."""
    return steps_of(make_run(task))


def make_run(task: Texts) -> Run:
    """Return a run of the task's job, before its first step."""
    job: Any = task.job
    return Run(job, task, task.build_model(), open_engine(job), Link(Path(tempfile.mkdtemp())))


def steps_of(run: Run) -> Iterator[None]:
    """Take one step of a run at each turn."""

    def work(hold: Callable[[], None]) -> None:
        after = run.work.after_step

        def after_step(step: int) -> None:
            after(step)
            hold()

        run.work.after_step = after_step  # type: ignore[method-assign]
        train(run)

    return held(work)


def transformers_trainer(task: Texts) -> Iterator[None]:
    """Take one step of transformers.Trainer at each turn, with PEFT where the job has an adapter."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    def work(hold: Callable[[], None]) -> None:
        class Hold(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                hold()

        loaded = task.build_model()
        freeze(task, loaded)
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=BATCH // int(os.environ.get("WORLD_SIZE", "1")),
            max_steps=10**6,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            weight_decay=0.01,
            max_grad_norm=1.0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
        )
        samples = [{"input_ids": ids, "labels": y} for ids, y in zip(task.ids, task.y, strict=True)]
        Trainer(loaded.module, arguments, train_dataset=samples, callbacks=[Hold()]).train()

    return held(work)


def freeze(task: Texts, loaded: LoadedModel) -> None:
    """Let only those parameters have gradients that the job's strategy trains."""
    names = _trained(task, loaded)
    for name, parameter in loaded.module.named_parameters():
        parameter.requires_grad_(name in names)


def _trained(task: Texts, loaded: LoadedModel) -> frozenset[str]:
    if task.job.strategy.type == "FeatureExtraction":
        return frozenset(loaded.blocks[-1].parameters)
    return loaded.adapter_parameters or frozenset(name for name, _ in loaded.module.named_parameters())


def held(work: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Run a loop in a thread that is held whenever it calls what it is given, until the next turn."""
    go, done = threading.Semaphore(0), threading.Semaphore(0)
    failed: list[BaseException] = []

    def hold() -> None:
        done.release()
        go.acquire()

    def guarded() -> None:
        go.acquire()
        try:
            work(hold)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            failed.append(error)
            done.release()

    threading.Thread(target=guarded, daemon=True).start()
    while True:
        go.release()
        done.acquire()
        if failed:
            raise failed[0]
        yield


def compare(contenders: Mapping[str, Iterator[None]], *, turns: int, steps: int) -> dict[str, Any]:
    """Return milliseconds per step of each contender, and the first one's ratio to each other one.

    Ratios are the median over the turns: in each turn every contender takes its steps, in an order that rotates, so that
    a busy machine is busy for all.
    """
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for contender in contenders.values():
        for _ in range(steps):
            next(contender)
    gc.collect()
    gc.freeze()
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            for _ in range(steps):
                next(contenders[name])
            seconds[name].append((time.perf_counter() - began) / steps)
    first = names[0]
    result: dict[str, Any] = {
        "ms_per_step": {name: round(1000 * statistics.median(seconds[name]), 3) for name in names}
    }
    for name in names[1:]:
        ratios = [mine / other for mine, other in zip(seconds[first], seconds[name], strict=True)]
        result[f"{first}/{name}"] = round(statistics.median(ratios), 4)
        result[f"{first}/{name} quartiles"] = [round(value, 4) for value in statistics.quantiles(ratios, n=4)[::2]]
    return result
