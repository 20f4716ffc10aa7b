"""The interface of an engine, and what all engines share: device, precision, optimizer, small collectives."""

from __future__ import annotations

import io
import logging
import math
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.distributed import distributed_c10d

from unfreeze_trainer.engines.bits import bit_sum
from unfreeze_trainer.engines.optimizers import build_optimizer, take_step
from unfreeze_trainer.engines.parts import compile_blocks
from unfreeze_trainer.engines.scaling import LossScale
from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.models.own_type import widen

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.models.blocks import Block
    from unfreeze_trainer.phases.freezer import ParamGroup

log = logging.getLogger(__name__)

T = TypeVar("T")
OptimizerState = Mapping[str, Mapping[str, Tensor]]
"""State of the optimizer by name of the parameter, whole tensors: {"head.weight": {"exp_avg": ..., "step": ...}}."""

PRECISIONS = {torch.float32: "Float32", torch.bfloat16: "BFloat16", torch.float16: "Float16"}
"""The API's word for each type that a computation may have."""

PATIENCE = timedelta(minutes=30)
"""torch's own for gloo."""


@dataclass(frozen=True)
class Recipe:
    """What an engine has to know of the job."""

    optimizer: Literal["AdamW", "SGD"] = "AdamW"
    max_grad_norm: float = 1.0
    """0 does not clip."""
    precision: Literal["Auto", "Float32", "BFloat16", "Float16"] = "Auto"
    compile: bool = False
    """Whether the blocks are compiled."""
    patience: timedelta = PATIENCE
    """How long a rank waits in a collective for the others: one of them may export, or hash, for as long as it may be silent."""

    @classmethod
    def of(cls, job: ResolvedJob) -> Recipe:
        """Take the recipe out of a job."""
        training, silent = job.training, timedelta(seconds=job.hang_timeout_seconds or 0)
        return cls(
            training.optimizer, training.max_grad_norm, training.precision, training.compile, max(PATIENCE, silent)
        )


class Engine(ABC):
    """Keeps one module in step over all ranks.

    Weights that train are float32 in every engine and the computation runs under autocast: what is saved is what was
    trained, a block that is unfrozen late starts from its exact pretrained weights, and engines agree to rounding. Those
    that are frozen may lie in the type of their file (see models/own_type.py), which is as exact.

    `model` is what the training calls, `module` the same network without the wrapper; both compute only between `begin`
    and `end`. An engine may hold its parameters in shares: their sizes are in `shapes`, their values come and go whole
    through `weights` and `load_weights`, their identity is `checksums`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        _stand_alone()
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.dtype = compute_dtype(recipe.precision, self.device)
        """Type of the computation, under autocast unless it is float32."""
        self._skips: list[Tensor] = []
        self.loss_scale = LossScale(self.device) if self.dtype is torch.float16 else None
        self.module: nn.Module
        self.model: nn.Module
        self.optimizer: torch.optim.Optimizer
        self.shapes: dict[str, torch.Size] = {}
        """Of each whole parameter by name, in the order of named_parameters()."""
        self._rates: list[float] = []
        self.after_update: Callable[[], None] = _nothing
        """Called in each step, skipped ones too, between the change of the weights and the end of their gradients, by the
        engines that hold gradients whole (DDP, ZeRO-0)."""

    # Where engines differ.

    @abstractmethod
    def begin(self, groups: Sequence[ParamGroup], moments: OptimizerState | None = None) -> None:
        """Start a phase: train exactly these groups, after the end of the phase before.

        requires_grad is already set. Parameters in `moments` continue with them; without it those that the phase before
        trained continue with what it left. Collective.
        """

    @abstractmethod
    def micro_step(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return the context of one micro batch; gradients are exchanged on the last one only, where possible."""

    @abstractmethod
    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of a loss. The gradient of a step is the mean over ranks of what they add."""

    @abstractmethod
    def step(self) -> None:
        """Clip to the global norm, change the weights, forget the gradients.

        Where the norm is not finite the weights and moments stay as they are on every rank, and `skips` says so.
        """

    @abstractmethod
    def optimizer_state(self) -> OptimizerState:
        """Return the optimizer's state by name on rank 0, whole tensors on the CPU; nothing elsewhere. Collective."""

    @abstractmethod
    def end(self) -> None:
        """Release what the phase held besides the weights; nothing to do before the first one."""

    # Where those differ that hold the weights in shares.

    divides = False
    """Whether weights are held in shares: a whole model may be too large for the device."""

    def attach(
        self,
        module: nn.Module,
        blocks: Sequence[Block],
        unused: Collection[str] = (),  # noqa: ARG002 - where nothing is divided, all are whole
    ) -> None:
        """Take a module over, with its blocks, and put it on the device. Called once, before the first phase.

        Parameters without a gradient in any step, `unused`, may be left whole.
        """
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self.module = self.model = module.to(self.device)
        if self.recipe.compile:
            compile_blocks(module, blocks)

    def expect_missing(self, names: Sequence[str]) -> None:
        """Be ready for steps that give some parameters no gradient, on one rank or on all. Before a phase begins.

        Parameters
        ----------
        names
            That have shown it; others may do it too.

        Raises
        ------
        JobError
            UnsupportedModel: the engine would wait for these gradients, or take others for them.
        """
        if names:
            raise JobError(
                "UnsupportedModel",
                "spec.distribution.engine: DeepSpeed, and FSDP on several workers, need every gradient in every step, and"
                f" this model gives some weights one in some steps only: {some_of(names)}. Choose DDP",
            )

    def weights(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return copies of parameters on rank 0, whole, on the CPU, in the type that they lie in; nothing elsewhere. Collective."""
        if self.rank:
            return {}
        return {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in self.module.named_parameters()
            if name in names
        }

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set parameters and persistent buffers from whole tensors, the same on every rank.

        Not between the steps of a phase: the optimizer may hold a float32 copy of its own.
        """
        widen(self.module, weights.keys())  # what was trained once is float32, also where it no longer trains
        load_whole(self.module, weights)

    def held(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what this rank holds of each parameter, by name: it may be changed in place between steps, on all ranks alike."""
        for name, parameter in self.module.named_parameters():
            yield name, parameter.detach()

    def checksums(self) -> Tensor:
        """Return the weighed sum of the bits of each whole parameter as this rank holds it, int64 on the CPU, as `shapes`.

        See `bits`. Ranks that hold copies of a parameter may differ; of one that is held in shares, each rank returns the
        sum over all of them. Nothing is copied: one pass over what a rank holds. Collective.
        """
        parameters = self.module.parameters()
        return torch.stack([bit_sum(parameter, salt=number) for number, parameter in enumerate(parameters)]).cpu()

    # What they share.

    def _thaw(self, groups: Sequence[ParamGroup]) -> None:
        """Make float32 of what a phase trains, from the same bits, where it lay frozen in half precision; it stays so."""
        names = {name for group in groups for name in group.names}
        if not self.divides and (more := widen(self.module, names)):
            log.info("%.0f MiB of weights that train from here on have become float32", 2 * more / 2**20)

    def set_learning_rates(self, factor: float, *, held: float = math.inf) -> None:
        """Set each group's learning rate to its peak times a factor; to its peak alone where that is above `held`."""
        for group, peak in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = peak * factor if peak <= held else peak

    @property
    def steps_unseen(self) -> int:
        """How many steps `skips` would tell of."""
        return len(self._skips)

    @property
    def skipped(self) -> bool:
        """Whether the newest step has left the weights as they were, since its gradients were not finite. Waits for the device."""
        return bool(self._skips[-1])

    def skips(self) -> list[bool]:
        """Return of each step since the last call whether it was skipped, the same on every rank. Waits for the device."""
        seen, self._skips = self._skips, []
        return torch.stack(seen).tolist() if seen else []

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that a forward pass runs in."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the batch on this rank's device."""
        if self.device.type == "cpu":
            return batch
        # What is not pinned would be waited for.
        return {name: tensor.pin_memory().to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def all_reduce(self, tensor: Tensor, op: Any = dist.ReduceOp.SUM) -> Tensor:
        """Reduce a tensor over all ranks in place and return it, on the device it came on."""
        if self.world_size == 1:
            return tensor
        there = tensor.to(self.device)
        dist.all_reduce(there, op)
        return tensor.copy_(there) if there is not tensor else tensor

    def any_rank(self, value: bool) -> bool:
        """Whether a value is true on any rank. Collective."""
        return bool(self.all_reduce(torch.tensor([float(value)]), dist.ReduceOp.MAX).item())

    def broadcast_object(self, value: Any, *, source: int = 0) -> Any:
        """Return one rank's value on every rank. Collective.

        Parameters
        ----------
        value
            Tensors, numbers, texts, and dicts and lists of them: nothing else is taken from another rank.
        source
            Whose value it is.
        """
        if self.world_size == 1:
            return value
        file = io.BytesIO()
        if self.rank == source:
            torch.save(value, file)
        size = int(self.all_reduce(torch.tensor([file.tell()])).item())  # the others have nothing
        content = torch.frombuffer(bytearray(file.getvalue() or bytes(size)), dtype=torch.uint8).to(self.device)
        dist.broadcast(content, src=source)
        return torch.load(io.BytesIO(content.cpu().numpy().tobytes()), weights_only=True)

    def broadcast_json(self, value: T, kind: Any) -> T:
        """Return rank 0's value of a type that pydantic knows on every rank. Collective."""
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        return adapter.validate_json(self.broadcast_object(adapter.dump_json(value).decode()))

    def gather_json(self, value: T, kind: Any) -> list[T]:
        """Return the values of all ranks, of a type that pydantic knows. Collective."""
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        if self.world_size == 1:
            return [value]
        text = adapter.dump_json(value)
        sizes = torch.zeros(self.world_size, dtype=torch.int64)
        sizes[self.rank] = len(text)
        sizes = self.all_reduce(sizes).cpu()
        mine = torch.frombuffer(bytearray(text.ljust(int(sizes.max()), b" ")), dtype=torch.uint8).to(self.device)
        found = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(found, mine)
        return [adapter.validate_json(each.cpu().numpy().tobytes()) for each in found]

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, those of rank 0 first, where these are. Collective.

        Parameters
        ----------
        rows
            Of shape (rows, columns); ranks may have different numbers of them, but of as many columns.
        """
        if self.world_size == 1:
            return rows
        start, total = self.place_of(len(rows))
        whole = rows.new_zeros(total, *rows.shape[1:])
        whole[start : start + len(rows)] = rows
        return self.all_reduce(whole)  # the others have 0 there

    def place_of(self, count: int) -> tuple[int, int]:
        """Return how many rows the ranks before this one have, and how many all have; `count` are its own. Collective."""
        counts = torch.zeros(self.world_size, dtype=torch.int64)
        counts[self.rank] = count
        counts = self.all_reduce(counts)
        return int(counts[: self.rank].sum()), int(counts.sum())

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.any_rank(False)

    def whole(self) -> AbstractContextManager[Any]:
        """Let parts of the module be called that its own forward does not lead to, as those that generate do. Collective."""
        return nullcontext()

    def sync_buffers(self) -> None:
        """Give every rank the persistent buffers (BatchNorm statistics) of rank 0, as DDP does before each forward.

        Done before they are read instead: in training they do not enter the computation. Collective.
        """
        if self.world_size > 1:
            for buffer in persistent_buffers(self.module).values():
                dist.broadcast(buffer, src=0)

    def close(self) -> None:
        """Leave the process group."""
        self.end()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _join_group(self) -> None:
        """Join the process group."""
        cpu = self.device.type == "cpu"
        if not cpu:
            torch.cuda.set_device(self.device)
        if not dist.is_initialized():
            dist.init_process_group("gloo" if cpu else "cpu:gloo,cuda:nccl", timeout=self.recipe.patience)

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss * self.loss_scale.value if self.loss_scale else loss

    def _take_step(self, parameters: Collection[Tensor]) -> None:
        """Be `step`, for gradients that lie in parameters. Waits for the device only under SGD, which has no fused skip."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        limit, scale = self.recipe.max_grad_norm, self.loss_scale
        norm = self._norm(gradients)
        if scale:
            torch._foreach_mul_(gradients, 1 / scale.value)
            norm = norm / scale.value
        skip = ~norm.isfinite()
        self._skips.append(skip)
        if scale:
            scale.update(skip)
        if limit:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        take_step(self.optimizer, skip)
        self.after_update()
        self.optimizer.zero_grad(set_to_none=True)

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """Return the norm of gradients that are the same on every rank."""
        return torch.nn.utils.get_total_norm(gradients)

    def _new_optimizer(self, groups: Sequence[ParamGroup], parameters: Mapping[str, Tensor]) -> None:
        """Make the optimizer of a phase, for those of its parameters that this rank changes.

        Groups of one learning rate and decay are one to the optimizer, which takes a step group by group.
        """
        merged: dict[tuple[float, float], list[Tensor]] = {}
        for group in groups:
            mine = [parameters[name] for name in group.names if name in parameters]
            merged.setdefault((group.lr, group.weight_decay), []).extend(mine)
        self._rates = [lr for lr, _ in merged]
        self.optimizer = build_optimizer(
            self.recipe.optimizer, [(tensors, lr, decay) for (lr, decay), tensors in merged.items()]
        )


def _nothing() -> None:
    pass


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type that training.precision means on a device.

    Raises
    ------
    JobError
        Float16 without an accelerator: a CPU computes it element by element.
    """
    if precision == "Float16" and device.type == "cpu":
        raise JobError(
            "PrecisionNotSupported",
            "spec.training.precision Float16 needs an accelerator, and this worker has none: ask for one in"
            " spec.distribution.resourcesPerNode.limits, or choose Auto, Float32 or BFloat16",
        )
    if precision == "Auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    return next(dtype for dtype, name in PRECISIONS.items() if name == precision)


def _stand_alone() -> None:
    """Describe a group of this process alone, when no launcher has described another."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def refuse_pickles() -> None:
    """Let no library unpickle what comes from another rank: whoever reaches a worker's port could run code in it."""
    distributed_c10d._tensor_to_object = _tensor_to_object  # noqa: SLF001 - where all collectives of objects come together


_real_tensor_to_object = distributed_c10d._tensor_to_object  # noqa: SLF001


def _tensor_to_object(*arguments: Any, **options: Any) -> Any:
    if not (options.get("weights_only") or True in arguments[3:]):
        raise RuntimeError("a collective of pickled objects: nothing is unpickled that comes from another process")
    return _real_tensor_to_object(*arguments, **options)


def load_whole(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set parameters and persistent buffers of a module that holds them whole."""
    places = dict(module.named_parameters()) | persistent_buffers(module)
    with torch.no_grad():
        for name, tensor in weights.items():
            places[name].copy_(tensor)


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that belong to a module's state, by name; masks and position ids, which are made again, are not among them."""
    kept = {}
    for prefix, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            if name not in part._non_persistent_buffers_set:  # noqa: SLF001 - torch has no public name for it
                kept[f"{prefix}.{name}" if prefix else name] = buffer
    return kept


def require_dimensions(shapes: Mapping[str, torch.Size], engine: str) -> None:
    """Raise JobError if a parameter has no dimensions, for engines that cannot divide such ones."""
    if scalars := [name for name, shape in shapes.items() if not shape]:
        raise JobError(
            "UnsupportedModel",
            f"spec.distribution.engine {engine} cannot divide parameters without dimensions, and this model has"
            f" {some_of(scalars)}: choose DDP",
        )


def move_buffers(module: nn.Module, device: torch.device) -> None:
    """Put the buffers of a module on a device, and leave its parameters where they are."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(device))
