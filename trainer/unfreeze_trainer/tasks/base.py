"""What all tasks have in common: splits, batches with labels, loss and metrics of classification, pins, exports."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unfreeze_api.contracts.report import Usefulness
from unfreeze_api.resolve import ResolvedJob
from unfreeze_api.spec.adapter import BottleneckSpec
from unfreeze_trainer.data.pins import PINNED, pin_data
from unfreeze_trainer.data.samples import Split, overlaps
from unfreeze_trainer.metrics import IGNORED, ClassificationMetrics
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters import add_adapter, save_adapter
from unfreeze_trainer.models.blocks import find_blocks
from unfreeze_trainer.models.card import write_card
from unfreeze_trainer.models.export import compare
from unfreeze_trainer.models.folders import hash_files, revision, weight_files

VERIFIED_SAMPLES = 4
"""Samples whose logits an export is compared on."""

Batch = dict[str, Tensor]
ExportKind = Literal["Model", "Adapter", "Merged"]


class Task(ABC):
    """A task with its data, opened and checked.

    Parameters
    ----------
    job
        The resolved job.
    labels
        In the order of class ids.
    splits
        train, validation and, if the job has one, test.
    """

    def __init__(self, job: ResolvedJob, labels: list[str], splits: dict[str, Split]) -> None:
        self.job = job
        self.labels = labels
        self.metrics = ClassificationMetrics(len(labels))
        self._splits = splits
        self.unread: dict[str, set[int]] = {name: set() for name in splits}
        """Samples of each split that could not be read when it was their turn, where such are skipped (data.onError)."""

    @property
    def splits(self) -> dict[str, int]:
        """Number of samples of each split."""
        return {name: len(split) for name, split in self._splits.items()}

    @cached_property
    def left_out(self) -> dict[str, int]:
        """Rows of each source that could not be read and are in no split, by the first split that it gives."""
        first = {split.source: name for name, split in reversed(self._splits.items())}
        return {name: source.left_out for source, name in first.items() if source.left_out}

    @cached_property
    def overlaps(self) -> dict[str, int]:
        """Samples of a held-out split whose input stands in another split too, like {"test in train": 12}."""
        return overlaps(self._splits)

    @cached_property
    def pins(self) -> dict[str, Any]:
        """What the run starts from, by hash; computed when it is first asked for, since it reads every byte."""
        base, path = self.job.model, self.job.model.path
        data = {split.source: pin_data(split.source) for split in self._splits.values()}
        return {
            "base": {
                "source": base.source,
                "revision": revision(path),
                PINNED: "LoadedFiles",
                "files": hash_files(path, self._model_files()),
            },
            "data": {
                name: {"source": split.source.dataset.source, **data[split.source], "rows": len(split)}
                for name, split in self._splits.items()
            },
        }

    def _model_files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        source = f"spec.model.source {self.job.model.source}"
        random = self.job.model.initialization == "Random"
        return ["config.json"] + ([] if random else weight_files(self.job.model.path, source, library=self._library))

    def lengths(self, split: str) -> np.ndarray:
        """Return the length of each sample of a split, which a batch's size follows; int64 of shape (samples,)."""
        return np.zeros(len(self._splits[split]), dtype=np.int64)

    def check_samples(self, rank: int, world_size: int) -> None:  # noqa: B027 - what lies in memory has been read
        """Read this rank's share of the samples, for some seconds at most; the others are read when it is their turn.

        Raises
        ------
        JobError
            InvalidData: one cannot be read.
        """

    @abstractmethod
    def name_of(self, split: str, index: int) -> str:
        """Return what a JobError's message calls a sample: source, and row or file."""

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do about a model that fails at the samples, in a sentence."""

    @abstractmethod
    def build_model(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""

    def _with_adapter(self, module: nn.Module, head: Collection[str]) -> LoadedModel:
        """Divide a model into blocks and add the job's adapter, if it has one."""
        blocks = find_blocks(module, head)
        if not self.job.adapter:
            return LoadedModel(module, blocks, frozenset())
        return add_adapter(module, blocks, self.job.adapter, seed=self.job.training.seed, base=self.job.model.path)

    def batches(
        self, split: str, batches: Iterable[Sequence[int]], *, epoch_seed: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batch of each list of sample indices, on the CPU.

        An empty list (a worker without a part of a short batch) yields one row of padding with label -100: it runs
        through the model like any other, its loss and its gradients are 0, and metrics and tokens do not count it. So
        every worker takes part in every collective operation.

        Parameters
        ----------
        split
            train, validation or test.
        batches
            Indices into the split, below `splits[split]`; read lazily, a little ahead.
        epoch_seed
            Given in training: what varies at random (augmentation) depends on it and on the sample's index alone,
            so neither on rank nor on world size nor on where a run resumed.

        Notes
        -----
        A sample that cannot be read and is to be skipped keeps its place, and is a row of padding.
        """
        part, unread = self._splits[split], self.unread[split]
        for indices, batch in self._inputs(split, batches, epoch_seed):
            labels = part.labels[np.asarray(indices)] if len(indices) else np.array([IGNORED])
            if not unread.isdisjoint(indices):
                labels = np.where(np.isin(indices, list(unread)), IGNORED, labels)
            yield batch | {"labels": torch.from_numpy(labels)}

    @abstractmethod
    def _inputs(
        self, split: str, batches: Iterable[Sequence[int]], epoch_seed: int | None
    ) -> Iterator[tuple[Sequence[int], Batch]]:
        """Yield each list of indices with the batch's inputs; an empty list with one row of padding."""

    @abstractmethod
    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return logits of shape (samples, classes)."""

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's cross-entropy in nats, float32 of shape (samples,); 0 for a row of padding."""
        return functional.cross_entropy(logits.float(), batch["labels"], reduction="none", ignore_index=IGNORED)

    @abstractmethod
    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return how many tokens that are not padding a batch has; 0 for images."""

    def export(
        self,
        module: nn.Module,
        folder: Path,
        kind: ExportKind,
        *,
        metrics: Mapping[str, float] | None = None,
        usefulness: Usefulness | None = None,
    ) -> None:
        """Write the bare module, on the CPU, as a folder that the plain library loads, with a model card.

        Parameters
        ----------
        module
            As build_model() made it, unwrapped; it is not changed.
        folder
            Created if need be.
        kind
            Model (without an adapter), Adapter (adapter and head, for PEFT) or Merged (the adapter folded into its
            base: a folder as of kind Model).
        metrics, usefulness
            For the model card.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "Adapter":
            assert self.job.adapter is not None  # the rules of the API
            save_adapter(module, folder, self.job.adapter, base=self.job.model.path, initial=self.build_model)
        else:
            from unfreeze_trainer.models.adapters.peft import merged

            self._save(merged(module) if kind == "Merged" else module, folder)
        self._save_preprocessing(folder)
        library = self._loaded_by(kind).rpartition("-")
        write_card(
            folder,
            self.job,
            self.pins,
            library="peft" if library[0] == "peft" else library[2],
            usage=self.usage(kind, ".", self.job.model.path),
            metrics=metrics,
            usefulness=usefulness,
        )

    def exportable(self, module: nn.Module, kind: ExportKind) -> nn.Module:  # noqa: ARG002 - the same for each kind
        """Return the module that an export of a kind is written from."""
        return module

    def verify_export(self, folder: Path, kind: ExportKind, module: nn.Module) -> None:
        """Load an export with the plain library in a fresh process and compare logits on a few samples.

        Raises
        ------
        RuntimeError
            It does not load, gives other logits or has other labels.
        """
        batch = next(self.batches("validation", [range(min(VERIFIED_SAMPLES, len(self._splits["validation"])))]))
        training = module.training
        module.eval()
        with torch.no_grad():
            expected = self.forward(module, batch).float()
        if training:
            module.train()
        inputs = self._plain_inputs(batch) | {"classes": len(self.labels)}
        compare(self._loaded_by(kind), folder, self.job.model.path, inputs, expected=expected, labels=self.labels)

    _library: str
    """transformers or timm."""

    def _loaded_by(self, kind: ExportKind) -> str:
        """Return what models/plain.py calls the way to load an export."""
        if kind != "Adapter":
            return self._library
        assert self.job.adapter is not None  # the rules of the API
        return f"{'bottleneck' if self.job.adapter.of(BottleneckSpec) else 'peft'}-{self._library}"

    def _adapter_usage(self, folder: str) -> str:
        """Return the lines of Python that load an adapter onto `base`, as `model`."""
        if self._loaded_by("Adapter").startswith("peft"):
            return f"from peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base, {json.dumps(folder)}).eval()"
        script = f"{folder}/bottleneck.py"
        return (
            f'import runpy\n\nmodel = runpy.run_path({json.dumps(script)})["load"](base, {json.dumps(folder)}).eval()'
        )

    @abstractmethod
    def _save(self, module: nn.Module, folder: Path) -> None:
        """Write a module without an adapter, with what its library needs."""

    @abstractmethod
    def _save_preprocessing(self, folder: Path) -> None:
        """Write what turns inputs into tensors, in so far as the library keeps it beside the weights."""

    @abstractmethod
    def usage(self, kind: ExportKind, folder: str, base: str) -> str:
        """Return the lines of Python that load an export with the plain library and predict: what people are shown.

        Parameters
        ----------
        kind
            Of the export.
        folder, base
            Where the export and its base model lie, as the lines shall have it.
        """

    @abstractmethod
    def _plain_inputs(self, batch: Batch) -> dict[str, Any]:
        """Return what models/plain.py computes the logits of the first validation samples from."""
