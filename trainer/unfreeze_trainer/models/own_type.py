"""Frozen weights in the type of their file: held in half precision, computed with as float32 of the same bits.

What an optimizer never changes needs no float32: bfloat16 and float16 are exact in it. So a large weight keeps the type of its
file until it trains, and whoever reads `layer.weight` gets float32. Results are those of float32 weights, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor
from torch.nn import functional
from typing_extensions import override

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.folders import weight_files

Part = Literal["Body", "All"]
"""What of a model may keep its type: Body leaves out the head, which may be drawn anew."""
HALVES = {"BF16": torch.bfloat16, "F16": torch.float16}
"""Types that are exact in float32, in safetensors' words."""

_TYPES = HALVES | {
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Those that are mapped; a file with others is read as ever."""

_wanted: ContextVar[bool] = ContextVar("own_types", default=False)
_mapped_as: dict[str, tuple[int, int]] = {}
"""Size and time of change of each file, as they were when it was mapped."""
_shapes_alone: ContextVar[bool] = ContextVar("shapes_alone", default=False)
M = TypeVar("M", bound=nn.Module)


@contextmanager
def own_types(wanted: bool) -> Iterator[None]:
    """Have models that are loaded within keep the type of their file in their large weights, where they can."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Give whoever reads a weight that is held, within, its shape, device and float32, but NaN for values: nothing is copied."""
    token = _shapes_alone.set(True)
    try:
        yield
    finally:
        _shapes_alone.reset(token)


def wanted() -> bool:
    """Whether a model that is loaded here keeps the type of its file."""
    return _wanted.get()


class _Layer(nn.Module):
    """Before a layer's class: its weight lies in half precision, and is float32 to whoever reads it."""

    @property
    def weight(self) -> Tensor:
        """The weight in float32: a copy, as long as it is held in another type. What is written into that copy is lost.

        A share of it is what it is: FSDP takes it from here.
        """
        own = self._parameters["weight"]
        assert own is not None
        if own.dtype is torch.float32 or isinstance(own, DTensor):
            return own
        if _shapes_alone.get():
            return torch.full((), torch.nan, device=own.device).expand(own.shape)
        return own.float()


class _Linear(_Layer):
    """A linear layer; transformers' Conv1D is one too, with its weight transposed."""

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        own = self._parameters["weight"]
        assert own is not None
        if own.dtype is torch.float32:
            return super().forward(inputs)
        if torch.is_autocast_enabled(inputs.device.type):  # casts it anyway, to the same bits
            return self._apply_weight(inputs, own)
        whole = own.float()
        with saved_tensors_hooks(partial(self._pack, _identity(whole)), self._unpack):  # the graph holds the hooks
            return self._apply_weight(inputs, whole)

    def _apply_weight(self, inputs: Tensor, weight: Tensor) -> Tensor:
        if not isinstance(self, nn.Linear):
            shape = (*inputs.shape[:-1], self.nf)
            return torch.addmm(self.bias, inputs.view(-1, inputs.size(-1)), weight).view(shape)  # type: ignore[arg-type]
        return functional.linear(inputs, weight, self.bias)

    @staticmethod
    def _pack(whole: int, saved: Tensor) -> Any:
        """Keep of the float32 copy only how it was seen: the backward pass makes it once more."""
        if _identity(saved) != whole:
            return saved
        return saved.size(), saved.stride(), saved.storage_offset()

    def _unpack(self, kept: Any) -> Tensor:
        # Looked up now: engines that divide weights give the layer another tensor for its backward pass.
        return kept if isinstance(kept, Tensor) else self.weight.detach().as_strided(*kept)


def _identity(tensor: Tensor) -> int:
    """Return what tells the memory of a tensor from that of others while it lives."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - torch has no public name for it


class _Embedding(_Layer):
    """A table: the rows that are looked up become float32, and not the table."""

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        own, table = self._parameters["weight"], self
        assert own is not None
        assert isinstance(table, nn.Embedding)
        return functional.embedding(
            inputs, own, table.padding_idx, None, table.norm_type, table.scale_grad_by_freq, table.sparse
        ).float()


def _whole_dtype(_: nn.Module) -> torch.dtype:
    return torch.float32


def _is_layer(part: nn.Module) -> bool:
    if type(part) is nn.Embedding:
        return part.max_norm is None
    return type(part) is nn.Linear or _is_conv1d(part)


def _is_conv1d(part: nn.Module) -> bool:
    return type(part).__name__ == "Conv1D" and type(part).__module__ == "transformers.pytorch_utils"


@cache
def _class_of(kind: type[nn.Module], before: type[nn.Module]) -> type[nn.Module]:
    """Return a class of the same name that has `before` in front: isinstance and exports see the library's own."""
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (before, kind), own)


@cache
def _float32_to_all(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a class that says float32 where transformers would look at the first weight: masks and inputs follow it."""
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "dtype": property(_whole_dtype)}
    return type(kind.__name__, (kind,), own)


def layers(module: nn.Module, left_out: Collection[str] = ()) -> Iterator[nn.Module]:
    """Yield the layers whose weights may be held in half precision, but for weights of these names."""
    places = dict(module.named_modules(remove_duplicate=False))
    skipped = {id(parameter) for name, parameter in module.named_parameters() if name in left_out}
    for part in dict.fromkeys(places.values()):
        if _is_layer(part) and id(part._parameters["weight"]) not in skipped:  # noqa: SLF001
            yield part


def hold(module: M, left_out: Collection[str] = ()) -> M:
    """Have the layers compute in float32 whose weights lie in half precision; return the module.

    Parameters
    ----------
    module
        Some of its weights are of another type than float32.
    left_out
        Names of parameters that are left as they are.
    """
    for part in list(layers(module, left_out)):
        if part._parameters["weight"].dtype in HALVES.values():  # type: ignore[union-attr]  # noqa: SLF001
            part.__class__ = _class_of(type(part), _Embedding if isinstance(part, nn.Embedding) else _Linear)  # type: ignore[arg-type]
    for part in module.modules():
        if isinstance(getattr(type(part), "dtype", None), property):
            part.__class__ = _float32_to_all(type(part))  # type: ignore[arg-type]
    return module


def held(module: nn.Module) -> list[str]:
    """Return the names of the parameters that lie in half precision."""
    return [name for name, parameter in module.named_parameters() if parameter.dtype in HALVES.values()]


def widen(module: nn.Module, names: Collection[str]) -> int:
    """Make parameters float32, from the same bits, where they are not yet; return how many bytes more they take.

    Parameters
    ----------
    module
        It holds its parameters whole.
    names
        Of parameters; others are left as they are.
    """
    more = 0
    for name, parameter in module.named_parameters():
        if name in names and parameter.dtype in HALVES.values():
            parameter.grad = None
            more += parameter.nbytes
            parameter.data = parameter.data.float()
    return more


def file_types(path: str) -> dict[str, str]:
    """Return the type of each tensor in the files that transformers loads a folder from, in safetensors' words.

    Empty where these are no files of safetensors, or cannot be read: loading them says what is wrong.
    """
    return {key: value["dtype"] for key, value in _entries(path).items()}


def file_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in the files that transformers loads a folder from; empty as of `file_types`."""
    return {key: tuple(value["shape"]) for key, value in _entries(path).items()}


def _entries(path: str) -> dict[str, Any]:
    from safetensors import SafetensorError

    try:
        names = weight_files(path, path, library="transformers")
        found: dict[str, Any] = {}
        for name in names:
            if name.endswith(".safetensors"):
                found |= _header(str(Path(path, name)))[1]
    except (JobError, OSError, ValueError, SafetensorError):
        return {}
    return found


def mapped_bytes(module: nn.Module, path: str) -> int:
    """Return the bytes of a model's float32 parameters that transformers leaves in the pages of a folder's files, by their names."""
    types = file_types(path)
    known = {key for name, kind in types.items() if kind == "F32" for key in (name, name.partition(".")[2])}
    found = 0
    for name, parameter in module.named_parameters():
        own = name.removeprefix("base_model.model.").replace(".base_layer.", ".")  # within an adapter
        if own in known or own.partition(".")[2] in known:
            found += parameter.nbytes
    return found


def _mapped(path: str) -> dict[str, Tensor]:
    """Return the tensors of a file of safetensors, which lie in its pages: nothing is read before it is used, or copied.

    They are private to this process: what would be written into one would not reach the file. What others write into the file
    reaches them: see `rewritten`.
    """
    _mapped_as[path] = _look(path)
    length, header = _header(path)
    whole = torch.UntypedStorage.from_file(path, shared=False, nbytes=Path(path).stat().st_size)
    found: dict[str, Tensor] = {}
    for name, entry in header.items():
        kind = _TYPES[entry["dtype"]]
        start, end = entry["data_offsets"]
        raw = torch.empty(0, dtype=torch.uint8).set_(whole, length + start, (end - start,))  # type: ignore[call-overload]
        aligned = (length + start) % kind.itemsize == 0
        found[name] = (raw if aligned else raw.clone()).view(kind).view(entry["shape"])
    return found


def rewritten() -> list[str]:
    """Return the files that weights of this process lie in, or came from, and that have been written to since, or replaced."""
    return [path for path, then in _mapped_as.items() if Path(path).exists() and _look(path) != then]


def _look(path: str) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def _header(path: str) -> tuple[int, dict[str, Any]]:
    """Return where the tensors of a file of safetensors begin, and what it says of each of them.

    Raises
    ------
    SafetensorError
        The file is damaged: its length, or what it says of tensors, does not hold.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt"):  # looks at all that it says, and reads no tensor
        pass
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return 8 + length, header


def half_of(types: Mapping[str, str]) -> torch.dtype | None:
    """Return the one half precision among the types of files; None where there is none, or both."""
    halves = {kind for kind in types.values() if kind in HALVES}
    return HALVES[halves.pop()] if len(halves) == 1 else None


def _in_half(model: Any, types: Mapping[str, str]) -> Callable[[str], bool]:
    """Return whether a model's parameter comes from half precision, by its name; in doubt it does not."""
    if {kind for kind in types.values() if kind.startswith(("F", "BF"))} <= HALVES.keys():
        return lambda name: True  # noqa: ARG005
    prefix = f"{model.base_model_prefix}."

    def look(name: str) -> bool:
        keys = (name, name.removeprefix(prefix), f"{prefix}{name}")
        return next((types[key] for key in keys if key in types), "F32") in HALVES

    return look


@contextmanager
def placeholders(types: Mapping[str, str], part: Part, head: Callable[[nn.Module], Collection[str]]) -> Iterator[None]:
    """Have transformers read the weights of layers in their type: what it finds in a file stays as it lies there, not even copied.

    transformers gives each weight the type of the one without memory that waits for it. What no file has is drawn in float32
    as ever.

    Parameters
    ----------
    types
        Of the files.
    part
        Of the model.
    head
        Returns the names of a model's head.
    """
    from transformers.modeling_utils import PreTrainedModel

    owner: Any = PreTrainedModel
    before = owner.__dict__["_load_pretrained_model"]

    def load(
        model: nn.Module,
        state: Mapping[str, Tensor] | None,
        files: Sequence[str] | None,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        half, in_half = half_of(types), _in_half(model, types)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for layer in layers(model, head(model) if part == "Body" else ()):
            weight = layer._parameters["weight"]  # noqa: SLF001
            if weight is not None and weight.is_meta and weight.dtype is torch.float32 and in_half(names[id(weight)]):
                weight.data = weight.data.to(half)
        if state is None and files and types.keys() and set(types.values()) <= _TYPES.keys():
            state = {name: tensor for file in files for name, tensor in _mapped(file).items()}
        found = before.__func__(model, state, files, *arguments, **options)
        for parameter in model.parameters():
            if parameter.is_meta:  # in no file, or of another shape
                parameter.data = parameter.data.float()
        return found

    owner._load_pretrained_model = staticmethod(load)  # noqa: SLF001 - it has no other place between making and filling a model
    try:
        yield
    finally:
        owner._load_pretrained_model = before  # noqa: SLF001


@contextmanager
def as_in_files(module: nn.Module, base: str | None, folder: Path) -> Iterator[None]:
    """Write, within, what has not changed since it was read in the bytes of its file; then a loader is told to compute in float32.

    A parameter is written in the half precision of the base's files where that holds each of its values exactly, which is so
    of all that come from there and have not moved. What has trained, or had an adapter folded in, is written in float32.

    Parameters
    ----------
    module
        In float32; it comes out as it went in.
    base
        The folder that it was read from, None for none of transformers'.
    folder
        Where it is written to.
    """
    half = half_of(file_types(base)) if base else None
    smaller: list[nn.Parameter] = []
    for parameter in module.parameters() if half else ():
        if parameter.dtype is torch.float32 and torch.equal((small := parameter.data.to(half)).float(), parameter.data):
            parameter.data = small  # in place of the float32 values, which come back from it: never both
            smaller.append(parameter)
    try:
        yield
    finally:
        for parameter in smaller:
            parameter.data = parameter.data.float()
    config = folder / "config.json"
    if smaller and config.is_file():
        written = json.loads(config.read_text())
        config.write_text(json.dumps(written | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
