"""Counts what tensors take while a program runs on fake ones, which have sizes and no memory."""

from __future__ import annotations

import weakref
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor, UntypedStorage
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_NUMBERS = frozenset({_aten._local_scalar_dense.default})  # noqa: SLF001 - what .item() calls
_COPYING = frozenset(
    operation.default
    for operation in (
        torch.ops.c10d._allgather_base_,
        torch.ops.c10d._reduce_scatter_base_,
        torch.ops.c10d.allgather_,
        torch.ops.c10d.reduce_scatter_,
    )
)
"""Messages that gloo passes through a copy of what is whole."""
_DEVICE = torch.ops.prim.device.default
_COMPARISONS = frozenset({_aten.equal.default, _aten.is_nonzero.default})


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that live, as an allocator would: each once, from the operation that makes it on.

    What a program asks a fake tensor for its value is answered, since there is none: a number is 1, a truth True, a flag
    of one byte 0. So a norm is finite, ZeRO sees no overflow, and the step is taken.

    Parameters
    ----------
    copying
        Whether messages pass through copies, as gloo's do, by which CPUs send them.

    Notes
    -----
    torch's CPU allocator, asked by the profiler, gives the same peak to the byte for a training step of a transformer.
    """

    def __init__(self, *, copying: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._copying = copying
        self.live = 0
        """Bytes that live now."""
        self.peak = 0
        """Most bytes that lived at once since the last `restart`."""
        self._sizes: dict[int, int] = {}

    def __enter__(self) -> Self:
        resize = UntypedStorage.resize_

        def resized(storage: UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            self._count(storage)
            return result

        # No operation, and how FSDP lets go of what it has gathered.
        self._resizing = patch.object(UntypedStorage, "resize_", resized)
        self._resizing.start()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._resizing.stop()

    def restart(self) -> None:
        """Look for the peak from here."""
        self.peak = self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked twice for each operation
        if func in _COMPARISONS:
            return True
        if func in _NUMBERS:
            return _answer(args[0])
        result = func(*args, **(kwargs or {}))
        if self._copying and func in _COPYING:
            self.peak = max(self.peak, self.live + max(map(_bytes, args[:2])))
        for found in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(found, Tensor) and not found.is_meta:
                # Of what is divided a share alone lies in memory; its own storage pretends to be whole.
                self._count(getattr(found, "_local_tensor", found).untyped_storage())
        return result

    def _count(self, storage: UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()  # noqa: SLF001 - the storage itself, whatever object stands for it
        known = self._sizes.get(key)
        if known == size:
            return
        if known is None:
            weakref.finalize(storage, self._drop, key)
        self._sizes[key] = size
        self.live += size - (known or 0)
        self.peak = max(self.peak, self.live)

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def _bytes(tensors: Any) -> int:
    return sum(found.nbytes for found in tree_leaves(tensors) if isinstance(found, Tensor))


def _answer(asked: Tensor) -> float:
    if asked.dtype is torch.bool:
        return True
    return 1.0 if asked.is_floating_point() else int(asked.dtype is not torch.uint8)
