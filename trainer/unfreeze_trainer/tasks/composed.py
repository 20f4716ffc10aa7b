"""Task = objective x modality x library: each part knows its own trade, none knows the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.report import Usefulness
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.data.order import balanced_chances
from unfreeze_trainer.data.overlaps import learned_before, overlaps
from unfreeze_trainer.data.pins import PINNED, pin_data
from unfreeze_trainer.data.rows import row_columns
from unfreeze_trainer.data.samples import Split, doubts_of, read_splits, target_kind
from unfreeze_trainer.data.unlabelled import FEWEST_ANCHORS, check_anchor, read_anchor
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.base import ExportKind, Library
from unfreeze_trainer.modalities.base import Modality, Question
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.card import write_card
from unfreeze_trainer.models.export import Plain, compare
from unfreeze_trainer.models.folders import hash_files, revision
from unfreeze_trainer.models.home import home_of
from unfreeze_trainer.models.own_head import OwnHead
from unfreeze_trainer.objectives.base import IGNORED, SAMPLES, TARGETS, Objective
from unfreeze_trainer.objectives.coupled import Coupled
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.tasks.base import Batch, Task

if TYPE_CHECKING:
    import pyarrow as pa

VERIFIED_SAMPLES = 4
"""Samples whose outputs an export is compared on."""


class ComposedTask(Task):
    """A task of three parts.

    Parameters
    ----------
    job
        The resolved job.
    objective
        Makes the objective of what the training data says.
    modality, library
        Not open yet.

    Raises
    ------
    JobError
        InvalidData, InvalidModel or InvalidJob, before anything is trained.
    """

    beside: str | None = None
    """Folder of a finished adapter that is asked, and not trained."""

    def __init__(
        self, job: ResolvedJob, objective: Callable[[Any], Objective], modality: Modality, library: Library
    ) -> None:
        self.job, self.modality, self.library = job, modality, library
        learned, self._splits = self.read()
        modality.warnings += doubts_of(learned, self._splits["train"])
        self.objective = objective(learned)
        library.open(self.objective)
        modality.open()
        self.labels, self.metrics, self.couples = learned.labels, self.objective.metrics, self.objective.couples
        self.blank_loss, self.not_convex = self.objective.blank_loss, self.objective.not_convex
        self.answers = self.objective.answers
        metric = job.metric.name
        if why := self.metrics.undefined(self._splits["validation"].targets).get(metric):
            raise JobError(
                "InvalidData",
                f"spec.training.metric {metric} has no value for spec.data.validation: {why}, or choose another metric",
            )
        self.splits = {name: len(split) for name, split in self._splits.items()}
        self.unread = {name: set() for name in self._splits}
        self._pinning: Future[dict[str, Any]] | None = None

    def _require_others(self) -> None:
        """Raise JobError where each step has one sample, of a task that learns by comparing it with others."""
        if self.couples and self.job.training.batch_size == 1:
            raise JobError(
                "InvalidJob",
                "spec.training.batchSize: a step of one sample has nothing that does not belong to it, by which"
                f" {self.job.task.type} learns: give as many as you can, and bound the memory by"
                " spec.training.gradientAccumulationSteps",
            )

    def read(self) -> tuple[Encoder[Any], dict[str, Split]]:
        """Return what there is to predict, and the splits. JobError as of `read_splits`."""
        return read_splits(self.job, self.modality.read, target_kind(self.job))

    @cached_property
    def left_out(self) -> dict[str, int]:
        """Rows of each source that could not be read and are in no split, by the first split that it gives."""
        first = {split.source: name for name, split in reversed(self._splits.items())}
        return {name: source.left_out for source, name in first.items() if source.left_out}

    @property
    def warnings(self) -> Sequence[str]:
        """What of the data the model does not see or learn, in sentences for log and report; they have been logged."""
        return self.modality.warnings

    @cached_property
    def overlaps(self) -> dict[str, int]:
        """Samples of a held-out split whose input stands in another split too, like {"test in train": 12}."""
        return overlaps(self._splits)

    def learned_before(self, name: str, stage: Task) -> dict[str, int]:
        """Return how many samples of held-out splits have an input that a stage trains on, like {"test in stage domain": 12}."""
        return self._learned(name, stage._splits["train"]) if isinstance(stage, ComposedTask) else {}  # noqa: SLF001 - of this kind

    def _learned(self, name: str, learned: Split) -> dict[str, int]:
        return learned_before(self._splits, name, learned)

    @property
    def made_to_hear(self) -> int | None:
        """Seconds of each clip that the model was made to hear."""
        return self.modality.made_to_hear

    @cached_property
    def pins(self) -> dict[str, Any]:
        """What the run starts from, by hash; computed when it is first asked for, or by `pin_beside`, since it reads every byte."""
        return self._pinning.result() if self._pinning else self._pin()

    def pin_beside(self) -> None:
        """Hash in a thread, from now on: a model is read meanwhile, and its bytes come from the disk once."""
        if self.job.guard:
            self.looked_at()  # reads the anchor here, and not in both threads
        pool = ThreadPoolExecutor(1, thread_name_prefix="pins")
        self._pinning = pool.submit(self._pin)
        pool.shutdown(wait=False)

    def _pin(self) -> dict[str, Any]:
        path = self.job.model.weights_path
        splits = dict(self._splits)
        if self.job.guard and self._anchor:  # it is trained on, or says how
            splits["anchor"] = self._anchor
        return self._pinned(revision(path), hash_files(path, self.library.files()), splits)

    def _pinned(self, commit: str | None, files: Mapping[str, str], splits: Mapping[str, Split]) -> dict[str, Any]:
        """Return pins of splits, and of a base of which the files that are loaded have been hashed, with its revision at a hub."""
        sources = dict.fromkeys(split.source for split in splits.values())
        data = {source: pin_data(source) for source in sources}
        return {
            "base": {
                "source": self.job.model.described,
                "revision": commit,
                PINNED: "LoadedFiles",
                "files": dict(files),
            },
            "data": {
                name: {"source": split.source.dataset.source, **data[split.source], "rows": len(split)}
                for name, split in splits.items()
            },
        }

    @cached_property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples, in a sentence."""
        return self.modality.remedy

    def units(self, split: str) -> np.ndarray:
        """Return how many units of the loss each sample has, int64 of shape (samples,)."""
        return self._splits[split].targets.units

    def chances(self, split: str) -> np.ndarray | None:
        """Return the probability with which each sample of a split is drawn; None where each comes once in an epoch."""
        return balanced_chances(self._splits[split].targets.groups) if self.objective.balances else None

    def groups(self, split: str) -> np.ndarray:
        """Return which group each sample is of, as of `Targets`; int64 of shape (samples,)."""
        return self._splits[split].targets.groups

    def lengths(self, split: str) -> np.ndarray:
        """Return the length of each sample of a split, int64 of shape (samples,)."""
        return self.modality.lengths(self._splits[split])

    def extents(self, split: str) -> np.ndarray:
        """Return how large each sample of a split is, int64 of shape (samples,)."""
        return self.modality.extents(self._splits[split])

    def heard_in_part(self, split: str) -> str:
        """Return how many samples of a split the model reads the beginning of alone, for people; empty where there are none."""
        return self.modality.heard_in_part(self._splits[split])

    def check_samples(self, rank: int, world_size: int) -> None:
        """Read this rank's share of the samples, for some seconds at most. JobError InvalidData."""
        self.modality.check(self._splits, rank, world_size)

    def name_of(self, split: str, index: int) -> str:
        """Return what a JobError's message calls a sample: source, and row or file."""
        part = self._splits[split]
        return self.modality.name_of(part.source, int(part.rows[index]))

    def batches(
        self, split: str, batches: Iterable[Sequence[int]], *, epoch_seed: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batch of each list of sample indices, on the CPU: inputs and targets."""
        part, unread = self._splits[split], self.unread[split]
        for indices, inputs in self.modality.batches(part, batches, epoch_seed, unread):
            yield inputs | self.objective.collate(part.targets, indices, unread)

    @cached_property
    def _anchor(self) -> Split | None:
        """Rows that the base is good at, without their targets."""
        source = read_anchor(self.job, self.modality.read)
        if source is None:
            return None
        count = len(source.inputs)
        nothing = np.zeros(count, dtype=np.int64)
        return Split(source, np.arange(count), Targets(nothing, np.ones(count, dtype=np.int64), nothing))

    def _watched(self, split: str) -> Split:
        if split == "anchor":
            assert self._anchor is not None
            return self._anchor
        return self._splits[split]

    def looked_at(self) -> tuple[str, int]:
        """Return where the base is looked at, anchor or validation, and how many samples there are. JobError InvalidData."""
        if self._anchor is None:
            split, count = super().looked_at()
            if count < FEWEST_ANCHORS:
                raise JobError(
                    "InvalidData",
                    f"spec.data.validation: {count} rows tell nothing of what a model has lost: hold out {FEWEST_ANCHORS} or more, or"
                    " set spec.evidence.forgetting.anchor",
                )
            return split, count
        check_anchor(self._anchor.source)
        return "anchor", len(self._anchor)

    def unlabelled(self, split: str, batches: Iterable[Sequence[int]], unread: set[int]) -> Iterator[Batch]:
        """Yield the inputs of each list of sample indices, on the CPU; an empty list gives a row of padding."""
        for _, inputs in self.modality.batches(self._watched(split), batches, None, unread):
            yield inputs

    def own_head(self) -> OwnHead | None:
        """Return the head that the base brings along, None where it has none that can be put back."""
        return self.library.own_head()

    def words(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, int] | None:
        """Return which tokens of a batch are words, bool of shape (samples, tokens), and the token that masks one."""
        tokenizer = getattr(self.modality, "tokenizer", None)
        if tokenizer is None or getattr(tokenizer, "mask_token_id", None) is None or "input_ids" not in inputs:
            return None
        special = torch.tensor(tokenizer.all_special_ids)
        return ~torch.isin(inputs["input_ids"], special), int(tokenizer.mask_token_id)

    def repeats(self, split: str) -> bool:
        """Return whether the inputs of a split's samples are the same each time."""
        return split != "train" or not self.modality.varies

    def remembered(self, split: str, batches: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], Batch]]:
        """Yield each list of sample indices with its batch, without inputs that would be read from files."""
        part, unread = self._splits[split], self.unread[split]
        for indices, inputs in self.modality.remembered(part, batches):
            lost = [place for place, index in enumerate(indices) if index in unread]
            if lost and TARGETS in inputs:  # a blank lies in the cache in the place of each
                inputs[TARGETS][lost] = IGNORED
            yield indices, inputs | self.objective.collate(part.targets, indices, unread)

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return how many tokens that are not padding a batch has, without rows of padding."""
        return self.modality.tokens(batch, self.objective.counted(batch))

    def rows_of(self, split: str) -> np.ndarray:
        """Return how many rows of predictions each sample has, int64 of shape (samples,)."""
        return self.objective.rows_of(self._splits[split].targets)

    def known(self, split: str, samples: np.ndarray, *, inputs: bool) -> dict[str, pa.Array]:
        """Return row, counted from 1, word where samples have words, the label, and the input if asked for."""
        assert self.answers is not None
        label = self.answers.labels(self._splits[split].targets.values[samples])
        return self.rows(split, samples, inputs=False) | {"label": label} | self.rows(split, samples, inputs=inputs)

    def rows(self, split: str, samples: np.ndarray, *, inputs: bool) -> dict[str, pa.Array]:
        """Return row, counted from 1, word where samples have words, and the input if asked for."""
        part = self._splits[split]
        rows, count = part.rows[samples], self.rows_of(split)[samples]
        found = row_columns(part.source, rows, count, words=self.objective.has_words)
        return found | (self.modality.shown(part.source, rows, count) if inputs else {})

    def raw(self, split: str, samples: np.ndarray) -> tuple[Iterator[Any], np.ndarray]:
        """Return some samples as the data has them: inputs, and targets as `Targets.values` has them."""
        part = self._splits[split]
        inputs = (self.modality.raw(part.source, int(row)) for row in part.rows[samples])
        return inputs, part.targets.values[samples]

    def asked(self, split: str, index: int) -> Question | None:
        """Return what a model that makes texts is asked of a sample; None where there is nothing to ask."""
        return self.modality.asked(self._splits[split], index)

    def source_of(self, split: str) -> str | None:
        """Return where the rows of a split lie, as in the manifest."""
        return self._splits[split].source.dataset.source

    def keep(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what `answers` takes of each row of a batch, and the rows' states."""
        return self.objective.keep(outputs, batch)

    def build_model(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        return self.library.build()

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the model's outputs, of shape (samples, outputs)."""
        inputs = {name: tensor for name, tensor in batch.items() if name not in (TARGETS, SAMPLES)}
        return self.library.forward(module, inputs)

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the losses of each sample's units, float32 of shape (samples,); 0 for a row of padding."""
        return self.objective.loss(outputs, batch)

    def coupled(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return which rows of a batch are samples and no padding, and the targets of all."""
        return self.objective.counted(batch), batch[TARGETS]

    def coupled_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample among all of a step, float32 of shape (samples,)."""
        assert isinstance(self.objective, Coupled)
        return self.objective.losses(outputs, targets)

    def exportable(self, module: nn.Module, kind: ExportKind) -> nn.Module:
        """Return the module that an export of a kind is written from."""
        return self.library.exportable(module, kind)

    def export(
        self,
        module: nn.Module,
        folder: Path,
        kind: ExportKind,
        *,
        metrics: Mapping[str, float] | None = None,
        usefulness: Usefulness | None = None,
    ) -> None:
        """Write the bare module, on the CPU, as a folder that the plain library loads, with a model card."""
        folder.mkdir(parents=True, exist_ok=True)
        self.library.save(module, folder, kind, initial=self.build_model)
        self.modality.save(folder)
        plain = self.plain(kind, ".", home_of(self.job.model).name)
        write_card(
            folder,
            self.job,
            self.pins,
            library=plain.library,
            usage=plain.usage,
            metrics=metrics,
            usefulness=usefulness,
        )

    def plain(self, kind: ExportKind, folder: str, base: str) -> Plain:
        """Return how an export is loaded without Unfreeze."""
        return self.library.plain(kind, folder, base, self.modality.example)

    def verify_export(self, folder: Path, kind: ExportKind, module: nn.Module) -> None:
        """Load an export in a fresh process, by the lines that people are shown, and compare outputs on a few samples."""
        batch, samples = self.first_samples()
        training = module.training
        module.eval()
        with torch.no_grad():
            expected = self.compared(module, batch).float()
        if training:
            module.train()
        plain = self.library.proof(kind, str(folder), self.job.model.weights_path, self.modality.example)
        compare(plain, folder, samples, expected=expected, names=self.objective.outputs, scale=self.objective.scale)

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return what `Plain.outputs` gives for a batch's samples."""
        return self.forward(module, batch)

    def first_samples(self) -> tuple[Batch, Any]:
        """Return the batch of the first validation samples, and these as `Plain.outputs` takes them."""
        split = self._splits["validation"]
        count = min(VERIFIED_SAMPLES, len(split))
        [batch] = self.batches("validation", [range(count)])
        batch = dict(self.modality.as_samples(batch))
        return batch, self.modality.samples(split, count, batch)

    def usage(self, kind: ExportKind, folder: str, base: str) -> str:
        """Return the lines of Python that load an export with the plain library and predict: what people are shown."""
        return self.plain(kind, folder, base).usage
