"""What all libraries have in common: the model's folder, adapters, and how others load what is written."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from unfreeze_api.adapters.bottleneck import BottleneckSpec
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters import add_adapter, save_adapter
from unfreeze_trainer.models.blocks import HEAD, Block, find_blocks
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import check_folder, weight_files
from unfreeze_trainer.models.home import home_of, name_base
from unfreeze_trainer.models.loading import not_wrapped
from unfreeze_trainer.models.own_head import OwnHead, transformers_own_head
from unfreeze_trainer.models.own_type import HALVES, as_in_files, file_types, shapes_alone

ExportKind = Literal["Model", "Adapter", "Merged"]
"""Model (without an adapter), Adapter (adapter and head), Merged (the adapter folded into its base: as of kind Model)."""


class Head(Protocol):
    """What a library has to know of an objective."""

    outputs: Sequence[str]
    """What each output of the model stands for."""
    scale: tuple[Sequence[float], Sequence[float]] | None
    """Factor and offset of each output, by which an export gives it in the units of the data; None where it does so."""

    @property
    def problem_type(self) -> str:
        """What the outputs are to each other, in transformers' words."""

    @property
    def pipelined(self) -> bool:
        """Whether the library's own pipeline gives the answer."""

    def answer(self, outputs: str, /) -> str:
        """Return an expression for what the model says, of one for its outputs; `labels` are their names."""


class Library(ABC):
    """A library with the model's folder, which is checked.

    Parameters
    ----------
    job
        Its model, adapter and seed count.

    Raises
    ------
    JobError
        InvalidModel: the folder is none of this library's.
    """

    name: ClassVar[Literal["transformers", "timm"]]
    headless: ClassVar[bool] = False
    """Whether its models have no head: a block without parameters stands for one."""
    head: Head

    def __init__(self, job: ResolvedJob) -> None:
        self.job = job
        self.path, self.where = job.model.weights_path, f"spec.model.source {job.model.source}"
        self._random = job.model.initialization == "Random"
        self.config = check_folder(self.path, job.model.source, library=self.name, weights=not self._random)
        """What the folder's config.json holds."""

    @property
    def bases(self) -> Sequence[Any]:
        """Whatever has a folder of a pretrained model, with its `path` and `where`: itself, or each of several."""
        return [self]

    def open(self, head: Head) -> None:
        """Take what the data says, before anything is built."""
        self.head = head

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return ["config.json"] + ([] if self._random else weight_files(self.path, self.where, library=self.name))

    @abstractmethod
    def build(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""

    def _with_adapter(self, module: nn.Module, head: Collection[str]) -> LoadedModel:
        """Divide a model into blocks and add the job's adapter, if it has one."""
        blocks = find_blocks(module, head, by_use=self.job.semantics.blocks == "ByUse")
        if self.headless:
            blocks = [*blocks, Block(HEAD, ())]
        if not self.job.adapter:
            return LoadedModel(module, blocks, frozenset())
        options: dict[str, Any] = {"seed": self.job.training.seed, "base": self.path}
        options["whole_heads"] = self.job.semantics.heads == "Whole"
        with shapes_alone():  # PEFT asks each layer for its weight many times
            return add_adapter(module, blocks, self.job.adapter, **options, reach_experts=self._reaches_experts)

    @property
    def _reaches_experts(self) -> bool:
        return self.job.semantics.experts == "Adapted"

    def own_head(self) -> OwnHead | None:
        """Return the head that the base brings along, None where it has none that can be put back."""
        return transformers_own_head(self.path, self.where)

    @abstractmethod
    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs, of shape (samples, outputs)."""

    def exportable(self, module: nn.Module, kind: ExportKind) -> nn.Module:  # noqa: ARG002 - the same for each kind
        """Return the module that an export of a kind is written from."""
        return module

    def merged(self, module: Any) -> nn.Module:
        """Return a copy of whatever has the adapter, with that folded in; the module stays as it is."""
        from unfreeze_trainer.models.adapters.peft import merged

        return merged(module)

    def save(self, module: nn.Module, folder: Path, kind: ExportKind, *, initial: Callable[[], LoadedModel]) -> None:
        """Write the bare module, on the CPU; it is not changed.

        Parameters
        ----------
        module
            As `build` made it, unwrapped.
        folder
            It exists.
        kind
            Of the export.
        initial
            Returns the same model as it was before training.
        """
        if kind == "Adapter":
            assert self.job.adapter is not None  # the rules of the API
            save_adapter(module, folder, self.job.adapter, base=self.path, initial=initial)
            name_base(folder, home_of(self.job.model))
            return
        whole = self.merged(module) if kind == "Merged" else module
        with not_wrapped(), as_in_files(whole, self.path if self.name == "transformers" else None, folder):
            self._save(whole, folder)

    @abstractmethod
    def _save(self, module: Any, folder: Path) -> None:
        """Write a module without an adapter, with what the library needs."""

    def plain(self, kind: ExportKind, folder: str, base: str, example: Example) -> Plain:
        """Return how an export is loaded without Unfreeze: the one place that says so.

        Parameters
        ----------
        kind
            Of the export.
        folder, base
            Where the export and its base model lie, as the lines shall have it.
        example
            An input of the model.
        """
        return self._plain_adapter(folder, base, example) if kind == "Adapter" else self._plain(folder, example)

    def proof(self, kind: ExportKind, folder: str, base: str, example: Example) -> Plain:
        """Return how an export's verification loads it: as `plain`, but where that library is not installed."""
        return self.plain(kind, folder, base, example)

    @abstractmethod
    def _plain(self, folder: str, example: Example) -> Plain:
        """Return how a whole model is loaded."""

    @abstractmethod
    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        """Return how an adapter is loaded."""

    @property
    def _in_float32(self) -> str:
        """Return what from_pretrained is told beside a base, if its folder says another type: float32, as it was trained on."""
        said = self.config.get("dtype") or self.config.get("torch_dtype")
        halves = said != "float32" if said else not HALVES.keys().isdisjoint(file_types(self.path).values())
        return ', dtype="float32"' if halves else ""

    @property
    def _writes_peft(self) -> bool:
        assert self.job.adapter is not None  # the rules of the API
        return self.job.adapter.of(BottleneckSpec) is None

    @property
    def _adapter_library(self) -> str:
        return "peft" if self._writes_peft else self.name

    def _adapter_lines(self, folder: str) -> str:
        """Return the lines of Python that load an adapter onto `base`, as `model`."""
        if self._writes_peft:
            return f"from peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base, {json.dumps(folder)}).eval()"
        script = json.dumps(f"{folder}/bottleneck.py")
        return f'import runpy\n\nmodel = runpy.run_path({script})["load"](base, {json.dumps(folder)}).eval()'
